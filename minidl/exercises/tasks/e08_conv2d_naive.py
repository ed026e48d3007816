"""A convolutional layer puts a small filter on each place of an image and
multiplies and adds what lies under it. With N images x of C channels and K
filters w, each over all channels:

    y[n, k, i, j] = b[k] + sum over c, r, t of
                    x[n, c, i s + r, j s + t] * w[k, c, r, t]

after p zeros have been added around the image.

    x (N, C, H, W)     w (K, C, R, S)     b (K,)     y (N, K, P, Q)

P and Q are exercise 7's. The filter is not flipped: what deep learning calls
convolution is a correlation. A filter sees 5 x 5 x 3 numbers of a colour
image, and the same 75 weights serve all its places; AlexNet's first layer has
96 filters of 11 x 11 x 3, which is 34,848 weights.

A worked example: the image [[1, 2, 3], [4, 5, 6], [7, 8, 9]] and the filter
[[1, 0], [0, -1]] give [[1 - 5, 2 - 6], [4 - 8, 5 - 9]], which is -4
everywhere.

Loops are fine. This is the version against which fast ones are held.
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake, distinct
from .e07_conv_out_size import conv_out_size


def conv2d_naive(x, w, b, s=1, p=0):
    """Convolution by its definition.

    x: (N, C, H, W), w: (K, C, R, S), b: (K,)
    s: stride, p: padding, integers, the same for both axes

    Returns y (N, K, P, Q).

    >>> image = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> corner = np.array([[[[1.0, 0.0], [0.0, -1.0]]]])
    >>> conv2d_naive(image, corner, np.zeros(1))
    array([[[[-4., -4.],
             [-4., -4.]]]])
    """
    samples, _, height, width = x.shape
    filters, _, r, t = w.shape
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    rows = conv_out_size(height, r, s, p)
    columns = conv_out_size(width, t, s, p)
    y = np.zeros((samples, filters, rows, columns))
    for i in range(rows):
        for j in range(columns):
            # (N, C, R, S)
            window = x[:, :, i * s : i * s + r, j * s : j * s + t]
            for k in range(filters):
                y[:, k, i, j] = (window * w[k]).sum(axis=(1, 2, 3)) + b[k]
    return y


def make_images(rng, samples=None, channels=None, filters=None, square=None, s=1, p=0):
    """Images and filters of drawn sizes, no two alike, H != W and R != S unless ``square``."""
    n, c, k = distinct(rng, 3, 2, 4)
    n, c, k = samples or n, channels or c, filters or k
    r, t = (square, square) if square else (3, 2)
    # Strides do not divide: one column is left over.
    height, width = s * int(rng.integers(3, 5)) + r, s * 5 + t + (s > 1) - 2 * p
    x = rng.standard_normal((n, c, height, width))
    return x, rng.standard_normal((k, c, r, t)), rng.standard_normal(k), s, p


def _make(rng, **settings):
    return dict(zip("xwbsp", make_images(rng, **settings), strict=True))


def _expected(x, w, b, s, p):
    return F.conv2d(*map(Tensor, (x, w, b)), stride=s, padding=p).data


EXERCISE = Exercise(
    number=8,
    title="convolution by its definition",
    chapter=CHAPTERS[1],
    solution=conv2d_naive,
    uses=("conv_out_size",),
    make=_make,
    cases={
        "one image, one channel, one filter": {
            "samples": 1,
            "channels": 1,
            "filters": 1,
            "square": 2,
        },
        "several channels": {"samples": 1, "filters": 1, "square": 2},
        "several filters": {"samples": 1, "square": 2},
        "a batch": {"square": 2},
        "a window of 3 x 2": {},
        "stride 2": {"s": 2},
        "padding 1": {"p": 1},
        "stride 3, padding 2": {"s": 3, "p": 2},
    },
    expected=_expected,
    outputs=("y",),
    hints=(
        "Write y[n, k, i, j] as the sum over a window of the padded image. Which rows and "
        "columns does the window at (i, j) cover?",
        "Pad once: np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))). The window is "
        "x[:, :, i * s : i * s + R, j * s : j * s + S], of shape (N, C, R, S).",
        "y[:, k, i, j] = (window * w[k]).sum(axis=(1, 2, 3)) + b[k], in loops over i, j and k.",
    ),
    mistakes=(
        Mistake(
            "flipped",
            "the filter is flipped",
            "Signal processing flips it; deep learning does not: w[k, c, 0, 0] meets the "
            "window's upper left pixel.",
            edits=(("window * w[k]", "window * w[k][:, ::-1, ::-1]"),),
        ),
        Mistake(
            "stride-ignored",
            "the stride is used for the size of the output but not for the windows' places",
            "Window (i, j) begins at row i s, column j s.",
            edits=(("i * s : i * s + r, j * s : j * s + t", "i : i + r, j : j + t"),),
        ),
        Mistake(
            "bias-missing",
            "the bias is not added",
            "Each filter has a number b[k] that is added everywhere in its plane.",
            edits=((" + b[k]", ""),),
        ),
        Mistake(
            "last-channel",
            "only the last channel counts, where all channels are summed",
            "A filter reaches through all channels of the input.",
            edits=(
                ("(window * w[k]).sum(axis=(1, 2, 3))", "(window * w[k])[:, -1].sum(axis=(1, 2))"),
            ),
        ),
        Mistake(
            "rows-and-columns",
            "rows and columns of the output are swapped",
            "y[n, k, i, j]: i counts rows (H), j counts columns (W), as in x.",
            edits=(("return y", "return y.swapaxes(2, 3).copy()"),),
        ),
        Mistake(
            "padding-forgotten",
            "the image is shifted: the padding goes to the end instead of to either side",
            "p zeros on either side: the window at (0, 0) begins p pixels outside of the image.",
            edits=(("(p, p), (p, p)", "(0, 2 * p), (0, 2 * p)"),),
        ),
        Mistake(
            "window-transposed",
            "the window is laid over the image transposed: rows of the filter on columns",
            "w[k, c, r, t]: r goes down, t goes to the right.",
            edits=(
                (
                    "window * w[k]",
                    "window * w[k].reshape(-1, t, r).swapaxes(1, 2)",
                ),
            ),
        ),
    ),
    payoff="this is the whole of a convolution; everything else is speed.",
)
