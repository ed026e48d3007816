"""The learning-rate range test: which rates does this training learn with?

The rate rises exponentially from step to step. The loss begins to fall once the rate is large
enough to learn anything, and explodes where it is too large. Where it falls most steeply, measured
along the logarithm of the rate, is a good highest rate of a schedule.

Source: L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3.
There the rate rises linearly and the accuracy is watched; the logarithmic form became usual later.
"""

import csv
import importlib.util
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import DivergedError, MinidlError
from ..io.files import replace_file
from ..tensor import Tensor
from .batches_on_device import copied_ahead
from .optimization import make_optimizer
from .run_folder import RunFolder
from .trainer import Trainer

__all__ = ["RangeTest", "find_learning_rate", "range_test"]

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
EXPLODED = 4.0  # a loss so many times the lowest so far ends the test
WEIGHTS = np.array([1, 6, 15, 20, 15, 6, 1]) / 64  # of neighbouring steps in a smoothed loss


@dataclass(frozen=True)
class RangeTest:
    """The rates that were tried, and the loss (of the batch, before the step) at each."""

    rates: np.ndarray
    losses: np.ndarray

    @property
    def smoothed(self) -> np.ndarray:
        """Each loss averaged with its neighbours, so that it is not behind as running means are."""
        side = len(WEIGHTS) // 2
        return np.convolve(np.pad(self.losses, side, mode="edge"), WEIGHTS, mode="valid")

    @property
    def lowest(self) -> float:
        """The rate at the lowest smoothed loss; from about there on it is too high."""
        return float(self.rates[self.smoothed.argmin()])

    @property
    def suggestion(self) -> float:
        """The rate where the smoothed loss falls most steeply.

        Raises:
            MinidlError: the loss does not fall.

        >>> rates = 10.0 ** np.arange(-6, 2)
        >>> RangeTest(rates, np.array([2.3, 2.3, 2.3, 2.2, 1.0, 0.9, 1.5, 9.0])).suggestion
        0.001
        """
        smoothed = self.smoothed
        end = int(smoothed.argmin()) + 1
        slopes = np.gradient(smoothed, np.log(self.rates))[:end] if len(smoothed) > 1 else [0.0]
        steepest = int(np.argmin(slopes))
        if not slopes[steepest] < 0:
            raise MinidlError(
                f"no learning rate from {self.rates[0]:g} to {self.rates[-1]:g} lets the loss fall"
            )
        return float(self.rates[steepest])


def range_test(trainer: Trainer, steps: int = STEPS) -> RangeTest:
    """Take `steps` steps of training with rates from 1e-6 to 10, fewer if the loss explodes.

    Every group of parameters keeps its factor. The weights are spoilt afterwards; a trainer
    without a run folder writes nothing.

    Raises:
        MinidlError: the loss is not finite from the start.
    """
    settings = trainer.settings
    own = make_optimizer(settings, trainer.model).param_groups
    scales = [group["lr"] / settings.lr for group in own]
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    losses: list[float] = []
    trainer.model.train()
    for rate, (images, labels) in zip(rates, endless_batches(trainer), strict=False):
        for group, scale in zip(trainer.optimizer.param_groups, scales, strict=True):
            group["lr"] = float(rate * scale)
        try:
            loss = trainer.step(images, labels)
        except DivergedError:
            if not losses:
                raise
            break
        if losses and not loss <= EXPLODED * min(losses):  # not finite where steps are left out
            break
        losses.append(loss)
    return RangeTest(rates[: len(losses)], np.array(losses))


def endless_batches(trainer: Trainer) -> Iterator[tuple[Tensor, np.ndarray]]:
    """The training batches of one epoch after the other, without end."""
    for epoch in itertools.count():
        yield from copied_ahead(trainer.train_loader.batches(epoch), trainer.settings.device)


def find_learning_rate(trainer: Trainer, open_folder: Callable[[], RunFolder]) -> str:
    """Make the range test, leave it in a folder, and say what was found.

    Raises:
        MinidlError: no rate lets the loss fall, or the folder cannot be made.
        OSError: a file cannot be written.
    """
    result = range_test(trainer)
    rate = float(f"{result.suggestion:.1e}")
    run = open_folder()
    written = " and ".join(write_range_test(run.path, trainer.settings.arch, result))
    return (
        f"{len(result.rates)} steps with learning rates from {result.rates[0]:.2g} to "
        f"{result.rates[-1]:.2g}, {trainer.settings.optimizer}\n"
        f"the loss falls most steeply at {rate:g}, and is lowest at {result.lowest:.1e}\n"
        f"suggestion: --lr {rate:g} (see {written} in {run.path})"
    )


def write_range_test(folder: Path, title: str, result: RangeTest) -> list[str]:
    """Write `lr_finder.csv` and, where matplotlib is installed, `lr_finder.png` into a folder.

    Returns the names of what was written.

    Raises:
        OSError: they cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("lr", "loss", "smoothed"))
    writer.writerows(zip(result.rates, result.losses, result.smoothed, strict=True))
    replace_file(folder / "lr_finder.csv", lambda path: path.write_text(text.getvalue()))
    if importlib.util.find_spec("matplotlib") is None:
        return ["lr_finder.csv"]
    replace_file(folder / "lr_finder.png", partial(_plot, title=title, result=result))
    return ["lr_finder.csv", "lr_finder.png"]


def _plot(path: Path, title: str, result: RangeTest) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, color="tab:blue", alpha=0.3, label="loss of a batch")
    axes.plot(result.rates, result.smoothed, color="tab:blue", label="smoothed")
    rate = result.suggestion
    axes.axvline(rate, color="tab:orange", label=f"steepest: {rate:.2g}")
    axes.set_xscale("log")
    axes.set_ylim(top=1.2 * float(result.smoothed[: 1 + int(result.smoothed.argmin())].max()))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("cross-entropy")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=120)
