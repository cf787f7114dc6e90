"""docs/music.md says what the code does."""

from pathlib import Path

from eqdiff_jax.music.tables import TABLES, with_tables

PAGE = Path(__file__).parents[2] / "docs" / "music.md"


def test_the_tables_of_the_page_are_those_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert with_tables(text) == text
    for name, make in TABLES.items():
        assert f"<!-- table: {name} -->\n{make()}\n<!-- end -->" in text
