"""A linear layer (also called fully connected) with N samples, D inputs and
M outputs computes, for each sample n and output m,

    y[n, m] = sum over d of x[n, d] * w[m, d]  +  b[m]
    y = x @ w.T + b           x (N, D), w (M, D), b (M,), y (N, M)

w has one row for each output, as in minidl and PyTorch. VGG16's first linear
layer has D = 7 * 7 * 512 = 25,088 and M = 4,096: 102,760,448 weights, three
quarters of the whole network.

Given dL/dy, the chain rule gives one product for each argument. Write down
the shapes, and only one arrangement of each product fits:

    dx (N, D)     dw (M, D)     db (M,)

b is broadcast over the batch; exercise 3 says what that means for db.

A worked example: x = [[1, 2]], w = [[3, 4]], dy = [[10]] gives
dx = [[30, 40]], dw = [[10, 20]], db = [10].
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients


def linear_backward(d, x, w):
    """Gradients of y = x @ w.T + b.

    d: dL/dy, (N, M)
    x: (N, D)
    w: (M, D)

    Returns dx (N, D), dw (M, D), db (M,).

    >>> linear_backward(np.array([[10.0]]), np.array([[1.0, 2.0]]),
    ...                 np.array([[3.0, 4.0]]))
    (array([[30., 40.]]), array([[10., 20.]]), array([10.]))
    """
    dx = d @ w
    dw = d.T @ x
    db = d.sum(axis=0)
    return dx, dw, db


def _make(rng, samples=None, inputs=None, outputs=None):
    n, width, m = distinct(rng, 3)
    n, width, m = samples or n, inputs or width, outputs or m
    return {
        "d": rng.standard_normal((n, m)),
        "x": rng.standard_normal((n, width)),
        "w": rng.standard_normal((m, width)),
    }


def _expected(d, x, w):
    return gradients(F.linear, d, x, w, np.zeros(len(w)))


def _pair(function, d, x, w):
    def forward(x, w, b):
        return x @ w.T + b, (x, w)

    def linear_backward(upstream, cache):
        return function(upstream, *cache)

    return (forward, linear_backward), (x, w, np.zeros(len(w)))


EXERCISE = Exercise(
    number=4,
    title="the linear layer",
    chapter=CHAPTERS[0],
    solution=linear_backward,
    make=_make,
    cases={
        "one number in, one out": {"samples": 1, "inputs": 1, "outputs": 1},
        "one sample": {"samples": 1},
        "a batch with one output": {"outputs": 1},
        "a batch": {},
        "a square w": {"inputs": 4, "outputs": 4},
    },
    expected=_expected,
    pair=_pair,
    outputs=("dx", "dw", "db"),
    hints=(
        "Each of the three results is d joined with what multiplied the argument in the "
        "forward pass: for dx that is w, for dw it is x, for db it is 1.",
        "dx[n, d] sums over the outputs m; dw[m, d] sums over the samples n; db[m] sums over "
        "the samples n too.",
        "dx = d @ w; dw = d.T @ x; db = d.sum(axis=0).",
    ),
    mistakes=(
        Mistake(
            "dw-transposed",
            "dw is transposed: it is (D, M), but w is (M, D)",
            "A gradient has the shape of what it belongs to: w has one row for each output.",
            edits=(("d.T @ x", "x.T @ d"),),
        ),
        Mistake(
            "db-not-summed",
            "db is not summed over the batch",
            "b is added to every sample, so each of them contributes to its gradient.",
            edits=(("d.sum(axis=0)", "d.copy()"),),
        ),
        Mistake(
            "db-averaged",
            "db is averaged over the batch, where it must be summed",
            "Whether the loss is a mean is the loss's affair: then d already contains 1/N.",
            edits=(("d.sum(axis=0)", "d.mean(axis=0)"),),
        ),
        Mistake(
            "dw-averaged",
            "dw is divided by the batch size",
            "Whether the loss is a mean is the loss's affair: then d already contains 1/N.",
            edits=(("d.T @ x", "d.T @ x / len(x)"),),
        ),
        Mistake(
            "db-over-outputs",
            "db is summed over the outputs, where it must be summed over the batch",
            "Axis 0 is the batch, axis 1 the outputs; b has one entry for each output.",
            edits=(("d.sum(axis=0)", "d.sum(axis=1)"),),
        ),
        Mistake(
            "dw-last-sample",
            "dw counts only the last sample",
            "All samples share w, so their contributions are added.",
            edits=(("d.T @ x", "d[-1:].T @ x[-1:]"),),
        ),
        Mistake(
            "dx-by-the-transpose",
            "dx is multiplied by the transpose of w",
            "dx[n, i] = sum over m of d[n, m] * w[m, i]: the axis that d and w share is the "
            "outputs, so it is d @ w.",
            edits=(("dx = d @ w", "dx = d @ w.T"),),
        ),
    ),
    payoff="two of these and a ReLU between them are a network that can be trained.",
)
