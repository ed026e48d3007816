"""The picture of a run: loss and accuracy by epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = {"train": "tab:blue", "val": "tab:orange"}


def plot_curves(path: Path, title: str, epochs: Sequence[dict[str, Any]]) -> None:
    """Draw the epochs' records as a PNG: mean cross-entropy to the left, accuracy to the right.

    Needs matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    numbers = [record["epoch"] for record in epochs]
    best = max(epochs, key=lambda record: record["val_accuracy"])
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    loss, accuracy = figure.subplots(1, 2)
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split, name in (("train", "training"), ("val", "test")):
            values = [record[f"{split}_{quantity}"] for record in epochs]
            marker = "o" if len(epochs) <= 30 else None
            axes.plot(numbers, values, color=COLOURS[split], marker=marker, ms=4, label=name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    loss.set_ylabel("cross-entropy")
    loss.set_ylim(bottom=0)
    loss.legend(frameon=False)
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.plot(
        best["epoch"],
        best["val_accuracy"],
        "*",
        color=COLOURS["val"],
        ms=13,
        label=f"best test accuracy: {best['val_accuracy']:.1%}",
    )
    accuracy.legend(frameon=False, loc="lower right")
    figure.savefig(path, format="png", dpi=120)
