"""Plain networks get worse with depth, on the images they learn from; residual ones do not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .experiment import Experiment, Outcome
from .figures import BLUE, ORANGE, End, name_ends, new_figure, style
from .lab import Lab, Part, Result, Scale
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {20: BLUE, 56: ORANGE}
FAMILIES = {"plain": "plain networks", "resnet": "residual networks"}
COLUMNS = (
    Column("network", "network"),
    Column("params", "parameters", ","),
    Column("macs", "MACs", ","),
    Column("train_error", "training error", ".1%"),
    Column("train_loss", "training loss", ".3f"),
    Column("val_error", "test error", ".1%"),
    Column("seconds", "seconds", ".0f"),
)


def run(lab: Lab) -> Outcome:
    """Train the four networks alike."""
    parts = [
        Part(f"{family}{layers}", partial(lab.create, f"{family}{layers}_cifar", **lab.model))
        for family in FAMILIES
        for layers in COLOURS
    ]
    results = lab.train(parts)
    rows = [
        {
            "network": name,
            "params": result.params,
            "macs": result.macs,
            "train_error": result.error("train"),
            "train_loss": result.last("train_loss"),
            "val_error": result.error("val"),
            "seconds": result.seconds,
        }
        for name, result in results.items()
    ]
    return Outcome(Table(COLUMNS, rows), draw(results), NOTE)


def draw(results: dict[str, Result]) -> Figure:
    """Training and test error by epoch: plain networks to the left, residual ones to the right."""
    figure = new_figure(9, 4, "Error by epoch: bold on training images, thin on test images")
    both = figure.subplots(1, 2, sharey=True)
    ends: dict[Any, list[End]] = {axes: [] for axes in both}
    for axes, (family, title) in zip(both, FAMILIES.items(), strict=True):
        for layers, colour in COLOURS.items():
            for split, width in (("train", 2.4), ("val", 0.9)):
                epochs, accuracies = results[f"{family}{layers}"].curve(f"{split}_accuracy")
                errors = [1 - accuracy for accuracy in accuracies]
                axes.plot(epochs, errors, color=colour, linewidth=width)
                if split == "train":
                    ends[axes].append((epochs[-1], errors[-1], f"{layers} layers", colour))
        style(axes, "epoch", "error" if family == "plain" else "", percent=True, whole_x=True)
        axes.set_title(title, fontsize="medium")
        axes.set_ylim(bottom=0)
    name_ends(figure, ends)
    return figure


NOTE = (
    "Errors are those of the last epoch: over all batches of training for the training images, "
    "mirrored at random, and after it for the test images. A plain network is the residual one "
    "without its shortcuts: it has the same parameters."
)

EXPERIMENT = Experiment(
    name="degradation",
    summary="plain-20 and plain-56 against ResNet-20 and ResNet-56",
    source='He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, '
    "figure 6",
    quick=Scale(
        {
            "image_size": 28, "epochs": 16, "batch_size": 64, "optimizer": "sgd", "lr": 0.1,
            "momentum": 0.9, "weight_decay": 1e-4, "schedule": "multistep",
        },
        {"widths": (4, 8, 16)},
    ),
    full=Scale(
        {
            "epochs": 164, "batch_size": 128, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9,
            "weight_decay": 1e-4, "schedule": "multistep", "milestones": (82, 123), "warmup": 0,
            "augment": "flip,pad-crop:4",
        },
    ),
    full_data="cifar10:DIR",
    run=run,
)  # fmt: skip
