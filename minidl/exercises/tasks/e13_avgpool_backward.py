"""Average pooling replaces each window by its mean. Each of the numbers in a
window has the same share in it, so each gets the same share of the gradient:

    y[n, c, i, j]   = sum of the window at (i, j) / divisor
    dx[n, c, u, v]  = sum over the windows that hold (u, v) of dy / divisor

Without padding the divisor is k * k. With padding there are two customs: to
count the zeros that were added (the divisor stays k * k), or to count only
the pixels of the image that lie in the window (fewer at the border). The
frameworks call the switch count_include_pad; here it is count_padding.

A worked example: a 2 x 2 image, window 2, stride 1, padding 1 has nine
windows. Counting the padding each gets dy / 4, and every pixel lies in four
windows: with dy all ones, dx is 1 everywhere. Not counting it, the corner
windows hold one pixel, the edges two, the centre four, and each pixel gets
1/1 + 1/2 + 1/2 + 1/4 = 2.25.
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients
from .e07_conv_out_size import conv_out_size


def avgpool_backward(d, cache):
    """Gradient of average pooling.

    d: dL/dy, (N, C, P, Q)
    cache: the tuple (shape, k, s, p, count_padding): shape of x (N, C, H, W),
        window k x k, stride s, padding p, and the custom, True or False

    Returns dx, of that shape.

    >>> d = np.ones((1, 1, 3, 3))
    >>> avgpool_backward(d, ((1, 1, 2, 2), 2, 1, 1, False))
    array([[[[2.25, 2.25],
             [2.25, 2.25]]]])
    """
    shape, k, s, p, count_padding = cache
    n, c, height, width = shape
    inside = np.pad(np.ones((height, width)), p)  # 1 for pixels, 0 for padding
    dx = np.zeros((n, c, height + 2 * p, width + 2 * p))
    for i in range(d.shape[2]):
        for j in range(d.shape[3]):
            rows = slice(i * s, i * s + k)
            columns = slice(j * s, j * s + k)
            divisor = k * k if count_padding else inside[rows, columns].sum()
            share = d[:, :, i, j] / divisor
            dx[:, :, rows, columns] += share[:, :, None, None]
    return dx[:, :, p : p + height, p : p + width]


def _make(rng, k, s, p=0, count_padding=True, samples=None, channels=None):
    n, c = distinct(rng, 2, 2, 4)
    n, c = samples or n, channels or c
    height, width = k + s * int(rng.integers(2, 4)), k + s * 4 + (s > 1)
    rows, columns = conv_out_size(height, k, s, p), conv_out_size(width, k, s, p)
    d = rng.standard_normal((n, c, rows, columns))
    return {"d": d, "cache": ((n, c, height, width), k, s, p, count_padding)}


def _expected(d, cache):
    shape, k, s, p, count_padding = cache
    return gradients(
        lambda x: F.avg_pool2d(x, k, s, p, count_include_pad=count_padding), d, np.zeros(shape)
    )[0]


def _pair(function, d, cache):
    shape, k, s, p, count_padding = cache

    def forward(x):
        y = F.avg_pool2d(Tensor(x), k, s, p, count_include_pad=count_padding)
        return y.data, cache

    def avgpool_backward(upstream, cache):
        return function(upstream, cache)

    return (forward, avgpool_backward), np.random.default_rng(0).standard_normal(shape)


EXERCISE = Exercise(
    number=13,
    title="average pooling, backward",
    chapter=CHAPTERS[2],
    solution=avgpool_backward,
    make=_make,
    cases={
        "one plane, windows side by side": {"k": 2, "s": 2, "samples": 1, "channels": 1},
        "a batch of several channels": {"k": 2, "s": 2},
        "overlapping windows, 3 at stride 2": {"k": 3, "s": 2},
        "padding 1, counted": {"k": 3, "s": 2, "p": 1},
        "padding 1, not counted": {"k": 3, "s": 2, "p": 1, "count_padding": False},
        "window 4, stride 1, padding 2, not counted": {
            "k": 4,
            "s": 1,
            "p": 2,
            "count_padding": False,
        },
    },
    expected=_expected,
    pair=_pair,
    outputs=("dx",),
    hints=(
        "Every window hands d[:, :, i, j] out in equal shares. How many numbers does it hold?",
        "Work on a padded array of zeros and cut the padding off at the end. For the custom "
        "that does not count padding, an array with 1 for pixels and 0 for padding tells how "
        "many pixels a window holds: sum it.",
        "dx[:, :, i*s : i*s + k, j*s : j*s + k] += (d[:, :, i, j] / divisor)[:, :, None, None].",
    ),
    mistakes=(
        Mistake(
            "not-divided",
            "the gradient is not divided: each number of a window gets all of it",
            "The mean divides by the number of elements, so each of them has that small a share.",
            edits=(("d[:, :, i, j] / divisor", "d[:, :, i, j]"),),
        ),
        Mistake(
            "divided-by-the-side",
            "the divisor is k, the side of the window, where it must be its area",
            "A window of k x k holds k * k numbers.",
            edits=(("k * k if", "k if"),),
        ),
        Mistake(
            "padding-always-counted",
            "padding is counted in the divisor, although count_padding is False",
            "Then a window at the border is divided by the number of pixels that it holds.",
            edits=(("k * k if count_padding else inside[rows, columns].sum()", "k * k"),),
        ),
        Mistake(
            "padding-never-counted",
            "padding is left out of the divisor, although count_padding is True",
            "Then each window is divided by k * k, wherever it lies.",
            edits=(
                (
                    "k * k if count_padding else inside[rows, columns].sum()",
                    "inside[rows, columns].sum()",
                ),
            ),
        ),
        Mistake(
            "overlap-assigned",
            "where windows overlap, shares are overwritten, where they must be added",
            "A pixel in several windows gets a share from each: += instead of =.",
            edits=(("columns] += share", "columns] = share"),),
        ),
        Mistake(
            "cut-at-the-start",
            "the padding is cut off at the end only",
            "The image begins p pixels inside of the padded one, on each axis.",
            edits=(("p : p + height, p : p + width", ":height, :width"),),
        ),
    ),
    payoff="GoogLeNet and ResNet end in one: it replaces 90 % of AlexNet's weights.",
)
