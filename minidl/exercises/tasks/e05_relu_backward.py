"""The rectified linear unit lets positive numbers pass and stops the others:

    y = max(0, x)        dy/dx = 1 where x > 0, 0 where x < 0

so each element of the gradient is either handed on as it is or stopped. It is
the sign of x, the input of the forward pass, that decides; the gradient that
arrives may have any sign.

At x = 0 the function has a kink and no derivative. minidl takes 0 there, as
everybody does; this exercise does not ask.

A worked example: x = [-1, 2, 3], dy = [5, -6, 7] gives dx = [0, -6, 7].

Positive inputs hand their gradient on undiminished, through any number of
layers: that is why deep networks took to it. A unit that is negative for
every image gets no gradient, and stays so.
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients


def relu_backward(d, x):
    """Gradient of y = max(0, x).

    d: dL/dy, any shape
    x: the input of the forward pass, the same shape

    Returns dL/dx, the same shape.

    >>> relu_backward(np.array([5.0, -6.0, 7.0]), np.array([-1.0, 2.0, 3.0]))
    array([ 0., -6.,  7.])
    """
    return np.where(x > 0, d, 0.0)


def _make(rng, axes, d=None):
    shape = tuple(distinct(rng, axes))
    size = rng.uniform(0.5, 2.0, shape)  # away from the kink
    x = size * rng.permutation(np.resize([-1.0, 1.0], size.size)).reshape(shape)
    upstream = rng.standard_normal(shape)
    return {"d": np.abs(upstream) if d == "positive" else upstream, "x": x}


def _expected(d, x):
    return gradients(F.relu, d, x)[0]


def _pair(function, d, x):
    def forward(x):
        return np.maximum(x, 0), x

    def relu_backward(upstream, x):
        return function(upstream, x)

    return (forward, relu_backward), x


EXERCISE = Exercise(
    number=5,
    title="the rectified linear unit",
    chapter=CHAPTERS[0],
    solution=relu_backward,
    make=_make,
    cases={
        "a vector, positive gradients": {"axes": 1, "d": "positive"},
        "gradients of both signs": {"axes": 1},
        "a matrix": {"axes": 2},
        "images": {"axes": 4},
    },
    expected=_expected,
    pair=_pair,
    outputs=("dx",),
    hints=(
        "What does a small change of x[i] do to y[i] where x[i] is positive, and where it is "
        "negative?",
        "A mask from x, applied to d. The mask asks for the sign of x, nowhere for that of d.",
        "np.where(x > 0, d, 0.0), or d * (x > 0).",
    ),
    mistakes=(
        Mistake(
            "mask-on-d",
            "the mask is made from the gradient d, where it must be made from x",
            "Negative gradients pass as well as positive ones; which elements are stopped was "
            "decided in the forward pass, by the sign of x.",
            edits=(("x > 0", "d > 0"),),
        ),
        Mistake(
            "upstream-ignored",
            "the gradient that arrives is ignored: the result is the slope of the ReLU alone",
            "The chain rule multiplies: dL/dx = dL/dy * dy/dx.",
            edits=(("x > 0, d, 0.0", "x > 0, 1.0, 0.0"),),
        ),
        Mistake(
            "times-the-output",
            "the gradient is multiplied by the output of the ReLU, not by its slope",
            "The slope is 1 wherever x is positive, however large x is.",
            edits=(("x > 0, d, 0.0", "x > 0, d * x, 0.0"),),
        ),
        Mistake(
            "branches-swapped",
            "the two branches are swapped: gradients pass where x is negative",
            "y = x where x is positive. (A lecture among our sources prints the branches of the "
            "ELU swapped; it happens.)",
            edits=(("x > 0", "x < 0"),),
        ),
        Mistake(
            "not-masked",
            "nothing is stopped where x is negative",
            "There y is 0 whatever x is, so the slope is 0.",
            edits=(("np.where(x > 0, d, 0.0)", "d.copy()"),),
        ),
        Mistake(
            "d-changed",
            "the caller's d is changed",
            "Other paths of the graph may still need it. Return a new array.",
            edits=(("return np.where(x > 0, d, 0.0)", "d[x <= 0] = 0.0\n    return d"),),
        ),
    ),
    payoff="half of the operations of VGG16's backward pass are this one line.",
)
