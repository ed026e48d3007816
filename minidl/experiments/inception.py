"""Inception modules: 1x1 convolutions before the large windows save most of the work."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import functional as F
from .. import random
from ..counting import summary
from ..models import create
from ..models.googlenet import ConvReLU, Inception
from ..nn import (
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from ..tensor import Tensor, as_tensor, from_numpy
from .experiment import Experiment, Outcome
from .figures import BLUE, ORANGE, Bars, draw_bars, new_figure
from .lab import Lab, Part, Scale
from .stacks import SEEDS, errors
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"naive": "figure 2a", "reduced": "figure 2b"}
COLOURS = {"naive": ORANGE, "reduced": BLUE}
# The lectures' module on 28x28x256: maps of the 1x1 convolution, then reduced and full maps of the
# 3x3 one and of the 5x5 one, then of the projection behind the pooling.
WIDTHS = (128, 64, 192, 64, 96, 64)
TIMED_STEPS = 5
BATCH = 4
COLUMNS = (
    Column("kind", "module"),
    Column("module_params", "weights", ","),
    Column("module_macs", "MACs", ","),
    Column("module_maps", "feature maps out", ","),
    Column("module_ms", "ms an image", ".1f"),
    Column("params", "network's parameters", ","),
    Column("macs", "MACs", ","),
    Column("train_error", "training error", ".1%"),
    Column("val_error", "test error", ".1%"),
    Column("lowest", "lowest", ".1%"),
    Column("highest", "highest", ".1%"),
)


class NaiveInception(Module):
    """Figure 2a: windows of 1, 3 and 5 and a pooling, all on x itself.

    x (N, in_channels, H, W) -> (N, out_channels, H, W); the pooling hands on all feature maps, so
    that there are more behind each module.

    >>> import minidl as md
    >>> NaiveInception(256, (128, 64, 192, 64, 96, 64))(md.zeros(1, 256, 7, 7)).shape
    (1, 672, 7, 7)
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, _, three, _, five, _ = widths
        self.out_channels = one + three + five + in_channels
        self.branch1 = ConvReLU(in_channels, one, 1)
        self.branch2 = ConvReLU(in_channels, three, 3)
        self.branch3 = ConvReLU(in_channels, five, 5)
        self.branch4 = MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return F.concat([branch(x) for branch in self.children()], dim=1)


def make_network(lab: Lab, kind: str) -> Sequential:
    """A first convolution, and two modules; the image is halved before each.

    x (N, C, H, W) -> logits (N, num_classes).
    """
    module = NaiveInception if kind == "naive" else Inception
    factor, first = lab.model["factor"], 256 // lab.model["factor"]
    widths = tuple(maps // factor for maps in WIDTHS)
    one = module(first, widths)
    two = module(one.out_channels, widths)
    return Sequential(
        Conv2d(lab.input_shape[0], first, 3, padding=1),
        ReLU(),
        MaxPool2d(2),
        one,
        MaxPool2d(2),
        two,
        GlobalAvgPool2d(),
        Flatten(),
        Linear(two.out_channels, lab.num_classes),
    )


def step_time(network: Module, shape: tuple[int, ...], device: str) -> float:
    """Seconds that `network` takes, forwards and backwards, for an image of this shape (C, H, W).

    The median of a few steps with random images, after one to warm up.
    """
    network = network.to(device=device)
    images = np.random.default_rng(0).standard_normal((BATCH, *shape)).astype(np.float32)
    x = from_numpy(images).to(device=device)
    x.requires_grad = True
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        begun = time.perf_counter()
        network(x).sum().backward()
        float(as_tensor(x.grad).sum())  # waits for a GPU
        seconds.append((time.perf_counter() - begun) / BATCH)
    return median(seconds[1:])


def run(lab: Lab) -> Outcome:
    """Count and time both modules by themselves, then train networks of them."""
    seeds = range(lab.settings.seed, lab.settings.seed + SEEDS)
    parts = {
        (kind, seed): Part(f"{kind}-seed{seed}", partial(make_network, lab, kind), {"seed": seed})
        for kind in KINDS
        for seed in seeds
    }
    results = lab.train(list(parts.values()))
    rows = []
    for kind, figure in KINDS.items():
        random.manual_seed(lab.settings.seed)
        module = create(f"inception_{kind}")
        counted = summary(module)
        own = [results[parts[kind, seed].name] for seed in seeds]
        rows.append(
            {
                "kind": f"{kind} ({figure})",
                "module_params": counted.params,
                "module_macs": counted.macs,
                "module_maps": counted.modules[-1].shape[0],
                "module_ms": 1000 * step_time(module, counted.input_shape, lab.settings.device),
                "params": own[0].params,
                "macs": own[0].macs,
            }
            | errors(own)
        )
    return Outcome(Table(COLUMNS, rows), draw(rows), NOTE)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """What a module costs, and the test error of the networks: two bars each."""
    figure = new_figure(11, 2.2, "Inception modules on 28x28x256, and the error of small networks")
    panels = (
        Bars("weights", "module_params", ","),
        Bars("MACs", "module_macs", ","),
        Bars("ms an image, both ways", "module_ms", ".1f"),
        Bars(f"test error, {SEEDS} seeds", "val_error", ".1%", ("lowest", "highest")),
    )
    for axes, bars in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        draw_bars(axes, bars, list(KINDS), rows, list(COLOURS.values()))
    return figure


NOTE = (
    "The module's numbers are those of the lectures' example, 28x28x256 with windows of 1, 3 and 5 "
    "making 128, 192 and 96 feature maps; without biases. The networks have two modules of "
    f"narrower ones. Errors are means over {SEEDS} seeds, with the lowest and highest test error "
    "behind them."
)

EXPERIMENT = Experiment(
    name="inception",
    summary="Inception modules, naive and reduced: weights, MACs, time, error",
    source='Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, figure 2',
    quick=Scale(
        {
            "image_size": 28, "epochs": 5, "batch_size": 64, "optimizer": "adam", "lr": 2e-3,
            "schedule": "cosine",
        },
        {"factor": 8},
    ),
    full=Scale(
        {
            "epochs": 40, "batch_size": 128, "optimizer": "adam", "lr": 1e-3,
            "schedule": "cosine",
        },
        {"factor": 2},
    ),
    full_data="cifar10:DIR",
    run=run,
)  # fmt: skip
