"""A filter is used at every place of every image, so its gradient is a sum
over all of them. With windows as columns (exercise 9), for each image n,

    y[n] = W @ cols[n]       W (K, C R S), cols[n] (C R S, P Q)

which is a linear layer with the places in the role of a batch, and has a
linear layer's gradients:

    dW       = sum over n of  dy[n] @ cols[n].T     (K, C R S)
    dcols[n] = W.T @ dy[n]                          (C R S, P Q)
    db       = sum over n and all places of dy      (K,)

dx then is dcols put back by col2im. What is left is reshaping: dy is
(N, K, P, Q), dw must be (K, C, R, S).

A worked example: x = [[1, 2, 3]] (one row of three pixels), w = [[4, 5]],
dy = [[1, 1]]. w[0] met 1 and 2, w[1] met 2 and 3: dw = [[3, 5]]. The middle
pixel met w[1] and w[0]: dx = [[4, 9, 5]]. db = 2.
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake
from ..oracle import gradients
from .e08_conv2d_naive import conv2d_naive, make_images
from .e09_im2col import im2col
from .e10_col2im import col2im


def conv2d_backward(d, cache):
    """Gradients of conv2d_naive(x, w, b, s, p).

    d: dL/dy, (N, K, P, Q)
    cache: the tuple (x, w, s, p) of the forward pass;
        x (N, C, H, W), w (K, C, R, S), s stride, p padding

    Returns dx, dw, db, of the shapes of x, w and b (K,).

    >>> x, w = np.array([[[[1.0, 2.0, 3.0]]]]), np.array([[[[4.0, 5.0]]]])
    >>> dx, dw, db = conv2d_backward(np.ones((1, 1, 1, 2)), (x, w, 1, 0))
    >>> dx.ravel(), dw.ravel(), db
    (array([4., 9., 5.]), array([3., 5.]), array([2.]))
    """
    x, w, s, p = cache
    n, k = d.shape[:2]
    window = w.shape[2:]
    cols = im2col(x, window, s, p)  # (N, C*R*S, P*Q)
    flat = d.reshape(n, k, -1)  # (N, K, P*Q)
    dw = (flat @ cols.swapaxes(1, 2)).sum(axis=0).reshape(w.shape)
    dcols = w.reshape(k, -1).T @ flat  # (N, C*R*S, P*Q)
    dx = col2im(dcols, x.shape, window, s, p)
    db = d.sum(axis=(0, 2, 3))
    return dx, dw, db


def _by_windows(d, cache, stride=None, add=True):
    """dx window by window, with mistakes that are hard to plant in a product of matrices."""
    x, w, s, p = cache
    r, t = w.shape[2:]
    step = s if stride is None else stride
    dx = np.zeros_like(np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))))
    for i in range(d.shape[2]):
        for j in range(d.shape[3]):
            there = dx[:, :, i * step : i * step + r, j * step : j * step + t]
            part = np.einsum("nk,kcrt->ncrt", d[:, :, i, j], w)
            there[...] = there + part if add else part
    height, width = x.shape[2:]
    return dx[:, :, p : p + height, p : p + width]


def _dx_stride_ignored(d, cache):
    return _by_windows(d, cache, stride=1), *conv2d_backward(d, cache)[1:]


def _dx_assigned(d, cache):
    return _by_windows(d, cache, add=False), *conv2d_backward(d, cache)[1:]


def _dw_stride_ignored(d, cache):
    x, w, _, p = cache
    r, t = w.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dw = np.zeros_like(w)
    for i in range(d.shape[2]):
        for j in range(d.shape[3]):
            window = padded[:, :, i : i + r, j : j + t]
            dw += np.einsum("nk,ncrt->kcrt", d[:, :, i, j], window)
    dx, _, db = conv2d_backward(d, cache)
    return dx, dw, db


def _make(rng, **settings):
    x, w, b, s, p = make_images(rng, **settings)
    shape = conv2d_naive(x, w, b, s, p).shape
    return {"d": rng.standard_normal(shape), "cache": (x, w, s, p)}


def _expected(d, cache):
    x, w, s, p = cache
    return gradients(
        lambda x, w, b: F.conv2d(x, w, b, stride=s, padding=p), d, x, w, np.zeros(len(w))
    )


def _pair(function, d, cache):
    x, w, s, p = cache

    def forward(x, w, b):
        y = F.conv2d(Tensor(x), Tensor(w), Tensor(b), stride=s, padding=p)
        return y.data, (x, w, s, p)

    def conv2d_backward(upstream, cache):
        return function(upstream, cache)

    return (forward, conv2d_backward), (x, w, np.zeros(len(w)))


EXERCISE = Exercise(
    number=11,
    title="convolution, backward",
    chapter=CHAPTERS[1],
    solution=conv2d_backward,
    uses=("im2col", "col2im"),
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
    pair=_pair,
    outputs=("dx", "dw", "db"),
    hints=(
        "Compare with exercise 4, y = x @ w.T + b: what plays the part of x, of w, of the batch?",
        "cols = im2col(x, (R, S), s, p) and d.reshape(N, K, P * Q) turn it into products of "
        "matrices, one for each image; dw is summed over the images.",
        "dw = (flat @ cols.swapaxes(1, 2)).sum(axis=0).reshape(w.shape); "
        "dx = col2im(w.reshape(K, -1).T @ flat, x.shape, (R, S), s, p); "
        "db = d.sum(axis=(0, 2, 3)).",
    ),
    mistakes=(
        Mistake(
            "dx-stride-ignored",
            "dx ignores the stride: each window's share is put back as if the stride were 1",
            "Output (i, j) looked at the window that begins at row i s, column j s.",
            function=_dx_stride_ignored,
        ),
        Mistake(
            "dw-stride-ignored",
            "dw ignores the stride: each output is paired with the window of stride 1",
            "Output (i, j) looked at the window that begins at row i s, column j s.",
            function=_dw_stride_ignored,
        ),
        Mistake(
            "dx-overlap-assigned",
            "in dx, overlapping windows overwrite each other, where they must be added",
            "A pixel that lies in several windows gets a share from each.",
            function=_dx_assigned,
        ),
        Mistake(
            "dx-flipped",
            "dx uses the filter flipped",
            "Written as a convolution of d, dx needs the flipped filter; written with col2im, "
            "or window by window, it does not.",
            edits=(("w.reshape(k, -1).T", "w[:, :, ::-1, ::-1].reshape(k, -1).T"),),
        ),
        Mistake(
            "dw-flipped",
            "dw comes out flipped",
            "dw[k, c, r, t] pairs d with the pixels that lay under (r, t), as in the forward pass.",
            edits=(
                (
                    ".sum(axis=0).reshape(w.shape)",
                    ".sum(axis=0).reshape(w.shape)[:, :, ::-1, ::-1]",
                ),
            ),
        ),
        Mistake(
            "dw-last-sample",
            "dw counts only the last image of the batch",
            "All images share the filters: their contributions are added.",
            edits=((".sum(axis=0).reshape(w.shape)", "[-1].reshape(w.shape)"),),
        ),
        Mistake(
            "dw-averaged",
            "dw is averaged over the batch, where it must be summed",
            "Whether the loss is a mean is the loss's affair: then d already contains 1/N.",
            edits=((".sum(axis=0).reshape(w.shape)", ".mean(axis=0).reshape(w.shape)"),),
        ),
        Mistake(
            "db-over-the-batch-only",
            "db is summed over the batch but not over the places",
            "b[k] is added at each place of plane k: db has one number for each filter.",
            edits=(("d.sum(axis=(0, 2, 3))", "d.sum(axis=0)"),),
        ),
        Mistake(
            "db-averaged",
            "db is averaged, where it must be summed",
            "b[k] was used at every place of every image, and each use counts in full.",
            edits=(("d.sum(axis=(0, 2, 3))", "d.mean(axis=(0, 2, 3))"),),
        ),
    ),
    payoff="this is where VGG16 spends nearly all of its time, in minidl too.",
)
