"""An Inception module computes several things from the same input and puts
the results one behind the other, along the channels:

    y = concatenate([x1, x2, x3, x4], axis=1)

Nothing is computed, so nothing is computed on the way back: every part gets
the channels of the gradient that it gave to y, in the same order. What needs
care is where each part begins: behind all parts before it.

    part        1          2          3          4
    channels  0 .. 127, 128 .. 319, 320 .. 415, 416 .. 671

A worked example, GoogLeNet's naive module from the lectures: 28 x 28 places
and 128 + 192 + 96 + 256 channels make 28 x 28 x 672 numbers, 526,848 of them
(the lectures print 529k). The second part's gradient is d[:, 128:320].
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients


def concat_backward(d, sizes):
    """Gradients of the parts of a concatenation along axis 1.

    d: dL/dy, (N, C, H, W)
    sizes: list of the parts' numbers of channels; they add up to C

    Returns a list with one array for each part.

    >>> d = np.arange(6.0).reshape(1, 6, 1, 1)
    >>> [part.ravel() for part in concat_backward(d, [1, 2, 3])]
    [array([0.]), array([1., 2.]), array([3., 4., 5.])]
    """
    parts = []
    start = 0
    for size in sizes:
        parts.append(d[:, start : start + size].copy())
        start += size
    return parts


def _make(rng, letters):
    n, height, width = distinct(rng, 3, 2, 4)
    drawn = dict(zip("ABCD", distinct(rng, 4, 1, 6), strict=True))
    sizes = [drawn[letter] for letter in letters]
    return {"d": rng.standard_normal((n, sum(sizes), height, width)), "sizes": sizes}


def _call(function, args):
    parts = function(args["d"], args["sizes"])
    return tuple(parts) if isinstance(parts, list) else parts


def _expected(d, sizes):
    parts = [np.zeros((d.shape[0], size, *d.shape[2:])) for size in sizes]
    return gradients(lambda *parts: F.concat(parts, 1), d, *parts)


def _pair(function, d, sizes):
    def forward(part_1, part_2, part_3, part_4):
        return np.concatenate([part_1, part_2, part_3, part_4], axis=1)

    def concat_backward(upstream, *parts):
        return tuple(function(upstream, sizes))

    return (forward, concat_backward), tuple(np.split(d, np.cumsum(sizes)[:-1], axis=1))


EXERCISE = Exercise(
    number=19,
    title="concatenation",
    chapter=CHAPTERS[3],
    solution=concat_backward,
    make=_make,
    cases={
        "parts of one size": {"letters": "AAAA"},
        "one part different": {"letters": "AAAB"},
        "two sizes in turn": {"letters": "ABAB"},
        "four sizes": {"letters": "ABCD"},
    },
    call=_call,
    expected=_expected,
    pair=_pair,
    outputs=("part 1", "part 2", "part 3", "part 4"),
    hints=(
        "Which channels of y came from the second part, if the first has 128 and the second 192?",
        "Keep a running start: part by part, take sizes[i] channels from it and move it on.",
        "parts.append(d[:, start : start + size].copy()); start += size.",
    ),
    mistakes=(
        Mistake(
            "equal-parts",
            "the channels are cut into equal parts, whatever the sizes",
            "The parts have sizes of their own: np.split with a number of parts does not know "
            "them.",
            edits=(
                (
                    "    parts = []\n    start = 0\n",
                    "    return np.array_split(d, len(sizes), 1)\n",
                ),
                ("    for size in sizes:\n", ""),
                ("        parts.append(d[:, start : start + size].copy())\n", ""),
                ("        start += size\n", ""),
                ("    return parts", ""),
            ),
        ),
        Mistake(
            "start-of-the-last-size",
            "a part begins where one part ends, where it must be behind all parts before it",
            "Offsets add up: start += size, not start = size.",
            edits=(("start += size", "start = size"),),
        ),
        Mistake(
            "start-not-moved",
            "all parts begin at channel 0",
            "The first part's channels come first, the second begins behind them.",
            edits=(("        start += size\n", ""),),
        ),
        Mistake(
            "reversed",
            "the channels are handed out from the back",
            "The parts were put one behind the other in the order of the list.",
            edits=(
                ("    start = 0\n", "    start = d.shape[1]\n"),
                ("d[:, start : start + size]", "d[:, start - size : start]"),
                ("start += size", "start -= size"),
            ),
        ),
        Mistake(
            "off-by-one",
            "each part begins one channel too far behind",
            "The next part begins at start + size: slices end before their end.",
            edits=(("start += size", "start += size + 1"),),
        ),
        Mistake(
            "divided",
            "the gradient is divided by the number of parts",
            "Nothing is shared: each channel of y came from one part.",
            edits=((".copy()", " / len(sizes)"),),
        ),
    ),
    payoff="Inception and DenseNet are open to you: they are concatenations all through.",
)
