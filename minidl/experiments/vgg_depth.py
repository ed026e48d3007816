"""VGG's columns A to E: from 11 to 19 layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .experiment import Experiment, Outcome
from .figures import BLUE, GREEN, ORANGE, PURPLE, name_ends, new_figure, style
from .lab import Lab, Part, Result, Scale
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARCHS = {
    "A": "vgg11", "A-LRN": "vgg11_lrn", "B": "vgg13", "C": "vgg16_c", "D": "vgg16", "E": "vgg19",
}  # fmt: skip
DEPTHS = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}
COLOURS = {11: BLUE, 13: GREEN, 16: ORANGE, 19: PURPLE}
COLUMNS = (
    Column("column", "column"),
    Column("layers", "layers"),
    Column("params", "parameters", ","),
    Column("macs", "MACs", ","),
    Column("train_error", "training error", ".1%"),
    Column("val_error", "test error", ".1%"),
    Column("seconds", "seconds", ".0f"),
)


def run(lab: Lab) -> Outcome:
    """Train the six columns alike."""
    parts = {
        column: Part(arch, partial(lab.create, arch, **lab.model)) for column, arch in ARCHS.items()
    }
    trained = lab.train(list(parts.values()))
    results = {column: trained[part.name] for column, part in parts.items()}
    rows = [
        {
            "column": column,
            "layers": DEPTHS[column],
            "params": result.params,
            "macs": result.macs,
            "train_error": result.error("train"),
            "val_error": result.error("val"),
            "seconds": result.seconds,
        }
        for column, result in results.items()
    ]
    return Outcome(Table(COLUMNS, rows), draw(results), NOTE)


def draw(results: dict[str, Result]) -> Figure:
    """Errors by column to the left, training loss by epoch to the right."""
    figure = new_figure(9, 4, "VGG's columns: errors after the last epoch, and training loss")
    left, right = figure.subplots(1, 2)
    finished = [column for column in ARCHS if not results[column].diverged]
    for split, name, colour in (("val", "test", ORANGE), ("train", "training", BLUE)):
        errors = [1 - results[column].epochs[-1][f"{split}_accuracy"] for column in finished]
        left.plot(finished, errors, color=colour, marker="o", ms=5, label=name)
    style(left, "column of VGG's table 1", "error", percent=True)
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    ends = []
    for column, arch in ARCHS.items():
        epochs, losses = results[column].curve("train_loss")
        colour, dashes = COLOURS[DEPTHS[column]], "--" if arch in ("vgg11_lrn", "vgg16_c") else "-"
        right.plot(epochs, losses, color=colour, linestyle=dashes)
        if losses:
            ends.append((epochs[-1], losses[-1], f"{column} ({DEPTHS[column]})", colour))
    style(right, "epoch", "training loss", whole_x=True)
    right.set_ylim(bottom=0)
    name_ends(figure, {right: ends})
    return figure


NOTE = (
    "A to E have 11 to 19 layers with weights; A-LRN is A with local response normalisation, C is "
    "D with 1x1 windows in three layers. All start from He's initialiser; the paper trained A "
    "first and began the deeper ones with its weights."
)

EXPERIMENT = Experiment(
    name="vgg-depth",
    summary="VGG A to E: 11, 13, 16 and 19 layers",
    source='Simonyan, Zisserman, "Very Deep Convolutional Networks", ICLR 2015, tables 1 and 3',
    quick=Scale(
        {"epochs": 8, "batch_size": 64, "optimizer": "adam", "lr": 1e-3, "schedule": "cosine"},
        {"width": 0.125},
    ),
    full=Scale(
        {
            "epochs": 74, "batch_size": 256, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9,
            "weight_decay": 5e-4, "schedule": "plateau",
        },
    ),
    full_data="folder:DIR",
    run=run,
)  # fmt: skip
