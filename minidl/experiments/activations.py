"""Which initialiser keeps the signal alive depends on the activation function.

A fully connected network with ten hidden layers is looked at before training (what of the images
is left behind each layer?) and trained. The initialisers are those of `md.nn.init`: the variance
that a weight is drawn with decides by how much each layer changes that of the signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..autograd import no_grad
from ..nn import Flatten, Linear, Module, ReLU, Sequential, Sigmoid, Tanh, init
from ..tensor import Tensor, from_numpy
from .experiment import Experiment, Outcome
from .figures import BLUE, GREEN, GREY, ORANGE, End, name_ends, new_figure, style
from .lab import Lab, Part, Result, Scale
from .tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACTIVATIONS: dict[str, type[Module]] = {"sigmoid": Sigmoid, "tanh": Tanh, "relu": ReLU}
INITIALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "narrow": partial(init.normal_, std=0.01),
    "torch": init.torch_legacy_uniform_,
    "glorot": init.glorot_normal_,
    "he": init.he_normal_,
}
FORMULAS = {
    "narrow": "std 0.01",
    "torch": "old Torch 1/(3n)",
    "glorot": "Glorot 1/n",
    "he": "He 2/n",
}
COLOURS = {"narrow": GREY, "torch": ORANGE, "glorot": BLUE, "he": GREEN}
HIDDEN_LAYERS = 10
IMAGES = 500  # to measure variances with
FLOOR = 1e-20  # the smallest variance that is drawn

COLUMNS = (
    Column("activation", "activation"),
    Column("initialiser", "variance of the weights"),
    Column("first", "variance behind layer 1", ".1e"),
    Column("last", f"behind layer {HIDDEN_LAYERS}", ".1e"),
    Column("train_loss", "training loss", ".3f"),
    Column("train_error", "training error", ".1%"),
    Column("val_error", "test error", ".1%"),
)


def make_network(lab: Lab, activation: str, initialiser: str) -> Sequential:
    """Ten hidden layers of one width; the biases start at 0.

    x (N, C, H, W) -> logits (N, num_classes).
    """
    layers: list[Module] = [Flatten()]
    features, width = int(np.prod(lab.input_shape)), lab.model["width"]
    for _ in range(HIDDEN_LAYERS):
        layers += [Linear(features, width), ACTIVATIONS[activation]()]
        features = width
    layers.append(Linear(width, lab.num_classes))
    for layer in layers:
        if isinstance(layer, Linear):
            INITIALISERS[initialiser](layer.weight)
    return Sequential(*layers)


def variances(lab: Lab, network: Sequential) -> list[float]:
    """How much the units of each hidden layer vary from image to image: the mean over the units.

    What is the same for all images, like the 0.5 of a sigmoid that sees nothing, is no signal.
    """
    count = min(IMAGES, len(lab.splits.train))
    images, _ = lab.splits.train.batch(np.arange(count) * len(lab.splits.train) // count)
    x = from_numpy(images)  # (N, C, H, W)
    found = []
    with no_grad():
        for layer in network.eval():
            x = layer(x)  # (N, width) behind the first layer
            if isinstance(layer, tuple(ACTIVATIONS.values())):
                found.append(float(x.data.astype(np.float64).var(axis=0).mean()))
    return found


def run(lab: Lab) -> Outcome:
    """Measure and train every activation with every initialiser."""
    pairs = {f"{a}-{i}": (a, i) for a in ACTIVATIONS for i in INITIALISERS}
    before = {}
    for name, (activation, initialiser) in pairs.items():
        random.manual_seed(lab.settings.seed)
        before[name] = variances(lab, make_network(lab, activation, initialiser))
    results = lab.train(
        [Part(name, partial(make_network, lab, *pair)) for name, pair in pairs.items()]
    )
    rows = [
        {
            "activation": activation,
            "initialiser": FORMULAS[initialiser],
            "first": before[name][0],
            "last": before[name][-1],
            "train_loss": results[name].last("train_loss"),
            "train_error": results[name].error("train"),
            "val_error": results[name].error("val"),
        }
        for name, (activation, initialiser) in pairs.items()
    ]
    return Outcome(Table(COLUMNS, rows), draw(before, results, lab.num_classes), NOTE)


def draw(before: dict[str, list[float]], results: dict[str, Result], classes: int) -> Figure:
    """A column for each activation: variance by depth above, training loss below."""
    figure = new_figure(
        9.6, 5.8, "What each layer leaves of the images before training, and the training after it"
    )
    grid = figure.subplots(2, len(ACTIVATIONS), sharey="row")
    depths = range(1, HIDDEN_LAYERS + 1)
    ends: dict[Any, list[End]] = {axes: [] for axes in grid.flat}
    for column, activation in enumerate(ACTIVATIONS):
        above, below = grid[:, column]
        for initialiser, colour in COLOURS.items():
            name, label = f"{activation}-{initialiser}", FORMULAS[initialiser]
            shown = [max(variance, FLOOR) for variance in before[name]]
            above.semilogy(depths, shown, color=colour, marker="o", ms=3)
            ends[above].append((depths[-1], shown[-1], label, colour))
            epochs, losses = results[name].curve("train_loss")
            below.plot(epochs, losses, color=colour, marker="o", ms=3)
            if losses:
                ends[below].append((epochs[-1], losses[-1], label, colour))
        style(above, "layer", "" if column else "variance over the images", whole_x=True)
        style(below, "epoch", "" if column else "training loss", whole_x=True)
        above.set_title("ReLU" if activation == "relu" else activation, fontsize="medium")
        below.set_ylim(0, 1.2 * math.log(classes))
    name_ends(figure, ends)
    return figure


NOTE = (
    "n is the number of inputs of a unit. In a network as wide as its input Glorot's rule, "
    "2 / (n_in + n_out), is LeCun's, 1/n. The variance is that of a unit over the images, before "
    "training, and the mean over the units of a layer; below 1e-14 it is that of rounding."
)

EXPERIMENT = Experiment(
    name="activations",
    summary="sigmoid, tanh and ReLU, four initialisers: variance and training",
    source='Glorot, Bengio, AISTATS 2010; He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", '
    "ICCV 2015, section 2.2",
    quick=Scale(
        {
            "image_size": 28, "in_channels": 1, "epochs": 6, "batch_size": 64, "optimizer": "sgd",
            "lr": 0.02, "momentum": 0.9, "schedule": "cosine",
        },
        {"width": 256},
    ),
    full=Scale(
        {
            "epochs": 30, "batch_size": 128, "optimizer": "sgd", "lr": 0.02, "momentum": 0.9,
            "schedule": "cosine",
        },
        {"width": 1024},
    ),
    full_data="cifar10:DIR",
    run=run,
)  # fmt: skip
