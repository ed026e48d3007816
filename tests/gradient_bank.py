"""Layers with inputs at which every mistake of the bank shows, and Functions that make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidl as md
from minidl import functional as F
from minidl.gradcheck import Mistake, bank

CONV = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
STEEP = {"alpha": 0.9, "beta": 0.6, "k": 1.5}


@dataclass
class Layer:
    """A right function of Tensors, its inputs by seed, and mistakes in its gradient."""

    function: Callable[..., md.Tensor]
    arrays: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    mistakes: list[Mistake]

    def inputs(self, seed: int = 0) -> tuple[np.ndarray, ...]:
        return self.arrays(np.random.default_rng([seed, 17]))

    def mistaken(self, mistake: Mistake) -> Callable[..., md.Tensor]:
        """The function with the gradient of a mistake."""
        return lambda *inputs: Mistaken(self.function, mistake.backward).apply(*inputs)


class Mistaken(md.Function):
    """The forward pass of one function, the backward pass of another, both of arrays."""

    def __init__(self, function: Callable[..., Any], wrong: Callable[..., Any]) -> None:
        self.function, self.wrong = function, wrong

    def forward(self, *arrays):
        self.save(*arrays)
        return self.function(*(md.from_numpy(np.array(a)) for a in arrays)).data

    def backward(self, dy):
        found = self.wrong(dy.data, *(x.data for x in self.saved))
        found = found if isinstance(found, tuple) else (found,)
        gradients = [md.tensor(np.ascontiguousarray(g)) for g in found]
        return (*gradients, *[None] * (len(self.needs) - len(gradients)))


def normal(*shapes):
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def tied(*shape):
    """Few different numbers, most of them unique in their window."""

    def draw(rng):
        x = rng.standard_normal(shape)
        ties = rng.random(shape) < 0.08
        return (np.where(ties, 2.5, x),)

    return draw


def labelled(rng):
    return rng.standard_normal((5, 3)), rng.integers(0, 3, 5)


KEPT = np.random.default_rng(9).random((4, 5)) < 0.6

LAYERS = {
    "conv2d": Layer(
        lambda *t: F.conv2d(*t, **CONV),
        normal((2, 4, 5, 6), (4, 2, 3, 2), (4,)),
        bank.conv2d(**CONV),
    ),
    "conv2d with square kernel": Layer(
        lambda *t: F.conv2d(*t, padding=1),
        normal((2, 2, 5, 4), (2, 2, 3, 3), (2,)),
        bank.conv2d(padding=1),
    ),
    "max_pool2d": Layer(
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0)),
        tied(2, 3, 6, 5),
        bank.max_pool2d((3, 2), (2, 1), (1, 0)),
    ),
    "avg_pool2d": Layer(
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, count_include_pad=False),
        normal((2, 3, 6, 5)),
        bank.avg_pool2d((3, 2), 2, 1, count_include_pad=False),
    ),
    "adaptive_avg_pool2d": Layer(
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        normal((2, 2, 5, 7)),
        bank.adaptive_avg_pool2d((2, 3)),
    ),
    "batch_norm": Layer(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=0.1),
        normal((4, 3, 2, 3), (3,), (3,)),
        bank.batch_norm(0.1),
    ),
    "local_response_norm": Layer(
        lambda x: F.local_response_norm(x, 4, **STEEP),
        normal((2, 6, 3, 2)),
        bank.local_response_norm(4, **STEEP),
    ),
    "linear": Layer(F.linear, normal((4, 3), (3, 3), (3,)), bank.linear()),
    "relu": Layer(F.relu, normal((4, 6)), bank.relu()),
    "log_softmax": Layer(F.log_softmax, normal((4, 3)), bank.log_softmax()),
    "cross_entropy": Layer(F.cross_entropy, labelled, bank.cross_entropy()),
    "dropout": Layer(
        lambda x: x * md.from_numpy(KEPT / (1 - 0.3)), normal((4, 5)), bank.dropout(0.3, KEPT)
    ),
    "concat": Layer(lambda a, b: md.concat([a, b], 1), normal((3, 2, 2), (3, 3, 2)), bank.concat()),
    "residual": Layer(lambda x, w: md.tanh(x * w) + x, normal((3, 4), (3, 4)), bank.residual()),
    "mean": Layer(lambda x, y: x.mean(0) * y, normal((5, 3), (3,)), bank.mean()),
}
