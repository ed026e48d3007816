"""Small windows on top of each other see as much as a large one, for fewer weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..counting import receptive_field, summary
from ..nn import Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Module, ReLU, Sequential
from .experiment import Experiment, Outcome
from .figures import BLUE, ORANGE, Bars, draw_bars, new_figure
from .lab import Lab, Part, Result, Scale
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STACKS = {"5x5": (5,), "2 of 3x3": (3, 3), "7x7": (7,), "3 of 3x3": (3, 3, 3)}
SEEDS = 3
COLUMNS = (
    Column("stack", "stack"),
    Column("field", "receptive field"),
    Column("weights_of_c", "weights"),
    Column("weights", "at this width", ","),
    Column("macs", "MACs", ","),
    Column("train_error", "training error", ".1%"),
    Column("val_error", "test error", ".1%"),
    Column("lowest", "lowest", ".1%"),
    Column("highest", "highest", ".1%"),
)


def make_stack(windows: tuple[int, ...], width: int) -> Sequential:
    """Convolutions that keep size and width, a ReLU behind each: (N, C, H, W) -> the same.

    >>> import minidl as md
    >>> make_stack((3, 3), 8)(md.zeros(1, 8, 5, 5)).shape
    (1, 8, 5, 5)
    """
    layers: list[Module] = []
    for window in windows:
        layers += [Conv2d(width, width, window, padding=window // 2, bias=False), ReLU()]
    return Sequential(*layers)


def make_network(lab: Lab, windows: tuple[int, ...]) -> Sequential:
    """A first convolution, and two of the stacks, each at half the size of what was before.

    x (N, C, H, W) -> logits (N, num_classes).
    """
    width = lab.model["width"]
    return Sequential(
        Conv2d(lab.input_shape[0], width, 3, padding=1),
        ReLU(),
        MaxPool2d(2),
        make_stack(windows, width),
        MaxPool2d(2),
        make_stack(windows, width),
        GlobalAvgPool2d(),
        Flatten(),
        Linear(width, lab.num_classes),
    )


def run(lab: Lab) -> Outcome:
    """Count each stack, and train it from several seeds."""
    seeds = range(lab.settings.seed, lab.settings.seed + SEEDS)
    parts = {
        (name, seed): Part(
            f"{name.replace(' ', '-')}-seed{seed}",
            partial(make_network, lab, windows),
            {"seed": seed},
        )
        for name, windows in STACKS.items()
        for seed in seeds
    }
    results = lab.train(list(parts.values()))
    width, side = lab.model["width"], lab.input_shape[1] // 2
    rows = []
    for name, windows in STACKS.items():
        counted = summary(make_stack(windows, width), (width, side, side))
        field = receptive_field(windows).size
        own = [results[parts[name, seed].name] for seed in seeds]
        rows.append(
            {
                "stack": name,
                "field": f"{field[0]}x{field[1]}",
                "weights_of_c": f"{sum(w * w for w in windows)} C²",
                "weights": counted.weights,
                "macs": counted.macs,
            }
            | errors(own)
        )
    return Outcome(Table(COLUMNS, rows), draw(rows), NOTE)


def errors(results: list[Result]) -> dict[str, float]:
    """Mean errors of several seeds, and the lowest and highest test error; nothing for diverged.

    >>> epoch = {"train_accuracy": 0.75, "val_accuracy": 0.5}
    >>> errors([Result(1, 1, 1, 1.0, [epoch])] * 2)
    {'train_error': 0.25, 'val_error': 0.5, 'lowest': 0.5, 'highest': 0.5}
    """
    train = [error for result in results if (error := result.error("train")) is not None]
    test = [error for result in results if (error := result.error("val")) is not None]
    if len(test) < len(results):
        return {}
    return {
        "train_error": sum(train) / len(train),
        "val_error": sum(test) / len(test),
        "lowest": min(test),
        "highest": max(test),
    }


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Weights, multiply-accumulates and test errors, a bar for each stack."""
    figure = new_figure(10, 2.9, "Stacks that see 5x5 and 7x7 pixels")
    names = [row["stack"] for row in rows]
    colours = [BLUE if " of " in name else ORANGE for name in names]
    panels = (
        Bars("weights of a stack", "weights", ","),
        Bars("MACs of a stack", "macs", ","),
        Bars(f"test error, {SEEDS} seeds", "val_error", ".1%", ("lowest", "highest")),
    )
    for axes, bars in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        draw_bars(axes, bars, names, rows, colours)
    return figure


NOTE = (
    f"Errors are means over {SEEDS} seeds, with the lowest and highest test error behind them: "
    "smaller differences mean nothing. C is the number of feature maps."
)

EXPERIMENT = Experiment(
    name="stacks",
    summary="stacks of 3x3 convolutions against 5x5 and 7x7",
    source='Simonyan, Zisserman, "Very Deep Convolutional Networks", ICLR 2015, section 2.3',
    quick=Scale(
        {
            "image_size": 28, "epochs": 5, "batch_size": 64, "optimizer": "adam", "lr": 2e-3,
            "schedule": "cosine",
        },
        {"width": 16},
    ),
    full=Scale(
        {
            "epochs": 40, "batch_size": 128, "optimizer": "adam", "lr": 1e-3,
            "schedule": "cosine",
        },
        {"width": 64},
    ),
    full_data="cifar10:DIR",
    run=run,
)  # fmt: skip
