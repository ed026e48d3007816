"""Twenty exercises in writing backward passes: `python -m minidl.exercises`.

README.md in this folder says how an exercise is written.
"""

from .notebook import Checked, check

__all__ = ["Checked", "check"]
