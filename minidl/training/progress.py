"""What a run shows while it works: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Any, Protocol

# Seconds between plain lines, so that a log file of a long run stays readable.
PLAIN_INTERVAL = 15.0


class Reporter(Protocol):
    """What the trainer tells about its progress."""

    def start(self, title: str, total: int, done: int) -> None:
        """An epoch of `total` batches begins (or goes on after `done`)."""

    def update(self, loss: float, accuracy: float, images_per_second: float, done: int) -> None:
        """`done` batches are through; loss and accuracy are means over the epoch so far."""

    def finish(self, summary: str) -> None:
        """The epoch is over; `summary` is a line to keep."""

    def close(self) -> None:
        """The run is over, however it ended."""


class PlainReporter:
    """Lines for log files: after the first step, then every 15 seconds and after each epoch."""

    def __init__(self) -> None:
        self._title, self._total, self._first, self._begun = "", 0, 0, 0.0
        self._next = 0.0

    def start(self, title: str, total: int, done: int) -> None:
        self._title, self._total, self._first, self._begun = title, total, done, time.monotonic()

    def update(self, loss: float, accuracy: float, images_per_second: float, done: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PLAIN_INTERVAL
        left = (now - self._begun) / max(1, done - self._first) * (self._total - done)
        print(
            f"{self._title}  {done}/{self._total}  loss {loss:.4f}  accuracy {accuracy:.1%}  "
            f"{images_per_second:.0f} images/s  ETA {left:.0f} s",
            flush=True,
        )

    def finish(self, summary: str) -> None:
        print(summary, flush=True)

    def close(self) -> None:
        pass


class BarReporter:
    """A progress bar (rich) with loss, accuracy, images/s and ETA."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as RemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("ETA"),
            RemainingColumn(compact=True),
            transient=True,
            expand=True,
        )
        self._task: Any = None

    def start(self, title: str, total: int, done: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task(title, total=total, completed=done, figures="")

    def update(self, loss: float, accuracy: float, images_per_second: float, done: int) -> None:
        figures = f"loss {loss:.3f} acc {accuracy:.1%} {images_per_second:.0f} img/s"
        self._progress.update(self._task, completed=done, figures=figures)

    def finish(self, summary: str) -> None:
        self._progress.remove_task(self._task)
        self._progress.stop()
        print(summary, flush=True)

    def close(self) -> None:
        self._progress.stop()


def make_reporter() -> Reporter:
    """A bar if standard output is a terminal, plain lines otherwise."""
    return BarReporter() if sys.stdout.isatty() else PlainReporter()
