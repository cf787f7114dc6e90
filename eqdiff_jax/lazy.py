"""Names of a package that are imported when they are asked for."""

import importlib
from collections.abc import Callable
from typing import Any


def attributes(package: str, **modules: str) -> Callable[[str], Any]:
    """A package's `__getattr__`: each name comes from its module, which is imported then and not before."""
    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return find
