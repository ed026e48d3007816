"""A run's records as TensorBoard's events, in its folder: `tensorboard --logdir runs` shows them.

Each record of `metrics.jsonl` becomes one event with a scalar for each of its numbers, written at
once, so that a killed run has lost none of them. A run that goes on writes another file, whose
first event tells TensorBoard to forget the steps that come again.
"""

import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MinidlError
from .confusion import plot_confusion
from .figures import as_png
from .filters import plot_filters
from .run import read_run

EVENT_FILES = "events.out.tfevents.*"
# What says where a record belongs, and so is no curve of its own.
PLACE = ("kind", "epoch", "step")


def check_tensorboard() -> None:
    """Raise MinidlError, saying what to install, where a run cannot be drawn by TensorBoard."""
    for package in ("tensorboardX", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MinidlError(
                f"--tensorboard needs {package}; install it with: pip install 'minidl[tensorboard]'"
            )


def tag_of(kind: str, name: str) -> str:
    """The name of a number's curve: training and test of the same are drawn side by side.

    >>> tag_of("epoch", "val_loss"), tag_of("step", "loss"), tag_of("epoch", "images_per_second")
    ('loss/test', 'loss/step', 'images_per_second')
    """
    split, _, quantity = name.partition("_")
    if split in ("train", "val"):
        return f"{quantity}/{'test' if split == 'val' else 'training'}"
    return f"{name}/step" if kind == "step" and name != "lr" else name


class EventLog:
    """Writes events to a new file in a run's folder.

    `next_step` is the first step that will be logged: events of it and of later ones in older files
    are taken back. Where there are no such files, what the run has logged so far comes first.
    Raises OSError where it cannot write.
    """

    def __init__(self, folder: Path, next_step: int = 1) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        earlier, metrics = any(folder.glob(EVENT_FILES)), folder / "metrics.jsonl"
        # Files are read in the order of their names, which begin with the time in seconds.
        self._file = EventsWriter(str(folder / "events"), f".{next_step:012}")
        if earlier:
            self._write(next_step, session_log=SessionLog(status=SessionLog.START))
        elif metrics.exists():
            for line in metrics.read_text().splitlines():
                self.record(json.loads(line))

    def record(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record of `metrics.jsonl`."""
        from tensorboardX.proto.summary_pb2 import Summary

        kind = record["kind"]
        values = [
            Summary.Value(tag=tag_of(kind, name), simple_value=value)
            for name, value in record.items()
            if name not in PLACE and isinstance(value, int | float)
        ]
        if kind == "epoch":  # the rate and the step are those of the last step, logged already
            values = [value for value in values if value.tag != "lr"]
        self._write(record["step"], summary=Summary(value=values))

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Write the content of a PNG file."""
        from tensorboardX.proto.summary_pb2 import Summary

        width, height = (int.from_bytes(png[i : i + 4]) for i in (16, 20))
        image = Summary.Image(width=width, height=height, encoded_image_string=png)
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def last_images(self, folder: Path) -> None:
        """Write what a finished run's folder holds: the first layer and the confusion matrix."""
        run = read_run(folder)
        if run.filters is not None:
            self.image("first layer", as_png(plot_filters(run.filters)), run.last_step)
        if run.confusion is not None:
            self.image("confusion matrix", as_png(plot_confusion(run.confusion)), run.last_step)

    def close(self) -> None:
        """Close the file; nothing can be written after that."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time.time(), step=step, **content))
        self._file.flush()
