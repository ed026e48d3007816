"""What all experiments share: ordinary training runs that are kept, and not done twice."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import data, random
from ..counting import summary
from ..errors import DivergedError, MinidlError
from ..models import ImageClassifier, create
from ..nn import Module
from ..training import Interrupted, RunFolder, Settings, Trainer, load_checkpoint
from ..training.progress import make_reporter

RESULT_FILE = "result.json"
# Where a run is computed, and by how many threads, does not make it another run.
IRRELEVANT = ("threads", "device")


@dataclass(frozen=True)
class Scale:
    """An experiment's size: the settings of its runs, and what its networks are made of."""

    settings: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One run of an experiment.

    Attributes:
        name: of the run and its folder.
        make_model: builds the network, with weights from minidl's generator.
        settings: what differs from those of the other runs.
        measure: takes further numbers from the trained network, in evaluation mode.
    """

    name: str
    make_model: Callable[[], Module]
    settings: Mapping[str, Any] = field(default_factory=dict)
    measure: Callable[[Module], dict[str, float]] | None = None


@dataclass(frozen=True)
class Result:
    """What is left of a run when it is over.

    Attributes:
        params, macs: of the network; multiply-accumulates for one image.
        steps, seconds: how many, and how long they took with the evaluations.
        epochs: the records of `metrics.jsonl`, one an epoch.
        diverged: the line that says where the loss became infinite or NaN, if it did.
        measured: what the part's `measure` returned.
    """

    params: int
    macs: int
    steps: int
    seconds: float
    epochs: list[dict[str, Any]]
    diverged: str | None = None
    measured: dict[str, float] = field(default_factory=dict)

    def curve(self, quantity: str) -> tuple[list[int], list[float]]:
        """The epochs, and a quantity after each, e.g. "val_loss"."""
        return [e["epoch"] for e in self.epochs], [e[quantity] for e in self.epochs]

    def last(self, quantity: str) -> float | None:
        """A quantity after the last epoch; None where the run diverged."""
        return None if self.diverged else self.epochs[-1][quantity]

    def error(self, split: str) -> float | None:
        """The part of the "train" or "val" images that the last epoch got wrong."""
        accuracy = self.last(f"{split}_accuracy")
        return None if accuracy is None else 1 - accuracy

    def describe(self) -> str:
        """How it ended, in a line."""
        if self.diverged:
            return f"diverged: {self.diverged}"
        return f"training error {self.error('train'):.1%}, test error {self.error('val'):.1%}"


class PartFolder(RunFolder):
    """A run's folder without a plot of its own: the experiment draws all its runs in one."""

    def plot(self, title: str) -> None:
        """Do nothing."""


class Lab:
    """Trains the runs of an experiment in `out`, but for those that are finished.

    Args:
        out: the folder; each run has one in it.
        scale: the experiment's size.
        given: settings that the user asks for, by name; they come before those of the scale.

    Raises:
        MinidlError: a setting is wrong, or the data cannot be opened.

    Attributes:
        settings: those that all runs share.
        splits: the data set.
        seconds: what the runs took, whenever that was.
        steps: how many each had.
    """

    def __init__(self, out: Path, scale: Scale, given: Mapping[str, Any]) -> None:
        self.out = out
        self.model = scale.model
        values = dict(scale.settings)
        if "data" in given:
            values.pop("image_size", None)  # was chosen for other images
        try:
            settings = Settings(**({"arch": out.name} | values | dict(given)))
        except ValueError as error:
            raise MinidlError(str(error)) from error
        splits = data.load(settings.data, settings.image_size, settings.in_channels)
        try:
            self.splits = splits.prepared(settings.augment, settings.preprocess)
        except ValueError as error:
            raise MinidlError(f"{settings.data}: {error}") from error
        self.settings = settings.changed(
            image_size=self.splits.image_size, num_classes=len(self.splits.classes)
        )
        self.seconds = 0.0
        self.steps: list[int] = []
        self._varied: dict[str, list[Any]] = {}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of an image: (C, H, W)."""
        return self.splits.channels, self.splits.image_size, self.splits.image_size

    @property
    def num_classes(self) -> int:
        """How many there are in the data."""
        return len(self.splits.classes)

    def create(self, arch: str, **options: Any) -> ImageClassifier:
        """An architecture by name, for these images and classes."""
        channels, side, _ = self.input_shape
        return create(arch, self.num_classes, channels, side, **options)

    def train(self, parts: Sequence[Part]) -> dict[str, Result]:
        """Train what has not been trained before; the results by the parts' names.

        Raises:
            Interrupted: a stop was asked for; finished runs are kept, and where this one stands.
            MinidlError: a folder holds another run, or cannot be written; a network does not take
                the images.
        """
        results = {}
        try:
            for number, part in enumerate(parts, 1):
                print(f"[{number}/{len(parts)}] {part.name}: ", end="", flush=True)
                result = results[part.name] = self._train(part)
                self.seconds += result.seconds
                self.steps.append(result.steps)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted("stopped; the same command goes on from here") from None
        return results

    def values(self, name: str) -> list[Any]:
        """Those that a setting has had in the runs, each once."""
        return self._varied.get(name, [getattr(self.settings, name)])

    def _train(self, part: Part) -> Result:
        settings = self.settings.changed(arch=part.name, **part.settings)
        for name, value in part.settings.items():
            values = self._varied.setdefault(name, [])
            values += [] if value in values else [value]
        random.manual_seed(settings.seed)
        try:
            model = part.make_model()
            counted = summary(model, self.input_shape)
        except ValueError as error:
            raise MinidlError(str(error)) from error
        folder: RunFolder = PartFolder(self.out / part.name)
        _check_same_run(folder.path, settings)
        finished = _read_result(folder.path / RESULT_FILE)
        if finished is not None:
            if (finished.params, finished.macs) != (counted.params, counted.macs):
                raise MinidlError(
                    f"{folder.path}: holds a run of another network, of {finished.params:,} "
                    f"parameters and not {counted.params:,}; choose another --out"
                )
            print(f"done before, {finished.describe()}")
            return finished
        print(f"{counted.params:,} parameters, {counted.macs:,} MACs", flush=True)
        trainer = Trainer(settings, self.splits, model.to(device=settings.device))
        if folder.last.exists():
            trainer.restore(load_checkpoint(folder.last))
            folder = PartFolder.reopen(folder.path, trainer.progress.step, trainer.progress.epoch)
        else:
            if (folder.path / "config.json").exists():
                _remove(folder.path)  # this run, killed before its first checkpoint
            folder = PartFolder.create(folder.path)
            folder.write_json("config.json", asdict(settings))
        trainer.run = folder
        diverged = None
        try:
            trainer.train(make_reporter())
        except DivergedError as error:
            diverged = str(error).partition(";")[0]
        measure = part.measure if diverged is None else None
        result = Result(
            counted.params,
            counted.macs,
            trainer.progress.step,
            trainer.progress.seconds,
            folder.epochs,
            diverged,
            {} if measure is None else measure(model.eval()),
        )
        folder.write_json(RESULT_FILE, asdict(result))
        if diverged is not None:
            print(result.describe())
        return result


def _check_same_run(folder: Path, settings: Settings) -> None:
    """Raise MinidlError if another run has been begun in `folder`."""
    before = _read_json(folder / "config.json")
    if before is None:
        return
    wanted = json.loads(json.dumps(asdict(settings)))  # with lists for tuples
    for name in wanted:
        if name in IRRELEVANT or name not in before:
            continue
        old, new = (str(values[name]) for values in (before, wanted))
        if name == "data":  # the images may have moved
            old, new = (spec.partition(":")[0] for spec in (old, new))
        if old != new:
            raise MinidlError(
                f"{folder}: begun with {name.replace('_', '-')} {old}, not {new}; choose another "
                "--out, or remove that folder"
            )


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise MinidlError(f"{folder}: cannot be removed ({error.strerror})") from error


def _read_result(path: Path) -> Result | None:
    """What a finished run has written, None if there is nothing."""
    values = _read_json(path)
    try:
        return None if values is None else Result(**values)
    except TypeError as error:
        raise MinidlError(f"{path}: not a result ({error}); remove it") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MinidlError(f"{path}: cannot be read ({error}); remove {path.parent}") from error
    if not isinstance(values, dict):
        raise MinidlError(f"{path}: damaged; remove {path.parent}")
    return values
