"""Curves of one run or several: loss and accuracy by epoch, loss and learning rate by step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figures import COLOURS, INK, styled

Records = Sequence[Mapping[str, Any]]

BINS = 300  # more points than a figure has pixels would only make its file large
SIZE = (4.8, 3.0)  # inches


@styled
def plot_epochs(runs: Mapping[str, Records], quantity: str, axes: Any = None) -> Any:
    """A matplotlib figure of `quantity` ("loss" or "accuracy") by epoch.

    `runs` has the epochs' records of each run, as in `metrics.jsonl`, by the run's name. One run is
    drawn with test and training in two colours, several with a colour each, training dashed. With
    `axes` it is drawn there.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes = _new_axes() if axes is None else axes
    for number, (name, records) in enumerate(runs.items()):
        numbers = [record["epoch"] for record in records]
        for split, word in (("val", "test"), ("train", "training")):
            training, alone = split == "train", len(runs) == 1
            axes.plot(
                numbers,
                [record[f"{split}_{quantity}"] for record in records],
                color=COLOURS[training if alone else number],
                linestyle="--" if training and not alone else "-",
                linewidth=1 if training and not alone else 1.6,
                marker="o" if len(numbers) <= 30 else None,
                markersize=2 if training and not alone else 3.5,
                label=word if alone else None if training else name,
            )
    if len(runs) > 1:
        axes.plot([], [], "--", color=INK, linewidth=1, label="training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.set_ylim(bottom=0)
    _legend(axes)
    return axes.figure


@styled
def plot_steps(runs: Mapping[str, Records], axes: Any = None) -> Any:
    """A matplotlib figure of the training loss by step: faint as logged, bold a moving mean.

    `runs` has the steps' records of each run by the run's name. The mean is over a fiftieth of the
    steps, as many before as after.
    """
    axes = _new_axes() if axes is None else axes
    highest = 0.0
    for number, (name, records) in enumerate(runs.items()):
        if not records:
            continue
        steps, losses = _column(records, "step"), _column(records, "loss")
        colour = COLOURS[number]
        axes.plot(*envelope(steps, losses), color=colour, alpha=0.3, linewidth=0.6)
        mean = moving_mean(losses, max(1, len(losses) // 50))
        axes.plot(*envelope(steps, mean), color=colour, linewidth=1.6, label=name)
        highest = max(highest, float(np.quantile(losses, 0.995)))
    axes.set_ylim(0, 1.05 * highest or 1)  # a few large losses shall not flatten all others
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    if len(runs) > 1:
        _legend(axes)
    return axes.figure


@styled
def plot_learning_rate(runs: Mapping[str, Records], axes: Any = None) -> Any:
    """A matplotlib figure of the learning rate by step.

    The axis is logarithmic where the rates are staircases, which go down by factors.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes = _new_axes() if axes is None else axes
    stairs = []
    for number, (name, records) in enumerate(runs.items()):
        if not records:
            continue
        steps, rates = _column(records, "step"), _column(records, "lr")
        stairs.append(1 < len(np.unique(rates)) < len(rates) / 10)
        axes.plot(*envelope(steps, rates), color=COLOURS[number], linewidth=1.6, label=name)
    if stairs and all(stairs):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, position: f"{rate:g}"))
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    if len(runs) > 1:
        _legend(axes)
    return axes.figure


@styled
def save_curves(path: Path, title: str, epochs: Records) -> None:
    """Draw loss and accuracy of one run's epochs side by side as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))
    figure.suptitle(title, fontsize="medium")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        plot_epochs({title: epochs}, quantity, axes)
    best = max(epochs, key=lambda record: record["val_accuracy"])
    figure.axes[1].plot(
        best["epoch"],
        best["val_accuracy"],
        "*",
        color=COLOURS[0],
        markersize=13,
        label=f"best test accuracy: {best['val_accuracy']:.1%}",
    )
    _legend(figure.axes[1])
    figure.savefig(path, format="png", dpi=120)


def envelope(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve y(x) with at most two points for each of 300 parts: its lowest and its highest.

    >>> x, y = envelope(np.arange(6000), np.arange(6000) % 7)
    >>> len(x), sorted(set(y.tolist()))
    (600, [0, 6])
    """
    if len(x) <= 2 * BINS:
        return x, y
    picked = set()
    for part in np.array_split(np.arange(len(y)), BINS):
        picked |= {part[y[part].argmin()], part[y[part].argmax()]}
    indices = np.array(sorted(picked))
    return x[indices], y[indices]


def moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each value and its neighbours, `width` in all, of fewer near the ends.

    >>> moving_mean(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist()
    [1.5, 3.0, 3.0, 3.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    numbers = np.arange(len(values))
    first = np.maximum(numbers - width // 2, 0)
    end = np.minimum(numbers + (width + 1) // 2, len(values))
    return (sums[end] - sums[first]) / (end - first)


def _column(records: Records, name: str) -> np.ndarray:
    return np.array([record[name] for record in records], dtype=np.float64)


def _new_axes() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=SIZE).subplots()


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
