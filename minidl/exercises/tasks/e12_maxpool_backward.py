"""Max pooling keeps the largest number of each window:

    y[n, c, i, j] = max over r, t of x[n, c, i s + r, j s + t]

The others could be a little different without y noticing, so all of the
gradient goes to the winner of the window and none to the others. There are
no parameters.

With a stride smaller than the window, as in AlexNet (3 x 3, stride 2),
windows overlap, and a number can win several of them: it gets all their
gradients. Where two numbers in a window are equal, the first in reading
order wins, and takes all.

A worked example: x = [[1, 5, 2, 5]], windows of one row and two columns at
stride 1 would be (1, 5), (5, 2), (2, 5). With dy = [[10, 20, 30]]
dx = [[0, 30, 0, 30]]: the first 5 wins twice.
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients


def maxpool_forward(x, k, s):
    """Max pooling with a window of k x k and stride s, without padding.

    Returns y (N, C, P, Q) and the cache for the backward pass.
    """
    n, c, height, width = x.shape
    rows, columns = (height - k) // s + 1, (width - k) // s + 1
    y = np.zeros((n, c, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * s : i * s + k, j * s : j * s + k]
            y[:, :, i, j] = window.max(axis=(2, 3))
    return y, (x, k, s)


def maxpool_backward(d, cache):
    """Gradient of maxpool_forward.

    d: dL/dy, (N, C, P, Q)
    cache: the tuple (x, k, s) of the forward pass

    Returns dx, of x's shape (N, C, H, W).

    >>> x = np.array([[[[1.0, 2.0], [4.0, 3.0]]]])
    >>> maxpool_backward(np.array([[[[7.0]]]]), (x, 2, 2))
    array([[[[0., 0.],
             [7., 0.]]]])
    """
    x, k, s = cache
    n, c, rows, columns = d.shape
    dx = np.zeros(x.shape)
    image, channel = np.indices((n, c))
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * s : i * s + k, j * s : j * s + k]
            winner = window.reshape(n, c, -1).argmax(axis=2)  # the first
            row, column = i * s + winner // k, j * s + winner % k
            dx[image, channel, row, column] += d[:, :, i, j]
    return dx


def _all_winners(d, cache):
    x, k, s = cache
    dx = np.zeros(x.shape)
    for i in range(d.shape[2]):
        for j in range(d.shape[3]):
            there = np.s_[:, :, i * s : i * s + k, j * s : j * s + k]
            largest = x[there].max(axis=(2, 3), keepdims=True)
            dx[there] += (x[there] == largest) * d[:, :, i, j, None, None]
    return dx


def _shared(d, cache):
    x, k, s = cache
    dx = np.zeros(x.shape)
    for i in range(d.shape[2]):
        for j in range(d.shape[3]):
            there = np.s_[:, :, i * s : i * s + k, j * s : j * s + k]
            wins = x[there] == x[there].max(axis=(2, 3), keepdims=True)
            wins = wins / wins.sum(axis=(2, 3), keepdims=True)
            dx[there] += wins * d[:, :, i, j, None, None]
    return dx


def make_pooled(rng, k, s, samples=None, channels=None, ties=False):
    """An image, H != W, where one column is left over if the stride does not divide."""
    n, c = distinct(rng, 2, 2, 4)
    n, c = samples or n, channels or c
    height, width = k + s * int(rng.integers(2, 4)), k + s * 4 + (s > 1)
    shape = (n, c, height, width)
    if ties:
        return rng.integers(0, 3, shape).astype(float)
    return rng.permutation(float(np.prod(shape)) * np.linspace(-1, 1, np.prod(shape))).reshape(
        shape
    )


def _make(rng, k, s, **settings):
    x = make_pooled(rng, k, s, **settings)
    y, cache = maxpool_forward(x, k, s)
    return {"d": rng.standard_normal(y.shape), "cache": cache}


def _expected(d, cache):
    x, k, s = cache
    return gradients(lambda x: F.max_pool2d(x, k, s), d, x)[0]


def _pair(function, d, cache):
    x, k, s = cache

    def forward(x):
        return maxpool_forward(x, k, s)

    def maxpool_backward(upstream, cache):
        return function(upstream, cache)

    return (forward, maxpool_backward), x


EXERCISE = Exercise(
    number=12,
    title="max pooling, backward",
    chapter=CHAPTERS[2],
    solution=maxpool_backward,
    given=(maxpool_forward,),
    make=_make,
    cases={
        "one plane, windows side by side": {"k": 2, "s": 2, "samples": 1, "channels": 1},
        "a batch of several channels": {"k": 2, "s": 2},
        "a window of 3": {"k": 3, "s": 3},
        "overlapping windows, 3 at stride 2": {"k": 3, "s": 2},
        "equal numbers in a window": {"k": 2, "s": 2, "ties": True},
        "equal numbers, overlapping windows": {"k": 3, "s": 1, "ties": True},
    },
    expected=_expected,
    pair=_pair,
    outputs=("dx",),
    hints=(
        "Go through the windows as the forward pass does. Who won each of them, and what does "
        "the winner get?",
        "argmax over the window, flattened, gives the first of equal winners; winner // k and "
        "winner % k are its row and column inside the window. Add i s and j s.",
        "image, channel = np.indices((N, C)); "
        "dx[image, channel, i * s + winner // k, j * s + winner % k] += d[:, :, i, j].",
    ),
    mistakes=(
        Mistake(
            "ties-doubled",
            "where numbers in a window are equal, each of them gets the whole gradient",
            "A window has one winner: the first. x == max marks all of them, and the gradient is "
            "multiplied.",
            function=_all_winners,
        ),
        Mistake(
            "ties-shared",
            "where numbers in a window are equal, they share the gradient",
            "A fair idea, and a legal subgradient, but the agreement is that the first one in "
            "reading order takes all.",
            function=_shared,
        ),
        Mistake(
            "last-winner",
            "where numbers in a window are equal, the last one wins, where it must be the first",
            "Reading order: row by row. argmax returns the first.",
            edits=(
                (
                    "window.reshape(n, c, -1).argmax(axis=2)",
                    "k * k - 1 - window.reshape(n, c, -1)[:, :, ::-1].argmax(axis=2)",
                ),
            ),
        ),
        Mistake(
            "overlap-assigned",
            "a number that wins several windows gets the gradient of the last one only",
            "Overlapping windows: add with +=, do not assign.",
            edits=(("+= d[:, :, i, j]", "= d[:, :, i, j]"),),
        ),
        Mistake(
            "row-and-column",
            "the winner's row and column inside the window are swapped",
            "In reading order, winner // k is the row and winner % k the column.",
            edits=(
                (
                    "i * s + winner // k, j * s + winner % k",
                    "i * s + winner % k, j * s + winner // k",
                ),
            ),
        ),
        Mistake(
            "upstream-ignored",
            "the gradient that arrives is ignored: each winner gets 1",
            "The chain rule multiplies the slope, which is 1 for the winner, by dL/dy.",
            edits=(("+= d[:, :, i, j]", "+= 1.0"),),
        ),
    ),
    payoff="LeNet, AlexNet and VGG all shrink their images with it.",
)
