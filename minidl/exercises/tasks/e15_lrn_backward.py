"""AlexNet's local response normalisation divides each number by a scale that
its neighbours in the channel direction set, n of them around it (n odd,
fewer at the first and last channels):

    scale[i] = k + alpha * sum over j in window(i) of x[j]^2
    y[i]     = x[i] * scale[i]^(-beta)

for every image and pixel separately; i and j are channels, and window(i) is
the channels from i - n//2 to i + n//2 that exist. alpha is not divided by n.

x[i] has an effect on its own y[i], and on the scale of each channel whose
window holds it, which are again those in window(i):

    dx[i] = d[i] * scale[i]^(-beta)
            - 2 alpha beta x[i] * sum over j in window(i) of
                                  d[j] x[j] scale[j]^(-beta - 1)

The paper's alpha is 0.0001, and with it the second line can be left out
without anybody noticing. It is checked with alpha near 1.

A worked example: one channel, n = 1, k = 1, alpha = 1, beta = 1:
y = x / (1 + x^2), dy/dx = (1 - x^2) / (1 + x^2)^2; at x = 2 it is -3/25.
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import gradients


def lrn_forward(x, n, k, alpha, beta):
    """Local response normalisation of x (N, C, H, W).

    Returns y and the cache for the backward pass.
    """
    scale = np.full(x.shape, float(k))
    for i in range(x.shape[1]):
        window = slice(max(0, i - n // 2), i + n // 2 + 1)
        scale[:, i] += alpha * (x[:, window] ** 2).sum(axis=1)
    return x * scale**-beta, (x, scale, n, alpha, beta)


def lrn_backward(d, cache):
    """Gradient of lrn_forward.

    d: dL/dy, (N, C, H, W)
    cache: the tuple (x, scale, n, alpha, beta)

    Returns dx, of x's shape.

    >>> x = np.full((1, 1, 1, 1), 2.0)
    >>> y, cache = lrn_forward(x, 1, 1.0, 1.0, 1.0)
    >>> lrn_backward(np.ones((1, 1, 1, 1)), cache).round(6)
    array([[[[-0.12]]]])
    """
    x, scale, n, alpha, beta = cache
    term = d * x * scale ** (-beta - 1)
    dx = d * scale**-beta
    for i in range(x.shape[1]):
        window = slice(max(0, i - n // 2), i + n // 2 + 1)
        total = term[:, window].sum(axis=1)
        dx[:, i] -= 2 * alpha * beta * x[:, i] * total
    return dx


def _make(rng, n, channels=None, alpha=0.9, beta=0.75):
    samples, c, height, width = distinct(rng, 4, 2, 5)
    x = rng.standard_normal((samples, channels or c + 3, height, width))
    y, cache = lrn_forward(x, n, 2.0, alpha, beta)
    return {"d": rng.standard_normal(y.shape), "cache": cache}


def _expected(d, cache):
    x, _, n, alpha, beta = cache
    return gradients(lambda x: F.local_response_norm(x, n, alpha, beta, 2.0), d, x)[0]


def _pair(function, d, cache):
    x, _, n, alpha, beta = cache

    def forward(x):
        return lrn_forward(x, n, 2.0, alpha, beta)

    def lrn_backward(upstream, cache):
        return function(upstream, cache)

    return (forward, lrn_backward), x


EXERCISE = Exercise(
    number=15,
    title="local response normalisation, backward",
    chapter=CHAPTERS[2],
    solution=lrn_backward,
    given=(lrn_forward,),
    make=_make,
    cases={
        "one channel": {"n": 1, "channels": 1},
        "a window of one channel": {"n": 1},
        "a window of 3": {"n": 3},
        "a window of 5, beta = 2": {"n": 5, "beta": 2.0},
        "a window wider than the channels": {"n": 9, "channels": 3},
        "the paper's alpha": {"n": 5, "alpha": 1e-4},
    },
    expected=_expected,
    pair=_pair,
    outputs=("dx",),
    hints=(
        "x[i] stands in y[i] itself and in several scales. Which outputs change when one x[i] "
        "changes?",
        "Compute term = d * x * scale ** (-beta - 1) once; then each channel i needs the sum of "
        "term over its window, exactly as the forward pass sums x ** 2.",
        "dx = d * scale ** -beta; for each i: "
        "dx[:, i] -= 2 * alpha * beta * x[:, i] * term[:, window].sum(axis=1).",
    ),
    mistakes=(
        Mistake(
            "cross-channel",
            "the effect of x on the scales is left out",
            "scale depends on x too. With the paper's alpha of 0.0001 this hardly shows, with a "
            "larger one it does.",
            edits=(("        dx[:, i] -= 2 * alpha * beta * x[:, i] * total\n", ""),),
        ),
        Mistake(
            "own-channel-only",
            "of the scales only the one of the same channel is differentiated",
            "x[i] stands in the scale of each neighbour whose window holds it: sum over them.",
            edits=(("term[:, window].sum(axis=1)", "term[:, i]"),),
        ),
        Mistake(
            "factor-two",
            "the factor 2 from the square is missing",
            "The derivative of x^2 is 2 x.",
            edits=(("2 * alpha * beta", "alpha * beta"),),
        ),
        Mistake(
            "sign",
            "the second term has the wrong sign",
            "A larger x makes the scale larger and so the outputs smaller: -beta comes down from "
            "the exponent.",
            edits=(("dx[:, i] -= ", "dx[:, i] += "),),
        ),
        Mistake(
            "exponent",
            "the exponent in the second term is -beta, where it must be -beta - 1",
            "Differentiating scale^(-beta) lowers the exponent by one.",
            edits=(("scale ** (-beta - 1)", "scale ** (-beta)"),),
        ),
        Mistake(
            "beta",
            "the factor beta is missing in the second term",
            "d scale^(-beta) / d scale = -beta scale^(-beta - 1).",
            edits=(("2 * alpha * beta", "2 * alpha"),),
        ),
        Mistake(
            "alpha-over-n",
            "alpha is divided by n",
            "Caffe and PyTorch do so; the paper, and this exercise, do not.",
            edits=(("2 * alpha * beta", "2 * alpha / n * beta"),),
        ),
        Mistake(
            "one-sided-window",
            "the window reaches to lower channels only",
            "It is centred: as many channels above i as below.",
            edits=(("i + n // 2 + 1)", "i + 1)"),),
        ),
    ),
    payoff="AlexNet as published is now yours to train; later networks use exercise 16.",
)
