"""Batch normalisation lets a network learn at rates at which it would otherwise fail."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from ..nn import BatchNorm2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, Module, ReLU, Sequential
from .experiment import Experiment, Outcome
from .figures import BLUE, GREEN, ORANGE, PURPLE, End, name_ends, new_figure, style
from .lab import Lab, Part, Result, Scale
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = {0.01: BLUE, 0.1: GREEN, 0.5: ORANGE, 2.0: PURPLE}
KINDS = {"without": "without batch normalisation", "with": "with batch normalisation"}
COLUMNS = (
    Column("kind", "batch normalisation"),
    Column("lr", "learning rate", "g"),
    Column("train_loss", "training loss", ".3f"),
    Column("train_error", "training error", ".1%"),
    Column("val_error", "test error", ".1%"),
    Column("end", "how it ended"),
)


def make_network(lab: Lab, batch_norm: bool) -> Sequential:
    """Pairs of 3x3 convolutions, halving the image between them; with or without normalisation.

    x (N, C, H, W) -> logits (N, num_classes).
    """
    layers: list[Module] = []
    channels = lab.input_shape[0]
    for stage, width in enumerate(lab.model["widths"]):
        for index in range(2):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(Conv2d(channels, width, 3, stride=stride, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(BatchNorm2d(width))
            layers.append(ReLU())
            channels = width
    return Sequential(*layers, GlobalAvgPool2d(), Flatten(), Linear(channels, lab.num_classes))


def run(lab: Lab) -> Outcome:
    """Train with and without, at every rate."""
    pairs = {f"{kind}-{rate:g}": (kind, rate) for kind in KINDS for rate in RATES}
    results = lab.train(
        [
            Part(name, partial(make_network, lab, kind == "with"), {"lr": rate})
            for name, (kind, rate) in pairs.items()
        ]
    )
    rows = [
        {
            "kind": kind,
            "lr": rate,
            "train_loss": results[name].last("train_loss"),
            "train_error": results[name].error("train"),
            "val_error": results[name].error("val"),
            "end": (results[name].diverged or "finished").partition(" (")[0],
        }
        for name, (kind, rate) in pairs.items()
    ]
    return Outcome(Table(COLUMNS, rows), draw(results, lab.num_classes), NOTE)


def draw(results: dict[str, Result], classes: int) -> Figure:
    """Training loss by epoch, without to the left, with to the right; a line for each rate."""
    figure = new_figure(9, 4, "Training loss by epoch, for several learning rates")
    both = figure.subplots(1, 2, sharey=True)
    ends: dict[Any, list[End]] = {axes: [] for axes in both}
    for axes, (kind, title) in zip(both, KINDS.items(), strict=True):
        for rate, colour in RATES.items():
            result = results[f"{kind}-{rate:g}"]
            epochs, losses = result.curve("train_loss")
            axes.plot(epochs, losses, color=colour, marker="o", ms=3)
            if losses:
                name = f"{rate:g}, then NaN" if result.diverged else f"{rate:g}"
                ends[axes].append((epochs[-1], losses[-1], name, colour))
        style(axes, "epoch", "training loss" if kind == "without" else "", whole_x=True)
        axes.set_title(title, fontsize="medium")
        axes.set_ylim(0, 1.2 * math.log(classes))
    name_ends(figure, ends)
    return figure


NOTE = (
    "The networks are alike but for the normalisation behind each convolution, which takes the "
    "place of the convolution's bias. A loss of ln 10 = 2.303 is that of guessing one of 10 "
    "classes."
)

EXPERIMENT = Experiment(
    name="batch-norm",
    summary="with and without batch normalisation, at several learning rates",
    source='Ioffe, Szegedy, "Batch Normalization", ICML 2015, section 4.2',
    quick=Scale(
        {
            "image_size": 28, "epochs": 5, "batch_size": 64, "optimizer": "sgd", "momentum": 0.9,
            "schedule": "cosine",
        },
        {"widths": (8, 16, 32)},
    ),
    full=Scale(
        {
            "epochs": 40, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9,
            "weight_decay": 5e-4, "schedule": "cosine",
        },
        {"widths": (64, 128, 256)},
    ),
    full_data="cifar10:DIR",
    run=run,
)  # fmt: skip
