"""Adding a bias of shape (4,) to a matrix of shape (3, 4) copies the bias into
each of the three rows. NumPy calls it broadcasting: axes that are missing
are added in front, axes of size 1 are stretched.

On the way back, each of those copies has a gradient of its own, and by the
chain rule they are added up:

    forward    y[i, j] = x[i, j] + b[j]
    backward   db[j]   = sum over i of dy[i, j]

So the gradient g of the large shape becomes one of the small shape by
summing over every axis that was added or stretched. An axis of size 1 that
was there before stays, with size 1.

Worked examples, with g of shape (2, 3) and all ones:
    shape (3,)     [2, 2, 2]           the axis of size 2 was added
    shape (2, 1)   [[3], [3]]          the axis of size 3 was stretched
    shape ()       6                   both were added
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients


def unbroadcast(g, shape):
    """The gradient of an array of this shape that was broadcast to g's.

    g: gradient of the broadcast array
    shape: tuple, the shape before; it can be broadcast to g.shape

    Returns an array of that shape.

    >>> unbroadcast(np.ones((2, 3)), (2, 1))
    array([[3.],
           [3.]])
    """
    added = g.ndim - len(shape)
    g = g.sum(axis=tuple(range(added)))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return g.sum(axis=stretched, keepdims=True)


def _make(rng, shape):
    """``shape`` is written with letters for sizes to draw and numbers; "|" marks added axes."""
    sizes = dict(zip("ABCD", distinct(rng, 4), strict=True))
    large = tuple(sizes[name] for name in "ABCD"[: len(shape.replace("|", ""))])
    start = shape.index("|") if "|" in shape else 0
    small = tuple(
        1 if mark == "1" else size
        for mark, size in zip(shape.replace("|", "")[start:], large[start:], strict=True)
    )
    return {"g": rng.standard_normal(large), "shape": small}


def _expected(g, shape):
    return gradients(lambda x: F.broadcast_to(x, g.shape), g, np.zeros(shape))[0]


def _pair(function, g, shape):
    def forward(x):
        return np.broadcast_to(x, g.shape)

    def unbroadcast(upstream, x):
        return function(upstream, shape)

    return (forward, unbroadcast), np.ones(shape)


EXERCISE = Exercise(
    number=3,
    title="undoing a broadcast",
    chapter=CHAPTERS[0],
    solution=unbroadcast,
    make=_make,
    cases={
        "nothing was broadcast": {"shape": "AB"},
        "a bias for rows: (B,) to (A, B)": {"shape": "A|B"},
        "a column: (A, 1) to (A, B)": {"shape": "A1"},
        "two axes added: (C,) to (A, B, C)": {"shape": "AB|C"},
        "a bias for channels: (1, B, 1, 1) to (A, B, C, D)": {"shape": "1B11"},
        "both at once: (B, 1, D) to (A, B, C, D)": {"shape": "A|B1D"},
        "a single number: () to (A, B)": {"shape": "AB|"},
    },
    expected=_expected,
    pair=_pair,
    outputs=("gradient",),
    hints=(
        "Which axes of g does the small shape not have, and which has it with size 1? Those "
        "two kinds are summed.",
        "Added axes stand in front: there are g.ndim - len(shape) of them. Sum them away "
        "first; then the axes of g and of shape correspond one to one.",
        "g = g.sum(axis=tuple(range(added))), then "
        "g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).",
    ),
    mistakes=(
        Mistake(
            "first-copy",
            "only the first entry of the added axes is kept, where all must be summed",
            "Each copy of the broadcast array has a gradient; the chain rule adds them.",
            edits=(("g = g.sum(axis=tuple(range(added)))", "g = g[(0,) * added]"),),
        ),
        Mistake(
            "first-of-stretched",
            "only the first entry of the stretched axes is kept, where all must be summed",
            "An axis of size 1 was copied along the whole axis of g; every copy counts.",
            edits=(
                (
                    "g.sum(axis=stretched, keepdims=True)",
                    "g[tuple(slice(1) if n == 1 else slice(None) for n in shape)]",
                ),
            ),
        ),
        Mistake(
            "mean",
            "the copies' gradients are averaged, where they must be added",
            "Each copy contributes in full: with a batch of ten images, a bias is used ten times.",
            edits=(
                ("g.sum(axis=tuple(range(added)))", "g.mean(axis=tuple(range(added)))"),
                ("g.sum(axis=stretched", "g.mean(axis=stretched"),
            ),
        ),
        Mistake(
            "kept-dimensions",
            "axes of size 1 are lost",
            "The result must have the shape before the broadcast, with its axes of size 1: "
            "sum those with keepdims=True.",
            edits=((", keepdims=True", ""),),
        ),
        Mistake(
            "stretched-axes",
            "axes that were stretched from size 1 are not summed",
            "Adding axes in front is one half of broadcasting; stretching axes of size 1 is the "
            "other.",
            edits=(("return g.sum(axis=stretched, keepdims=True)", "return g"),),
        ),
        Mistake(
            "added-axes",
            "axes that were added in front are not summed",
            "The batch is the usual case: a bias (C,) is added to (N, C), so its gradient is "
            "summed over N.",
            edits=(("    g = g.sum(axis=tuple(range(added)))\n", ""),),
        ),
    ),
    payoff="biases, batch-norm scales and residual sums all need this; you have it now.",
)
