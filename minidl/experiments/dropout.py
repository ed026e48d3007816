"""Dropout: a network that cannot rely on single units learns fewer images by heart."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..autograd import no_grad
from ..data import DataLoader
from ..functional import cross_entropy
from ..nn import Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential
from ..tensor import from_numpy
from ..training.progress import Tally
from .experiment import Experiment, Outcome
from .figures import BLUE, GREEN, ORANGE, PURPLE, name_ends, new_figure, style
from .lab import Lab, Part, Result, Scale
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBABILITIES = {0.0: ORANGE, 0.25: PURPLE, 0.5: BLUE, 0.75: GREEN}
COLUMNS = (
    Column("p", "dropout", "g"),
    Column("train_error", "training error", ".1%"),
    Column("val_error", "test error", ".1%"),
    Column("gap", "gap", ".1%"),
    Column("train_loss", "training loss", ".3f"),
    Column("val_loss", "test loss", ".3f"),
)


def make_network(lab: Lab, p: float) -> Sequential:
    """Two convolutions and two linear layers, each of these behind dropout.

    x (N, C, H, W) -> logits (N, num_classes).
    """
    maps, hidden = lab.model["maps"], lab.model["hidden"]
    channels, side, _ = lab.input_shape
    layers: list[Module] = []
    for width in (maps, 2 * maps):
        layers += [Conv2d(channels, width, 3, padding=1), ReLU(), MaxPool2d(2)]
        channels, side = width, side // 2
    return Sequential(
        *layers,
        Flatten(),
        Dropout(p),
        Linear(channels * side * side, hidden),
        ReLU(),
        Dropout(p),
        Linear(hidden, lab.num_classes),
    )


def on_training_images(lab: Lab, network: Module) -> dict[str, float]:
    """Error and loss on the training images as the trained network sees them: nothing dropped."""
    tally = Tally()
    settings = lab.settings
    with no_grad():
        for images, labels in DataLoader(
            lab.splits.train, settings.batch_size, limit=settings.limit
        ):
            logits = network(from_numpy(images).to(device=settings.device))
            loss = cross_entropy(logits, from_numpy(labels).to(device=settings.device))
            tally.add(float(loss), logits.cpu().numpy(), labels)
    return {"train_error": 1 - tally.accuracy, "train_loss": tally.loss}


def run(lab: Lab) -> Outcome:
    """Train with every probability."""
    parts = {
        p: Part(f"p{p:g}", partial(make_network, lab, p), measure=partial(on_training_images, lab))
        for p in PROBABILITIES
    }
    trained = lab.train(list(parts.values()))
    results = {p: trained[part.name] for p, part in parts.items()}
    rows = []
    for p, result in results.items():
        test = result.error("val")
        row = {"p": p, "val_error": test, "val_loss": result.last("val_loss"), **result.measured}
        if test is not None:
            row["gap"] = test - result.measured["train_error"]
        rows.append(row)
    return Outcome(Table(COLUMNS, rows), draw(results), NOTE)


def draw(results: dict[float, Result]) -> Figure:
    """Test loss by epoch to the left; training and test error at the end to the right."""
    figure = new_figure(9, 4, "Test loss by epoch, and the errors at the end, by dropout")
    left, right = figure.subplots(1, 2)
    ends = []
    for p, colour in PROBABILITIES.items():
        epochs, losses = results[p].curve("val_loss")
        left.plot(epochs, losses, color=colour)
        if losses:
            ends.append((epochs[-1], losses[-1], f"p = {p:g}", colour))
    style(left, "epoch", "test loss", whole_x=True)
    left.set_ylim(bottom=0)
    finished = [p for p in PROBABILITIES if not results[p].diverged]
    errors = {
        "test": [1 - results[p].epochs[-1]["val_accuracy"] for p in finished],
        "training": [results[p].measured["train_error"] for p in finished],
    }
    for (name, values), colour in zip(errors.items(), (ORANGE, BLUE), strict=True):
        right.plot(finished, values, color=colour, marker="o", ms=5, label=name)
    style(right, "dropout p", "error", percent=True)
    right.set_xticks(list(PROBABILITIES))
    right.set_ylim(bottom=0)
    name_ends(figure, {left: ends})
    right.legend(frameon=False)
    return figure


NOTE = (
    "Both errors are those of the network after the last epoch with nothing dropped, so that they "
    "can be compared; the gap is their difference."
)

EXPERIMENT = Experiment(
    name="dropout",
    summary="with and without dropout: the gap between training and test error",
    source="Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, JMLR 15, 2014",
    quick=Scale(
        {
            "image_size": 28, "limit": 1000, "epochs": 30, "batch_size": 50, "optimizer": "adam",
            "lr": 1e-3, "schedule": "constant",
        },
        {"maps": 16, "hidden": 256},
    ),
    full=Scale(
        {
            "epochs": 60, "batch_size": 100, "optimizer": "adam", "lr": 1e-3,
            "schedule": "constant",
        },
        {"maps": 64, "hidden": 1024},
    ),
    full_data="cifar10:DIR",
    run=run,
)  # fmt: skip
