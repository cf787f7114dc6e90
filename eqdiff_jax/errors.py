"""The one exception for input that a person can put right.

Command-line programs print its single line and exit with code 2; callers of the library catch
it as a ValueError. Raise it at the edge, before work starts: what is wrong, why, and the fix.
"""


class InputError(ValueError):
    """Bad input: one line naming the thing, the reason and the fix."""
