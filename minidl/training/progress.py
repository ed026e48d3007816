"""What a run shows while it works: a bar in a terminal, a line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from rich.progress import TaskID

# Seconds between plain lines, so that a log file of a long run stays readable.
PLAIN_INTERVAL = 15.0
# The terminal shows ^C behind the bar when that is typed; at the margin it would break the line.
ROOM_FOR_INTERRUPT = 2


@dataclass
class Tally:
    """Sums over the images of an epoch so far, and the means that follow from them.

    >>> tally = Tally()
    >>> tally.add(0.5, np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    >>> tally.loss, tally.accuracy
    (0.5, 0.5)
    """

    images: int = 0
    correct: int = 0
    loss_sum: float = 0.0
    in_top5: int = 0

    def add(self, loss: float, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count a batch: its mean loss, logits (N, classes) and labels (N,)."""
        self.images += len(labels)
        self.correct += int((logits.argmax(axis=1) == labels).sum())
        self.loss_sum += loss * len(labels)
        own = logits[np.arange(len(labels)), labels][:, None]
        self.in_top5 += int(((logits > own).sum(axis=1) < 5).sum())

    @property
    def loss(self) -> float:
        """The mean loss, NaN before the first image."""
        return self._mean(self.loss_sum)

    @property
    def accuracy(self) -> float:
        """The part of the images whose largest logit is their label's."""
        return self._mean(self.correct)

    @property
    def top5(self) -> float:
        """The part of the images whose label's logit is one of the 5 largest."""
        return self._mean(self.in_top5)

    def __str__(self) -> str:
        """Loss and accuracy, always in as many columns (of a loss below 10,000).

        >>> for tally in (Tally(64, 5, 147.4), Tally(64, 64, 0.9), Tally(64, 0, 2000.0)):
        ...     print(tally)
        loss 2.3031  acc  7.8%
        loss 0.0141  acc  100%
        loss  31.25  acc  0.0%
        """
        loss = f"{self.loss:#.4g}" if self.loss >= 10 else f"{self.loss:.4f}"
        accuracy = f"{self.accuracy:.1%}".replace("100.0", "100")
        return f"loss {loss:>6}  acc {accuracy:>5}"

    def _mean(self, total: float) -> float:
        return total / self.images if self.images else math.nan


@dataclass
class Progress:
    """Where a run stands.

    `epoch` counts the epochs that are over, `batch` the batches of the current one, `step` all
    batches. `train` is over the current epoch so far, `lr` and `images_per_second` are those of the
    last step. With --amp fp16 losses are multiplied by `loss_scale`, which is halved whenever a
    gradient overflows and doubled after 2000 `steps_in_range`. With --on-nan skip `skipped` steps
    changed nothing, the last `skipped_in_a_row`. `seconds` is the time spent on the run,
    `epoch_start` what it was when the current epoch began.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    train: Tally = field(default_factory=Tally)
    lr: float = 0.0
    images_per_second: float = 0.0
    loss_scale: float = 65536.0
    steps_in_range: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    epoch_start: float = 0.0


class Reporter(Protocol):
    """What the trainer tells about its progress."""

    def start(self, title: str, total: int, done: int) -> None:
        """A pass over `total` batches begins (or goes on after `done`)."""

    def update(self, tally: Tally, images_per_second: float, done: int) -> None:
        """`done` batches are through; `tally` is over the pass so far."""

    def finish(self, summary: str) -> None:
        """The epoch is over; `summary` is a line to keep."""

    def stopping(self) -> None:
        """A stop was asked for, and will come after the current step."""

    def close(self) -> None:
        """The run is over, however it ended."""


class PlainReporter:
    """Lines for log files: after the first step, then every 15 seconds and after each epoch."""

    def __init__(self) -> None:
        self._title, self._total, self._first, self._begun = "", 0, 0, 0.0
        self._next = 0.0

    def start(self, title: str, total: int, done: int) -> None:
        self._title, self._total, self._first, self._begun = title, total, done, time.monotonic()

    def update(self, tally: Tally, images_per_second: float, done: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PLAIN_INTERVAL
        left = (now - self._begun) / (done - self._first) * (self._total - done)
        print(
            f"{self._title}  {done:{len(str(self._total))}}/{self._total}  {tally}  "
            f"{images_per_second:.0f} images/s  ETA {left:.0f} s",
            flush=True,
        )

    def finish(self, summary: str) -> None:
        print(summary, flush=True)

    def stopping(self) -> None:
        pass

    def close(self) -> None:
        pass


class BarReporter:
    """A progress bar (rich) with loss, accuracy, images/s and ETA."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console
        from rich.table import Column, Table

        console = Console()

        class Bar(progress.Progress):
            def make_tasks_table(self, tasks: Iterable[progress.Task]) -> Table:
                table = super().make_tasks_table(tasks)
                table.width = console.width - ROOM_FOR_INTERRUPT
                return table

        # Where the terminal is narrow, the bar shrinks before any figure does.
        whole = Column(no_wrap=True)
        self._bar = Bar(
            progress.TextColumn("{task.description}", table_column=whole),
            progress.BarColumn(bar_width=None, table_column=Column(ratio=1)),
            progress.MofNCompleteColumn(table_column=whole),
            progress.TextColumn("{task.fields[figures]}", table_column=whole),
            progress.TextColumn("ETA", table_column=whole),
            progress.TimeRemainingColumn(compact=True, table_column=whole),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def start(self, title: str, total: int, done: int) -> None:
        self._clear()
        self._task = self._bar.add_task(title, total=total, completed=done, figures="")
        self._bar.start()

    def update(self, tally: Tally, images_per_second: float, done: int) -> None:
        if self._task is not None:
            figures = f"{tally}  {images_per_second:.0f} img/s"
            self._bar.update(self._task, completed=done, figures=figures)

    def finish(self, summary: str) -> None:
        self._clear()
        self._bar.stop()
        print(summary, flush=True)

    def stopping(self) -> None:
        if self._task is not None:
            self._bar.update(self._task, description="stopping", refresh=True)

    def close(self) -> None:
        self._bar.stop()

    def _clear(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def make_reporter() -> Reporter:
    """A bar if standard output is a terminal, plain lines otherwise."""
    return BarReporter() if sys.stdout.isatty() else PlainReporter()
