"""In training, each number of a channel goes into the channel's mean and
variance, and through these into every output of the channel. With

    x_hat = (x - mean) / std,   std = sqrt(var + eps),
    y     = gamma * x_hat + beta

and M = N H W numbers in a channel, the three paths add up to

    g  = d * gamma                              the gradient of x_hat
    dx = ( g - mean(g) - x_hat * mean(g * x_hat) ) / std

where mean is over the channel. The second term comes from the mean, the
third from the variance. And, as sums over the channel,

    dgamma = sum(d * x_hat),   dbeta = sum(d)

Two things must come out whatever d is, since neither a shift nor a stretch
of x changes y: dx sums to 0 over a channel, and so does dx * x_hat. Which is
why d must be random in a check: with d all ones, even dx = 0 is right.

A worked example: a channel 1, 3 gives x_hat = -1, 1 and dx = 0 for every d:
two numbers can always be shifted and stretched into -1, 1. Try it.
"""

import numpy as np

from ... import functional as F
from ..format import CHAPTERS, Exercise, Mistake
from ..oracle import gradients
from .e16_batchnorm_forward import _make as make_batch


def batchnorm_backward(d, cache):
    """Gradients of batch normalisation in training.

    d: dL/dy, (N, C, H, W)
    cache: the tuple (x_hat, gamma, std); x_hat (N, C, H, W), gamma and
        std (C,)

    Returns dx (N, C, H, W), dgamma (C,), dbeta (C,).

    >>> x_hat = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    >>> d = np.array([5.0, 8.0]).reshape(2, 1, 1, 1)
    >>> batchnorm_backward(d, (x_hat, np.ones(1), np.ones(1)))[1:]
    (array([3.]), array([13.]))
    """
    x_hat, gamma, std = cache
    axes, column = (0, 2, 3), (1, -1, 1, 1)
    dgamma = (d * x_hat).sum(axis=axes)
    dbeta = d.sum(axis=axes)
    g = d * gamma.reshape(column)
    by_mean = g.mean(axis=axes, keepdims=True)
    by_var = x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
    dx = (g - by_mean - by_var) / std.reshape(column)
    return dx, dgamma, dbeta


def _make(rng, **settings):
    args = make_batch(rng, eps=1e-12, **settings)
    x = args["x"]
    std = x.std(axis=(0, 2, 3))
    x_hat = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / std.reshape(1, -1, 1, 1)
    return {"d": rng.standard_normal(x.shape), "cache": (x_hat, args["gamma"], std)}


def _expected(d, cache):
    x_hat, gamma, std = cache
    x = x_hat * std.reshape(1, -1, 1, 1)

    def operation(x, gamma, beta):
        return F.batch_norm(x, None, None, gamma, beta, training=True, eps=0.0)

    return gradients(operation, d, x, gamma, np.zeros(len(gamma)))


def _pair(function, d, cache):
    axes, column = (0, 2, 3), (1, -1, 1, 1)
    x_hat, gamma, std = cache

    def forward(x, gamma, beta):
        std = x.std(axis=axes)
        x_hat = (x - x.mean(axis=axes, keepdims=True)) / std.reshape(column)
        y = gamma.reshape(column) * x_hat + beta.reshape(column)
        return y, (x_hat, gamma, std)

    def batchnorm_backward(upstream, cache):
        return function(upstream, cache)

    x = x_hat * std.reshape(column)
    return (forward, batchnorm_backward), (x, gamma, np.zeros(len(gamma)))


EXERCISE = Exercise(
    number=17,
    title="batch normalisation, backward",
    chapter=CHAPTERS[2],
    solution=batchnorm_backward,
    make=_make,
    cases={
        "vectors, one channel": {"samples": 5, "channels": 1, "pixels": 1},
        "vectors (H = W = 1)": {"samples": 5, "pixels": 1},
        "one image": {"samples": 1},
        "a batch of images": {},
    },
    expected=_expected,
    pair=_pair,
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        "x reaches y on three paths: directly, through the mean, through the variance. What "
        "does each of them contribute?",
        "With g = d * gamma: the direct path gives g / std, the mean takes away g's mean over "
        "the channel, the variance takes away x_hat times the mean of g * x_hat.",
        "dx = (g - g.mean(axes, keepdims=True) - x_hat * (g * x_hat).mean(axes, keepdims=True)) "
        "/ std.reshape(1, -1, 1, 1).",
    ),
    mistakes=(
        Mistake(
            "through-the-mean",
            "dx lacks the path through the mean",
            "Each x shifts the mean of its channel, and with it all outputs: subtract the mean "
            "of g.",
            edits=(("(g - by_mean - by_var)", "(g - by_var)"),),
        ),
        Mistake(
            "through-the-variance",
            "dx lacks the path through the variance",
            "Each x changes the variance of its channel, and with it all outputs: subtract "
            "x_hat * mean(g * x_hat).",
            edits=(("(g - by_mean - by_var)", "(g - by_mean)"),),
        ),
        Mistake(
            "constants",
            "dx treats mean and variance as constants",
            "That is right in evaluation. In training they are computed from x, and both bring "
            "terms of their own.",
            edits=(("(g - by_mean - by_var)", "g"),),
        ),
        Mistake(
            "gamma",
            "dx lacks the factor gamma",
            "y = gamma * x_hat + beta: the gradient of x_hat is d * gamma.",
            edits=(("g = d * gamma.reshape(column)", "g = d"),),
        ),
        Mistake(
            "std",
            "dx is not divided by the standard deviation",
            "x_hat = (x - mean) / std: the slope is 1 / std.",
            edits=((" / std.reshape(column)", ""),),
        ),
        Mistake(
            "batch-means",
            "dx takes its means over the batch only, not over the pixels",
            "The statistics were taken over axes 0, 2 and 3; so are the means in their gradient.",
            edits=(
                ("g.mean(axis=axes, keepdims=True)", "g.mean(axis=0, keepdims=True)"),
                (
                    "(g * x_hat).mean(axis=axes, keepdims=True)",
                    "(g * x_hat).mean(axis=0, keepdims=True)",
                ),
            ),
        ),
        Mistake(
            "dgamma-averaged",
            "dgamma is averaged, where it must be summed",
            "gamma[c] multiplies each of the M numbers of its channel, and each counts in full.",
            edits=(("(d * x_hat).sum(axis=axes)", "(d * x_hat).mean(axis=axes)"),),
        ),
        Mistake(
            "dgamma-without-x-hat",
            "dgamma is the sum of d, which is dbeta",
            "gamma multiplies x_hat, so its gradient is the sum of d * x_hat.",
            edits=(("(d * x_hat).sum(axis=axes)", "d.sum(axis=axes)"),),
        ),
        Mistake(
            "dbeta-averaged",
            "dbeta is averaged, where it must be summed",
            "beta[c] is added to each of the M numbers of its channel, and each counts in full.",
            edits=(("dbeta = d.sum(axis=axes)", "dbeta = d.mean(axis=axes)"),),
        ),
    ),
    payoff="the best known of all backward passes by hand is behind you.",
)
