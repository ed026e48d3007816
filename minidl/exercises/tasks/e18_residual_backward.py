"""A deep stack of layers is hard to train; ResNet lets each block learn only
what to add to its input:

    y = F(x) + x                   the same width on both sides
    y = F(x) + x @ proj.T          if the width changes

Here F is two linear layers (without bias) and a ReLU between them:

    h = x @ w1.T,   F(x) = relu(h) @ w2.T

Addition hands the gradient on to both of its terms undiminished. So it goes
two ways and is added up where they meet:

    dx = (what comes back through F)  +  (what comes back through the skip)

With the identity the second is d itself: dy/dx = dF/dx + 1. However small
the weights of F are, the gradient reaches the layers below.

A worked example with single numbers: x = 2, w1 = 3, w2 = 4, d = 1. h = 6, so
through F come 1 * 4 * 3 = 12, through the skip comes 1: dx = 13. dw2 = 6,
dw1 = 4 * 2 = 8.

Your linear_backward and relu_backward do most of it.
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients
from .e04_linear_backward import linear_backward
from .e05_relu_backward import relu_backward


def residual_backward(d, x, w1, w2, proj=None):
    """Gradients of y = relu(x @ w1.T) @ w2.T + skip.

    d: dL/dy, (N, M)
    x: (N, D), w1: (E, D), w2: (M, E)
    proj: (M, D) if the skip is x @ proj.T, or None if it is x itself

    Returns dx, dw1, dw2, dproj; dproj is None if proj is.

    >>> d = np.ones((1, 1))
    >>> residual_backward(d, 2 * d, 3 * d, 4 * d)[0]
    array([[13.]])
    """
    h = x @ w1.T
    dh, dw2, _ = linear_backward(d, np.maximum(h, 0), w2)
    dx, dw1, _ = linear_backward(relu_backward(dh, h), x, w1)
    if proj is None:
        return dx + d, dw1, dw2, None
    skip, dproj, _ = linear_backward(d, x, proj)
    return dx + skip, dw1, dw2, dproj


def _make(rng, samples=None, projection=False):
    n, width, hidden, out = distinct(rng, 4)
    n, out = samples or n, out if projection else width
    x, w1 = rng.standard_normal((n, width)), rng.standard_normal((hidden, width))
    return {
        "d": rng.standard_normal((n, out)),
        "x": x,
        "w1": w1,
        "w2": rng.standard_normal((out, hidden)),
        "proj": rng.standard_normal((out, width)) if projection else None,
    }


def _call(function, args):
    results = function(*args.values())
    if isinstance(results, tuple) and len(results) == 4 and args["proj"] is None:
        return (*results[:3], np.zeros(0) if results[3] is None else results[3])
    return results


def _block(x, w1, w2, proj=None):
    skip = x if proj is None else F.linear(x, proj)
    return F.linear(F.relu(F.linear(x, w1)), w2) + skip


def _expected(d, x, w1, w2, proj):
    if proj is None:
        return *gradients(_block, d, x, w1, w2), np.zeros(0)
    return gradients(_block, d, x, w1, w2, proj)


def _pair(function, d, x, w1, w2, proj):
    def forward(x, w1, w2, proj=None):
        return _block(*(Tensor(a) for a in (x, w1, w2, proj) if a is not None)).data

    def residual_backward(upstream, x, w1, w2, proj=None):
        dx, dw1, dw2, dproj = function(upstream, x, w1, w2, proj)
        return (dx, dw1, dw2) if proj is None else (dx, dw1, dw2, dproj)

    return (forward, residual_backward), (x, w1, w2) if proj is None else (x, w1, w2, proj)


EXERCISE = Exercise(
    number=18,
    title="a residual block",
    chapter=CHAPTERS[3],
    solution=residual_backward,
    uses=("linear_backward", "relu_backward"),
    make=_make,
    cases={
        "one sample, identity": {"samples": 1},
        "a batch, identity": {},
        "one sample, projection": {"samples": 1, "projection": True},
        "a batch, projection": {"projection": True},
    },
    call=_call,
    expected=_expected,
    pair=_pair,
    outputs=("dx", "dw1", "dw2", "dproj"),
    hints=(
        "Go backwards through each of the two ways from y to x on its own. Where do they meet, "
        "and what happens to the two gradients there?",
        "Through F: linear_backward with relu(h) and w2, relu_backward with h, linear_backward "
        "with x and w1. Through the skip: d itself, or linear_backward with x and proj.",
        "dh, dw2, _ = linear_backward(d, np.maximum(h, 0), w2); "
        "dx, dw1, _ = linear_backward(relu_backward(dh, h), x, w1); then dx + d, or dx plus "
        "what comes back through proj.",
    ),
    mistakes=(
        Mistake(
            "skip-dropped",
            "dx lacks what comes back through the skip",
            "x goes into y twice, through F and past it; both gradients reach it. The one past "
            "F is the reason why ResNets train.",
            edits=(("return dx + d,", "return dx,"), ("return dx + skip,", "return dx,")),
        ),
        Mistake(
            "branch-dropped",
            "dx lacks what comes back through F",
            "x goes into y twice, through F and past it; both gradients reach it.",
            edits=(("return dx + d,", "return d.copy(),"), ("return dx + skip,", "return skip,")),
        ),
        Mistake(
            "multiplied",
            "the two gradients of x are multiplied, where they must be added",
            "The chain rule multiplies along a way and adds over the ways.",
            edits=(("dx + d,", "dx * d,"), ("dx + skip,", "dx * skip,")),
        ),
        Mistake(
            "halved",
            "the two gradients of x are averaged, where they must be added",
            "Addition hands the whole gradient on to each of its terms.",
            edits=(("dx + d,", "(dx + d) / 2,"), ("dx + skip,", "(dx + skip) / 2,")),
        ),
        Mistake(
            "relu-forgotten",
            "the ReLU's mask is missing on the way back through F",
            "Where h was negative, nothing went through, so nothing comes back.",
            edits=(("relu_backward(dh, h)", "dh"),),
        ),
        Mistake(
            "mask-from-the-gradient",
            "the ReLU's mask is made from the gradient, where it must be made from h",
            "It is the sign of h in the forward pass that decides.",
            edits=(("relu_backward(dh, h)", "relu_backward(dh, dh)"),),
        ),
        Mistake(
            "dw2-before-relu",
            "dw2 is taken with h, where it must be taken with relu(h)",
            "w2 multiplied what came out of the ReLU.",
            edits=(("np.maximum(h, 0)", "h"),),
        ),
    ),
    payoff="in dy/dx = dF/dx + 1 stands the reason why 152 layers, or 1001, can be trained.",
)
