"""A run read back from its folder: what it was told, what it logged, what it kept."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MinidlError
from ..io.files import replace_file
from .filters import read_first_layer

# What every record of metrics.jsonl has, by its kind; other columns are optional.
NUMBERS = {
    "step": ("epoch", "step", "lr", "loss"),
    "skip": ("epoch", "step"),
    "epoch": ("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
}
# Larger than any run's small files; a stranger's may be anything.
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Confusion:
    """How the test images were classified: row i, column j counts images of class i taken for j."""

    classes: tuple[str, ...]
    counts: np.ndarray  # (classes, classes) int64

    @classmethod
    def of(cls, classes: Sequence[str], labels: np.ndarray, answers: np.ndarray) -> "Confusion":
        """The matrix of images with `labels` (N,) that were taken for `answers` (N,).

        Answers that no class of the data has are numbered.

        >>> Confusion.of(["cat", "dog"], np.array([0, 0, 1]), np.array([0, 1, 2]))
        Confusion(classes=('cat', 'dog', 'class 2'), counts=array([[1, 1, 0],
               [0, 0, 1],
               [0, 0, 0]]))
        """
        count = max(len(classes), int(answers.max(initial=-1)) + 1)
        names = [*classes, *(f"class {number}" for number in range(len(classes), count))]
        counts = np.bincount(labels * count + answers, minlength=count**2)
        return cls(tuple(names), counts.reshape(count, count))

    @property
    def accuracies(self) -> np.ndarray:
        """The part of each class that was recognised, (classes,); NaN for a class without images.

        >>> Confusion(("cat", "dog"), np.array([[3, 1], [0, 0]])).accuracies
        array([0.75,  nan])
        """
        images = self.counts.sum(axis=1)
        right = self.counts.diagonal().astype(np.float64)
        return np.divide(right, images, out=np.full(len(images), np.nan), where=images > 0)


@dataclass(frozen=True)
class Run:
    """One run: `config` its settings, `steps` and `epochs` the records of `metrics.jsonl`.

    A run that went on from an older checkpoint may have epochs without their steps.

    `filters` is the first layer's weight (filters, channels, height, width) in `best.safetensors`,
    `confusion` the best epoch's matrix; both are None as long as the run has none.
    """

    path: Path
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    confusion: Confusion | None
    filters: np.ndarray | None

    @property
    def last_step(self) -> int:
        """The number of the last step that has been logged."""
        return int(max(record["step"] for record in (*self.steps[-1:], *self.epochs[-1:])))

    @property
    def best(self) -> dict[str, Any] | None:
        """The first epoch with the highest test accuracy."""
        return max(self.epochs, key=lambda record: record["val_accuracy"], default=None)


def read_run(path: Path) -> Run:
    """Read the folder of a run, which may still be under way.

    Raises:
        MinidlError: it is not the folder of a run, a file in it is damaged, or nothing has been
            logged yet; the text names the file.
    """
    if not path.is_dir():
        raise MinidlError(f"{path}: {'not a folder' if path.exists() else 'there is no such run'}")
    try:
        config = _read_object(path / "config.json")
        steps, epochs = _read_metrics(path / "metrics.jsonl")
        confusion = path / "confusion.csv"
        weights = path / "best.safetensors"
        channels = 1 if config.get("in_channels") == 1 else 3
        return Run(
            path=path,
            name=path.resolve().name,
            config=config,
            environment=_read_object(path / "environment.json"),
            steps=steps,
            epochs=epochs,
            confusion=read_confusion(confusion) if confusion.exists() else None,
            filters=read_first_layer(weights, channels) if weights.exists() else None,
        )
    except OSError as error:
        raise MinidlError(f"{path}: cannot be read ({error.strerror})") from error


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Several runs, with names that tell them apart: those of their folders, or the whole paths."""
    runs = [read_run(path) for path in paths]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise MinidlError("the same run is named twice")
    if len({run.name for run in runs}) < len(runs):
        runs = [Run(**(vars(run) | {"name": str(run.path)})) for run in runs]
    return runs


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise MinidlError(f"{path.parent}: not the folder of a run (it has no {path.name})")
    if path.stat().st_size > MAX_BYTES:
        raise MinidlError(f"{path}: {path.stat().st_size / 1e6:,.0f} MB, expected far less")
    return path.read_bytes().decode("utf-8", "replace")  # keeping carriage returns


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise MinidlError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(values, dict):
        raise MinidlError(f"{path}: expected names and values, in braces")
    return values


def _read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of steps and of epochs; a last line that is being written is not yet there."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in NUMBERS}
    if not path.is_file():
        raise MinidlError(f"{path.parent}: nothing has been logged yet (there is no {path.name})")
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break
            try:
                record = json.loads(line)
                found[record["kind"]].append(record)
                _check(record)
            except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
                raise MinidlError(f"{path}: line {number} is not a record of a run") from error
    if not found["step"] and not found["epoch"]:
        raise MinidlError(f"{path}: no step has been logged yet")
    return found["step"], found["epoch"]


def _check(record: dict[str, Any]) -> None:
    """Raise ValueError unless the numbers of a record are numbers; those are finite."""
    optional = [name for name in ("seconds", "images_per_second") if name in record]
    for name in (*NUMBERS[record["kind"]], *optional):
        if isinstance(record[name], bool) or not math.isfinite(record[name]):
            raise ValueError(name)


def write_confusion(path: Path, confusion: Confusion) -> None:
    """Write a matrix as a table that spreadsheets read, the classes' names above and to the left.

    Raises:
        OSError: the file cannot be written.
    """
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(["", *confusion.classes])
    rows = zip(confusion.classes, confusion.counts.tolist(), strict=True)
    writer.writerows([name, *row] for name, row in rows)
    replace_file(path, lambda p: p.write_bytes(lines.getvalue().encode("utf-8", "replace")))


def read_confusion(path: Path) -> Confusion:
    """The matrix that `write_confusion` wrote.

    Raises:
        MinidlError: the file is not such a matrix.
    """
    content = io.StringIO(_read_text(path), newline="")
    try:
        rows = list(csv.reader(content))
        classes = tuple(rows[0][1:])
        counts = np.array([row[1:] for row in rows[1:]], dtype=np.int64)
        square = counts.shape == (len(classes), len(classes))
        if not square or [row[0] for row in rows[1:]] != list(classes) or counts.min() < 0:
            raise ValueError
    except (csv.Error, IndexError, OverflowError, ValueError) as error:
        raise MinidlError(f"{path}: not a square of counts with the classes' names") from error
    return Confusion(classes, counts)
