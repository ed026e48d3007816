"""What minidl's commands share: whatever goes wrong ends in one line and exit status 2.

And how they say how much of something there was, and how long it took.
"""

import io
import os
import sys
from argparse import ArgumentParser, HelpFormatter
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from .errors import MinidlError

LONGEST_COMPLAINT = 160  # characters, where --help says the same


class Parser(ArgumentParser):
    """Complains in one line; takes options by their whole names.

    ``prog`` is what a user types, ``python -m minidl.train``.
    """

    def __init__(self, **arguments: Any) -> None:
        arguments.setdefault("formatter_class", partial(HelpFormatter, max_help_position=26))
        super().__init__(**arguments, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with 2; a long list of choices is left to --help."""
        if len(message) > LONGEST_COMPLAINT:
            message = message.partition(" (choose from ")[0]
        complain(self.prog, f"{message} (see --help)")
        self.exit(2)


def complain(prog: str, text: str) -> None:
    """One line on standard error: which command, without Python's part of it, and what is wrong."""
    print(f"{prog.removeprefix('python -m ')}: {' '.join(text.split())}", file=sys.stderr)


def exit_status(prog: str, action: Callable[[], None]) -> int:
    """Do what a command is there for; returns 0, or 2 after one line that says what went wrong.

    ``prog`` is its parser's. Only mistakes in the program itself are left to end in a traceback.

    >>> exit_status("python -m minidl.example", lambda: None)
    0
    """
    complaint = ""
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        action()
        sys.stdout.flush()
        return 0
    except MinidlError as error:
        complaint = str(error)
    except MemoryError as error:
        if "out of memory" in str(error):  # a GPU's, see device.py
            complaint = f"{error}: --batch-size, --image-size"
        else:
            complaint = f"out of memory ({error}); try a smaller --batch-size or --image-size"
    except KeyboardInterrupt:
        complaint = "stopped; nothing was saved"
    except BrokenPipeError:
        pass  # whoever read our output has gone; there is nobody to tell
    except OSError as error:
        complaint = str(error)
    if complaint:
        complain(prog, complaint)
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try once more at its end, and complain at length
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    >>> duration(59.96), duration(185), duration(7300)
    ('60.0 s', '3 min 5 s', '2 h 1 min')
    """
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {int(seconds) % 60} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "epoch"), plural(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
