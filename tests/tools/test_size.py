"""The size of code is what runs: no layout, docstring, type or assertion changes it."""

from tools.size import Size, size, total

PLAIN = """
def double(x):
    return 2 * x
"""
DRESSED = '''"""A module."""

def double(
    x: float,  # a number
) -> float:
    """Twice as much."""
    assert x == x
    return (
        2 * x
    )
'''


def test_dress_does_not_count():
    assert size(PLAIN) == size(DRESSED) == Size(3, 2, 1)


def test_annotated_assignments_count_as_assignments():
    assert size("x: int = 1") == size("x = 1") and size("class A:\n    x: int") == size("class A:\n    pass")


def test_a_folder_is_the_sum_of_its_files(tmp_path):
    (tmp_path / "inner").mkdir()
    for path, text in (("a.py", PLAIN), ("inner/b.py", "x = 1"), ("c.txt", "x = 1")):
        (tmp_path / path).write_text(text)
    assert total(tmp_path) == Size(*(a + b for a, b in zip(size(PLAIN), size("x = 1"), strict=True)))
