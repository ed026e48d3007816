"""im2col copies pixels into columns, some of them many times. On the way back
each copy brings a gradient, and they are added up where the pixel came from:

    dx[n, c, u, v] = sum of dcols over all copies of the pixel (u, v)

That is the transpose of im2col, as a linear map. Two maps A and B are each
other's transpose if <A x, c> = <x, B c> for all x and c, with <,> the sum of
the products of all elements; this is how the exercise is checked.

It is no inverse: im2col followed by col2im multiplies each pixel by the
number of windows that see it.

A worked example: a 3 x 3 image, a window of 2 x 2, and columns of ones.
A corner lies in one window, an edge in two, the centre in four:

    [[1, 2, 1],
     [2, 4, 2],
     [1, 2, 1]]

What falls into the padding is dropped: those zeros were nobody's pixels.
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake
from ..oracle import gradients
from .e07_conv_out_size import conv_out_size
from .e08_conv2d_naive import make_images
from .e09_im2col import LADDER


def col2im(cols, shape, k, s=1, p=0):
    """The transpose of im2col: adds columns up into an image.

    cols: (N, C * R * S, P * Q), ordered as im2col orders them
    shape: of the image, (N, C, H, W)
    k: the window (R, S), s: stride, p: padding

    Returns an array of that shape.

    >>> col2im(np.ones((1, 4, 4)), (1, 1, 3, 3), (2, 2))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    n, c, height, width = shape
    r, t = k
    rows = conv_out_size(height, r, s, p)
    columns = conv_out_size(width, t, s, p)
    cols = cols.reshape(n, c, r, t, rows, columns)
    x = np.zeros((n, c, height + 2 * p, width + 2 * p))
    for i in range(r):
        for j in range(t):
            under = x[:, :, i : i + s * rows : s, j : j + s * columns : s]
            under += cols[:, :, i, j]  # a view: this changes x
    return x[:, :, p : p + height, p : p + width]


def _make(rng, **settings):
    x, w, _, s, p = make_images(rng, **settings)
    (n, c, height, width), (r, t) = x.shape, w.shape[2:]
    places = conv_out_size(height, r, s, p) * conv_out_size(width, t, s, p)
    cols = rng.standard_normal((n, c * r * t, places))
    return {"cols": cols, "shape": x.shape, "k": (r, t), "s": s, "p": p}


def _expected(cols, shape, k, s, p):
    """The gradient of im2col is its transpose."""
    return gradients(lambda x: F.im2col(x, k, stride=s, padding=p), cols, np.zeros(shape))[0]


def _pair(function, cols, shape, k, s, p):
    def forward(x):
        return F.im2col(Tensor(x), k, stride=s, padding=p).data

    def col2im(upstream, x):
        return function(upstream, shape, k, s, p)

    return (forward, col2im), np.ones(shape)


EXERCISE = Exercise(
    number=10,
    title="columns back into an image",
    chapter=CHAPTERS[1],
    solution=col2im,
    uses=("conv_out_size",),
    make=_make,
    cases=LADDER,
    expected=_expected,
    pair=_pair,
    outputs=("image",),
    hints=(
        "Your im2col read x[...slice...] into cols[:, :, i, j]. Now the arrow points the other "
        "way. What if two windows meet the same pixel?",
        "Reshape cols to (N, C, R, S, P, Q), add each cols[:, :, i, j] to the strided slice "
        "that it came from, of a padded image of zeros, then cut the padding off.",
        "x[:, :, i : i + s * P : s, j : j + s * Q : s] += cols[:, :, i, j]; at the end "
        "x[:, :, p : p + H, p : p + W].",
    ),
    mistakes=(
        Mistake(
            "overlap-assigned",
            "where windows overlap, values are overwritten, where they must be added",
            "Every copy of a pixel contributed to the output, so every one brings a gradient: "
            "+= instead of =.",
            edits=(("under += cols[:, :, i, j]", "under[...] = cols[:, :, i, j]"),),
        ),
        Mistake(
            "cut-at-the-start",
            "the padding is cut off at the end only",
            "The image begins p pixels inside of the padded one, on each axis.",
            edits=(("p : p + height, p : p + width", ":height, :width"),),
        ),
        Mistake(
            "padding-kept",
            "the padding is not cut off",
            "The result has the shape of the image; what fell on the padding is dropped.",
            edits=(("x[:, :, p : p + height, p : p + width]", "x"),),
        ),
        Mistake(
            "averaged",
            "overlapping windows are averaged, where they must be added",
            "That makes it the inverse of im2col. A gradient needs the transpose.",
            edits=(
                (
                    "    for i in range(r):\n",
                    "    count = np.zeros_like(x)\n    for i in range(r):\n",
                ),
                (
                    "            under += cols[:, :, i, j]",
                    "            count[:, :, i : i + s * rows : s, j : j + s * columns : s] += 1\n"
                    "            under += cols[:, :, i, j]",
                ),
                ("    return x[", "    x = x / np.maximum(count, 1)\n    return x["),
            ),
        ),
        Mistake(
            "channels-last",
            "the rows are read with the channel last, where it comes first",
            "The rows are ordered by channel, then row, then column of the window: reshape to "
            "(N, C, R, S, P, Q).",
            edits=(
                (
                    "cols.reshape(n, c, r, t, rows, columns)",
                    "np.moveaxis(cols.reshape(n, r, t, c, rows, columns), 3, 1)",
                ),
            ),
        ),
        Mistake(
            "stride-ignored",
            "the windows are put back one pixel apart, whatever the stride",
            "Neighbouring places are s pixels apart: slices need a step of s.",
            edits=(
                (
                    "i : i + s * rows : s, j : j + s * columns : s",
                    "i : i + rows, j : j + columns",
                ),
            ),
        ),
    ),
    payoff="with im2col and col2im the backward pass of a convolution is three lines.",
)
