"""docs/music.md, performance.md and conditioning.md say what the code does."""

from pathlib import Path

from tools.tables import TABLES, with_tables

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_of_the_pages_are_those_of_the_code():
    text = "".join((DOCS / f"{name}.md").read_text(encoding="utf-8")
                   for name in ("music", "performance", "conditioning"))
    assert with_tables(text) == text
    for name, make in TABLES.items():
        assert f"<!-- table: {name} -->\n{make()}\n<!-- end -->" in text
