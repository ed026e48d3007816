"""What comes of checking one answer."""

from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, WRONG, NOT_STARTED = "passed", "wrong", "not started"
CRASHED, TIMED_OUT, FORBIDDEN = "crashed", "timed out", "forbidden"
EXIT_CODES = {PASSED: 0, WRONG: 1, FORBIDDEN: 1, NOT_STARTED: 2, CRASHED: 3, TIMED_OUT: 3}


@dataclass
class Verdict:
    """What came of checking one answer; everything in it can be written as JSON.

    ``ladder`` holds (label, what is wrong there, or nothing) of each case in its order,
    ``mistakes`` the names of the known mistakes that were recognised, ``worst`` the element that
    is furthest off, ``printed`` the beginning of what the answer printed.
    """

    exercise: str
    status: str
    headline: str
    details: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    ladder: list[tuple[str, str]] = field(default_factory=list)
    worst: str = ""
    printed: str = ""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 passed, 1 wrong or forbidden, 2 not started, 3 crashed or timed out.

        >>> Verdict("linear_backward", CRASHED, "ZeroDivisionError").exit_code
        3
        """
        return EXIT_CODES[self.status]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
