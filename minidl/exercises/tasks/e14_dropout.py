"""Dropout switches units off at random while training, each with probability
p, so that no unit can rely on another. What is left is scaled up, so that a
sum over many units stays what it was on average:

    training     y = x * slope,  slope = 0 with probability p,
                                 slope = 1 / (1 - p) otherwise
    evaluation   y = x,          slope = 1

E[slope] = p * 0 + (1 - p) / (1 - p) = 1, so E[y] = x, and nothing needs to be
done in evaluation. The slope is also what the backward pass multiplies by,
dL/dx = dL/dy * slope: the same mask, with the same scale.

The original paper scaled in evaluation instead, by the probability of being
kept. (A lecture among our sources says: by the probability of being set to
zero. With p = 1/2 nobody notices.)

A worked example: p = 0.2 keeps 4 of 5 units and scales them by 1.25. With
draws [0.1, 0.5, 0.9], x = [1, 2, 3] becomes [0, 2.5, 3.75].

Draw the numbers as rng.random(x.shape), and drop where a number is below p:
then your mask can be compared.
"""

import numpy as np

from ..format import CHAPTERS, Exercise, Mistake, distinct


def dropout(x, p, rng, train):
    """Dropout, scaled in training.

    x: any shape
    p: probability of being dropped, 0 <= p < 1
    rng: a NumPy generator; one draw for each element, rng.random(x.shape)
    train: True or False

    Returns y and slope, both of x's shape.

    >>> y, slope = dropout(np.ones(4), 0.5, np.random.default_rng(1), True)
    >>> y, slope
    (array([2., 2., 0., 2.]), array([2., 2., 0., 2.]))
    """
    if not train:
        return x.copy(), np.ones(x.shape)
    keep = rng.random(x.shape) >= p
    slope = keep / (1 - p)
    return x * slope, slope


def _make(rng, axes, p, train=True):
    x = rng.standard_normal(tuple(distinct(rng, axes, 3, 7)))
    return {"x": x, "p": p, "rng": int(rng.integers(1 << 30)), "train": train}


def _call(function, args):
    rng = np.random.default_rng(args["rng"])
    return function(args["x"], args["p"], rng, args["train"])


def _expected(x, p, rng, train):
    draws = np.random.default_rng(rng).random(x.shape).ravel()
    slopes = [(0.0 if draw < p else 1.0 / (1.0 - p)) if train else 1.0 for draw in draws]
    slope = np.array(slopes).reshape(x.shape)
    return x * slope, slope


def _pair(function, x, p, rng, train):
    """Every call draws the same mask."""
    _, right = _expected(x, p, rng, train)

    def forward(x):
        return x * right

    def dropout(upstream, x):
        _, slope = function(x, p, np.random.default_rng(rng), train)
        return upstream * slope

    return (forward, dropout), x


EXERCISE = Exercise(
    number=14,
    title="dropout",
    chapter=CHAPTERS[2],
    solution=dropout,
    make=_make,
    cases={
        "evaluation": {"axes": 2, "p": 0.5, "train": False},
        "p = 0": {"axes": 1, "p": 0.0},
        "p = 1/2": {"axes": 2, "p": 0.5},
        "p = 0.2": {"axes": 2, "p": 0.2},
        "images, p = 0.7": {"axes": 4, "p": 0.7},
    },
    call=_call,
    expected=_expected,
    pair=_pair,
    outputs=("y", "slope"),
    hints=(
        "What factor does each element meet when it is dropped, when it is kept, and in "
        "evaluation?",
        "keep = rng.random(x.shape) >= p is True with probability 1 - p. slope follows from it, "
        "y follows from slope.",
        "slope = keep / (1 - p); return x * slope, slope. In evaluation x and ones.",
    ),
    mistakes=(
        Mistake(
            "keeps-with-p",
            "p is taken for the probability of being kept, where it is that of being dropped",
            "A number below p comes up with probability p: drop there. With p = 1/2 the "
            "difference hides.",
            edits=((">= p", "< p"), ("(1 - p)", "p if p else keep * 1.0")),
        ),
        Mistake(
            "scaled-by-p",
            "what is kept is scaled by 1/p, where it must be 1/(1 - p)",
            "1 - p of the units are left; to keep the sum, each counts 1/(1 - p).",
            edits=(("keep / (1 - p)", "keep / (p or 1)"),),
        ),
        Mistake(
            "wrong-side",
            "the wrong elements are dropped: those whose draw is above p",
            "A number below p comes up with probability p: drop there.",
            edits=((">= p", "< p"),),
        ),
        Mistake(
            "not-scaled",
            "what is kept is not scaled up",
            "With 1 - p of the units left, sums shrink by 1 - p in training and not in "
            "evaluation: the next layer sees two different worlds.",
            edits=(("keep / (1 - p)", "keep * 1.0"),),
        ),
        Mistake(
            "backward-not-scaled",
            "slope, which the backward pass multiplies by, lacks the scale 1/(1 - p)",
            "y = x * mask / (1 - p), so dy/dx = mask / (1 - p).",
            edits=(("return x * slope, slope", "return x * slope, keep * 1.0"),),
        ),
        Mistake(
            "active-in-evaluation",
            "units are dropped in evaluation too",
            "A prediction should not depend on chance: in evaluation y = x.",
            edits=(("if not train:", "if False:"),),
        ),
        Mistake(
            "scaled-twice",
            "the output is scaled in evaluation too",
            "Scale in training or in evaluation, not in both. Here it is in training.",
            edits=(("x.copy(), np.ones(x.shape)", "x * (1 - p), np.full(x.shape, 1 - p)"),),
        ),
        Mistake(
            "one-mask-for-all",
            "one mask serves the whole batch",
            "Each image shall lose units of its own: one draw for each element.",
            edits=(
                (
                    "rng.random(x.shape) >= p",
                    "np.broadcast_to(rng.random(x.shape[1:]), x.shape) >= p",
                ),
            ),
        ),
    ),
    payoff="AlexNet and VGG hold their 100 million linear weights in check with it.",
)
