"""Stopping a run from outside: Ctrl-C and SIGTERM."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import MinidlError


class Interrupted(MinidlError):
    """The run was asked to stop; the text says how to go on."""


class StopAsked(Exception):
    """Takes a stop that was asked for from where a step has just ended to where all is saved."""


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that a step is never cut in half.

    A second one raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise StopAsked if a stop was asked for."""
        if self.requested:
            raise StopAsked

    @contextmanager
    def installed(self, on_request: Callable[[], None]) -> Iterator[None]:
        """Handle the signals inside this block; the first one calls `on_request`."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            on_request()

        previous = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
