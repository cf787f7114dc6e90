"""How large the code is by what layout, docstrings and types cannot change.

    python tools/size.py [FOLDER ...]      default: eqdiff_jax tools

Counts expression nodes, statements and definitions of the syntax trees, without docstrings, annotations and asserts.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple


class Size(NamedTuple):
    """Counts of syntax nodes."""

    expressions: int
    statements: int
    definitions: int


class _Bare(ast.NodeTransformer):
    """Drops what does not run."""

    def visit_Assert(self, node):
        return None

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()

    def visit_arg(self, node):
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.returns = None
        return _without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        return _without_docstring(node)

    def visit_Module(self, node):
        self.generic_visit(node)
        return _without_docstring(node)


def _without_docstring(node):
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]
    return node


def size(source: str) -> Size:
    """Counts of one file's source."""
    nodes = list(ast.walk(_Bare().visit(ast.parse(source))))
    kinds = (ast.expr, ast.stmt, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    return Size(*(sum(isinstance(node, kind) for node in nodes) for kind in kinds))


def total(*folders: str | Path) -> Size:
    """Counts of all Python files below the folders."""
    sizes = [size(path.read_text(encoding="utf-8")) for folder in folders for path in Path(folder).rglob("*.py")]
    return Size(*map(sum, zip(*sizes, strict=True)))


if __name__ == "__main__":
    print("{} expressions, {} statements, {} definitions".format(*total(*(sys.argv[1:] or ("eqdiff_jax", "tools")))))
