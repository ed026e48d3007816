"""A convolution is a product of matrices once every window has been laid out
as a column. For each image there is a matrix with one column for each place
of the window and one row for each number in it:

    cols[n]    (C R S, P Q)
    y[n] = w.reshape(K, C R S) @ cols[n]         (K, P Q)

which takes memory (a 3 x 3 window repeats each pixel up to nine times) and
saves time, for nothing on a processor is faster than a product of matrices.

The order is agreed upon, and the same in all frameworks:
    rows      by channel, then row of the window, then column of the window
    columns   by row of the output, then column of the output

A worked example: the image [[1, 2, 3], [4, 5, 6], [7, 8, 9]] with a window
of 2 x 2 at stride 1 has the windows 1 2 4 5, 2 3 5 6, 4 5 7 8, 5 6 8 9:

    [[1, 2, 4, 5],
     [2, 3, 5, 6],
     [4, 5, 7, 8],
     [5, 6, 8, 9]]
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake
from .e07_conv_out_size import conv_out_size
from .e08_conv2d_naive import make_images


def im2col(x, k, s=1, p=0):
    """Windows as columns.

    x: (N, C, H, W)
    k: height and width of the window, a pair (R, S)
    s: stride, p: padding, integers, the same for both axes

    Returns (N, C * R * S, P * Q).

    >>> im2col(np.arange(1, 10).reshape(1, 1, 3, 3), (2, 2))
    array([[[1, 2, 4, 5],
            [2, 3, 5, 6],
            [4, 5, 7, 8],
            [5, 6, 8, 9]]])
    """
    n, c, height, width = x.shape
    r, t = k
    rows = conv_out_size(height, r, s, p)
    columns = conv_out_size(width, t, s, p)
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    cols = np.zeros((n, c, r, t, rows, columns), dtype=x.dtype)
    for i in range(r):
        for j in range(t):
            # The pixels that lie under (i, j) of the window at all places.
            under = x[:, :, i : i + s * rows : s, j : j + s * columns : s]
            cols[:, :, i, j] = under
    return cols.reshape(n, c * r * t, rows * columns)


def _make(rng, **settings):
    x, w, _, s, p = make_images(rng, **settings)
    return {"x": x, "k": w.shape[2:], "s": s, "p": p}


def _expected(x, k, s, p):
    return F.im2col(Tensor(x), k, stride=s, padding=p).data


LADDER = {
    "one image, one channel": {"samples": 1, "channels": 1, "square": 2},
    "several channels": {"samples": 1, "square": 2},
    "a batch": {"square": 2},
    "a window of 3 x 2": {},
    "stride 2": {"s": 2},
    "padding 1": {"p": 1},
    "stride 3, padding 2": {"s": 3, "p": 2},
}

EXERCISE = Exercise(
    number=9,
    title="windows as columns",
    chapter=CHAPTERS[1],
    solution=im2col,
    uses=("conv_out_size",),
    make=_make,
    cases=LADDER,
    expected=_expected,
    outputs=("cols",),
    hints=(
        "Take one row of the result: it belongs to one channel and one place (i, j) inside the "
        "window. Which pixels does it hold, for all places of the window?",
        "Make an array (N, C, R, S, P, Q) and fill cols[:, :, i, j] with a strided slice of "
        "the padded image, in two loops over the window; reshape at the end.",
        "cols[:, :, i, j] = x[:, :, i : i + s * P : s, j : j + s * Q : s]; "
        "return cols.reshape(N, C * R * S, P * Q).",
    ),
    mistakes=(
        Mistake(
            "channels-last",
            "the rows are ordered by place in the window first and channel last",
            "Channel is the slowest index: a filter w[k] of shape (C, R, S) is laid out so when "
            "it is reshaped, and the columns must match it.",
            edits=(
                (
                    "cols.reshape(n, c * r * t, rows * columns)",
                    "np.moveaxis(cols, 1, 3).reshape(n, c * r * t, rows * columns)",
                ),
            ),
        ),
        Mistake(
            "window-transposed",
            "the rows walk through the window by column, where they must by row",
            "Within a channel the order is that of the filter's memory: row by row.",
            edits=(
                (
                    "cols.reshape(n, c * r * t, rows * columns)",
                    "cols.swapaxes(2, 3).reshape(n, c * r * t, rows * columns)",
                ),
            ),
        ),
        Mistake(
            "places-transposed",
            "the columns walk through the output by column, where they must by row",
            "The product is reshaped to (P, Q), row by row.",
            edits=(
                (
                    "cols.reshape(n, c * r * t, rows * columns)",
                    "cols.swapaxes(4, 5).reshape(n, c * r * t, rows * columns)",
                ),
            ),
        ),
        Mistake(
            "transposed",
            "the matrices are transposed: windows lie in the rows",
            "Each window is a column here, so that the filters stand on the left: w @ cols.",
            edits=(
                (
                    "cols.reshape(n, c * r * t, rows * columns)",
                    "cols.reshape(n, c * r * t, rows * columns).swapaxes(1, 2)",
                ),
            ),
        ),
        Mistake(
            "stride-ignored",
            "the windows are taken one pixel apart, whatever the stride",
            "Neighbouring places are s pixels apart: slices need a step of s.",
            edits=(
                (
                    "i : i + s * rows : s, j : j + s * columns : s",
                    "i : i + rows, j : j + columns",
                ),
            ),
        ),
        Mistake(
            "padding-at-the-end",
            "the image is shifted: the padding goes to the end instead of to either side",
            "p zeros on either side of each axis.",
            edits=(("(p, p), (p, p)", "(0, 2 * p), (0, 2 * p)"),),
        ),
        Mistake(
            "padding-with-edges",
            "the padding repeats the border, where it must be zeros",
            "np.pad fills with zeros unless told otherwise.",
            edits=(("(p, p), (p, p)))", '(p, p), (p, p)), mode="edge")'),),
        ),
    ),
    payoff="a convolution is now one product of matrices: (K, C R S) @ (C R S, P Q).",
)
