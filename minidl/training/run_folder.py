"""The folder of a run: settings, environment, metrics, checkpoints, curves."""

import csv
import importlib.util
import io
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MinidlError
from ..io.files import flush_to_disk, replace_file
from ..reporting.curves import save_curves
from ..reporting.run import Confusion, write_confusion
from ..reporting.tensorboard import EVENT_FILES, EventLog

STEP_COLUMNS = ("epoch", "step", "lr", "loss")
EPOCH_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "images_per_second",
)
# What only some runs have: with more than 5 classes, with --on-nan skip.
EXTRA_EPOCH_COLUMNS = ("train_top5", "val_top5", "skipped")
SKIP_COLUMNS = ("epoch", "step", "lr", "reason")
# All that a run writes besides its checkpoints.
REPLACEABLE = ("config.json", "environment.json", "metrics.jsonl", "metrics.csv", "curves.png")
# The size of a confusion matrix grows with the square of their number.
MOST_CLASSES = 2000
COLUMNS = {"step": STEP_COLUMNS, "skip": SKIP_COLUMNS, "epoch": EPOCH_COLUMNS}


class RunFolder:
    """Writes `config.json`, `environment.json`, `metrics.jsonl`, `metrics.csv`, checkpoints, plot.

    `metrics.jsonl` has an object a line: {"kind": "step", ...} for each optimiser step, {"kind":
    "skip", ...} for one that was left out, and {"kind": "epoch", ...} for each epoch; `metrics.csv`
    has the epochs. `last.safetensors` holds all that it takes to go on, as does
    `epoch-0007.safetensors` for the end of that epoch; `best.safetensors` the weights alone.

    A new run gets its folder from `create` or `create_unnamed`, a resumed one from `reopen`. All
    methods raise MinidlError for what cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs: list[dict[str, Any]] = []
        self.events: EventLog | None = None

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """A new folder, an empty one, or that of a run that ended before its first checkpoint.

        Anything else that exists is refused.
        """
        run = cls(path)
        with run._writing():
            present = list(path.iterdir()) if path.is_dir() else []
            events = {file.name for file in path.glob(EVENT_FILES)}
            left = {*REPLACEABLE, *_names_of_leftovers(path)} | events
            kept = {file.name for file in present} - left
            if kept or path.is_file():
                go_on = f", or continue it with --resume {path}" if run.last.exists() else ""
                raise MinidlError(f"{path}: exists already; choose another --out{go_on}")
            for file in present:
                file.unlink()
            path.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def create_unnamed(cls, name: str) -> "RunFolder":
        """A new folder `runs/NAME`, or `runs/NAME-2` and so on where that exists."""
        for number in itertools.count(1):
            run = cls(Path("runs", name if number == 1 else f"{name}-{number}"))
            with run._writing():
                try:
                    run.path.mkdir(parents=True)
                    break
                except FileExistsError:
                    continue
        return run

    @classmethod
    def reopen(
        cls, path: Path, step: int, epoch: int, history: Sequence[dict[str, Any]] = ()
    ) -> "RunFolder":
        """The folder of a run that goes on after `step` and `epoch`; what came later is forgotten.

        What a crash leaves is cleared away: half a line of metrics, half a checkpoint under its
        temporary name. Epochs that the metrics lack are taken from `history`, the checkpoint's.
        """
        run = cls(path)
        text = ""
        if run.metrics.exists():
            with run._writing():
                text = run.metrics.read_text(errors="replace")
        records = [
            record
            for line in text.splitlines()
            if (record := _parse(line)) is not None
            and record["step"] <= step
            and (record["kind"] != "epoch" or record["epoch"] <= epoch)
        ]
        known = {record["epoch"] for record in records if record["kind"] == "epoch"}
        records += [r for r in history if _is_whole(r) and r["epoch"] not in known]
        records.sort(key=lambda record: (record["step"], record["kind"] == "epoch"))
        run.epochs = [record for record in records if record["kind"] == "epoch"]
        with run._writing():
            for name in _names_of_leftovers(path):
                (path / name).unlink()
        run._replace(run.metrics.name, "".join(_line(record) for record in records))
        run._write_csv()
        return run

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the epoch with the highest accuracy so far."""
        return self.path / "best.safetensors"

    def of_epoch(self, epoch: int) -> Path:
        """The checkpoint of the end of an epoch, which counts from 1."""
        return self.path / f"epoch-{epoch:04}.safetensors"

    def forget_epochs(self, last: int) -> None:
        """Remove the checkpoints of the epochs up to `last`."""
        with self._writing():
            for file in self.path.glob("epoch-[0-9]*.safetensors"):
                number = file.stem.removeprefix("epoch-")
                if number.isdecimal() and int(number) <= last:
                    file.unlink()
                    file.with_suffix(".json").unlink(missing_ok=True)

    @property
    def confusion(self) -> Path:
        """The confusion matrix of that epoch."""
        return self.path / "confusion.csv"

    @property
    def metrics(self) -> Path:
        """The record of all steps and epochs."""
        return self.path / "metrics.jsonl"

    def copy_history(self, source: Path, best: bool) -> None:
        """Take over another run's metrics and maybe its best checkpoint, if they exist."""
        names = [self.metrics.name]
        if best:
            names += [self.best.name, self.best.with_suffix(".json").name, self.confusion.name]
        with self._writing():
            for name in names:
                if (source / name).exists():
                    replace_file(self.path / name, partial(shutil.copyfile, source / name))

    def write_json(self, name: str, values: Any) -> None:
        """Write one of the small files that describe the run."""
        self._replace(name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def log_step(self, **values: Any) -> None:
        """Append a step to `metrics.jsonl`: STEP_COLUMNS, and `grad_norm` where it was computed."""
        self._append({"kind": "step"} | values)

    def log_skip(self, **values: Any) -> None:
        """Append a step that was left out to `metrics.jsonl`: SKIP_COLUMNS."""
        self._append({"kind": "skip"} | values)

    def flush(self) -> None:
        """Wait until the metrics are on the disk, for a checkpoint that is not to be ahead."""
        with self._writing():
            if self.metrics.exists():
                flush_to_disk(self.metrics)

    def log_epoch(self, **values: Any) -> None:
        """Append an epoch to `metrics.jsonl`, and rewrite `metrics.csv`.

        The names are EPOCH_COLUMNS, and those of EXTRA_EPOCH_COLUMNS that apply.
        """
        record = {"kind": "epoch"} | values
        self._append(record)
        self.epochs.append(record)
        self._write_csv()

    def write_confusion(
        self, classes: Sequence[str], labels: np.ndarray, answers: np.ndarray
    ) -> None:
        """Write the best epoch's confusion matrix: of labels (N,) and answers (N,), as a table."""
        if len(classes) <= MOST_CLASSES:
            with self._writing():
                write_confusion(self.confusion, Confusion.of(classes, labels, answers))

    def plot(self, title: str) -> None:
        """Draw the epochs so far as `curves.png`, where matplotlib is installed."""
        if importlib.util.find_spec("matplotlib") is not None:
            with self._writing():
                replace_file(self.path / "curves.png", lambda p: save_curves(p, title, self.epochs))

    def _append(self, record: dict[str, Any]) -> None:
        with self._writing(), open(self.metrics, "a") as file:
            file.write(_line(record))
            if self.events is not None:
                self.events.record(record)

    def _write_csv(self) -> None:
        text = io.StringIO()
        extra = [name for name in EXTRA_EPOCH_COLUMNS if any(name in e for e in self.epochs)]
        columns = [*EPOCH_COLUMNS, *extra]
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.epochs)
        self._replace("metrics.csv", text.getvalue())

    def _replace(self, name: str, text: str) -> None:
        with self._writing():
            replace_file(self.path / name, lambda p: p.write_text(text))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MinidlError(f"{self.path}: cannot write ({error.strerror})") from error


def _names_of_leftovers(path: Path) -> list[str]:
    """What a run that was killed while it wrote has left: ".tmp*" is safetensors' own name."""
    return [file.name for pattern in (".*.partial", ".tmp*") for file in path.glob(pattern)]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _parse(line: str) -> dict[str, Any] | None:
    """A record of the metrics, or None for a line that is not whole."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if _is_whole(record) else None


def _is_whole(record: Any) -> bool:
    try:
        whole = set(COLUMNS[record["kind"]]) <= set(record)
        return whole and isinstance(record["step"], int) and isinstance(record["epoch"], int)
    except (KeyError, TypeError):
        return False
