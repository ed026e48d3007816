"""A window of k pixels slides along n pixels in steps of s (the stride). On
either side p zeros are added first (the padding). With dilation d, the
window's k pixels are d apart, so it covers d (k - 1) + 1 pixels.

    p zeros     n pixels          p zeros
    0 0 | . . . . . . . . . . . | 0 0
    [k k k]
      ->  [k k k]           in steps of s

How many positions are there at which it fits? The first one takes
d (k - 1) + 1 pixels; whatever is left, divided by s, gives further ones. An
incomplete step gives none.

Worked examples, from the lectures' questions:
    7 pixels, window 3, stride 1                5 positions
    7 pixels, window 3, stride 2                3 positions
    AlexNet's first layer: 227, window 11, stride 4     (227 - 11) / 4 + 1 = 55
    its first pooling: 55, window 3, stride 2           (55 - 3) / 2 + 1 = 27

One lecture gives that first layer an image of 224 pixels and no padding, and
55 positions all the same. Check it when you are done.
"""

import numpy as np

from ..format import CHAPTERS, Exercise, Mistake


def conv_out_size(n, k, s=1, p=0, d=1):
    """Number of positions of a window.

    n: pixels, k: window, s: stride, p: padding on either side, d: dilation;
    integers. The window fits at least once.

    Returns an integer.

    >>> conv_out_size(227, 11, s=4), conv_out_size(55, 3, s=2)
    (55, 27)
    """
    covered = d * (k - 1) + 1
    return (n + 2 * p - covered) // s + 1


PUBLISHED = [(7, 3, 1, 0, 1), (7, 3, 2, 0, 1), (227, 11, 4, 0, 1), (55, 3, 2, 0, 1)]


def _make(rng, strides=(1,), paddings=(0,), dilations=(1,), published=False):
    if published:
        return {"sizes": PUBLISHED}
    sizes = []
    for k in (1, 2, 3, 5):
        for s in strides:
            for p in paddings:
                for d in dilations:
                    n = d * (k - 1) + 1 + int(rng.integers(0, 9))
                    sizes += [(n, k, s, p, d), (n + 1, k, s, p, d)]
    return {"sizes": sizes}


def _call(function, args):
    return np.array([function(*size) for size in args["sizes"]])


def _expected(sizes):
    """Counted, position by position."""
    counts = []
    for n, k, s, p, d in sizes:
        starts = range(0, n + 2 * p, s)
        counts.append(sum(start + d * (k - 1) < n + 2 * p for start in starts))
    return np.array(counts)


EXERCISE = Exercise(
    number=7,
    title="the size of a convolution's output",
    chapter=CHAPTERS[1],
    solution=conv_out_size,
    make=_make,
    cases={
        "stride 1": {},
        "the lectures' questions": {"published": True},
        "strides that do not divide": {"strides": (2, 3, 4)},
        "padding": {"strides": (1, 2, 3), "paddings": (1, 2)},
        "dilation": {"strides": (1, 2), "paddings": (0, 1), "dilations": (2, 3)},
    },
    call=_call,
    expected=_expected,
    outputs=("size",),
    hints=(
        "How many pixels does the window cover, how many are there with padding, and how many "
        "whole steps fit into the difference?",
        "covered = d * (k - 1) + 1; available = n + 2 * p; then whole steps, and the position "
        "at the start.",
        "(n + 2 * p - covered) // s + 1.",
    ),
    mistakes=(
        Mistake(
            "ceil",
            "an incomplete step is counted: the division is rounded up, not down",
            "Where the window would reach beyond the end there is no position. (Some poolings "
            "round up on purpose: ceil_mode.)",
            edits=(
                (
                    "(n + 2 * p - covered) // s + 1",
                    "-(-(n + 2 * p - covered) // s) + 1",
                ),
            ),
        ),
        Mistake(
            "start",
            "one position is missing: the one at the start",
            "The quotient counts steps; before the first step there is a position already.",
            edits=((") // s + 1", ") // s"),),
        ),
        Mistake(
            "padding-once",
            "the padding is counted on one side only",
            "p zeros are added on either side: n + 2 p pixels in all.",
            edits=(("2 * p", "p"),),
        ),
        Mistake(
            "dilation-ignored",
            "the dilation is ignored",
            "The window covers d (k - 1) + 1 pixels, not k.",
            edits=(("d * (k - 1) + 1", "k"),),
        ),
        Mistake(
            "dilation-times-window",
            "a dilated window is taken to cover d k pixels",
            "Between k pixels there are k - 1 gaps: it covers d (k - 1) + 1.",
            edits=(("d * (k - 1) + 1", "d * k"),),
        ),
        Mistake(
            "fraction",
            "the result is no integer: / divides where // is needed",
            "A number of positions is a whole number; // also drops the incomplete step.",
            edits=((") // s + 1", ") / s + 1"),),
        ),
        Mistake(
            "inner-plus-one",
            "the 1 is added before the division, where it belongs behind it",
            "n - k + 1 counts positions at stride 1 only; with larger strides count the steps "
            "first.",
            edits=(("(n + 2 * p - covered) // s + 1", "(n + 2 * p - covered + 1) // s"),),
        ),
    ),
    payoff="(224 - 11) // 4 + 1 = 54: the lecture's 55 needs padding, or 227 pixels.",
)
