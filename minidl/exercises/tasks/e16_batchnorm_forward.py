"""Batch normalisation gives each channel mean 0 and variance 1, over all
images and pixels of the batch, and then a scale and an offset to learn:

    mean[c] = mean of x[:, c, :, :]        M = N H W numbers
    var[c]  = mean of (x - mean)^2         divided by M
    y       = gamma * (x - mean) / sqrt(var + eps) + beta

In evaluation there may be one image only, so training keeps running averages
and evaluation uses them in the place of mean and var:

    running = (1 - momentum) * running + momentum * batch

The running variance takes the unbiased estimate, var * M / (M - 1); what
divides in training is the biased one. Evaluation changes nothing.

A worked example: one channel with the numbers 1, 3: mean 2, var 1, so y is
-1, 1 (for a tiny eps). With momentum 0.1, a running mean of 0 and variance
of 1 become 0.2 and 0.9 * 1 + 0.1 * 2 = 1.1.
"""

import copy

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake, distinct


def batchnorm_forward(x, gamma, beta, state):
    """Batch normalisation, in training and evaluation.

    x: (N, C, H, W), gamma and beta: (C,)
    state: a dict with train (True or False), momentum, eps, and the running
        averages mean and var (C,), which training replaces by new arrays

    Returns y, of x's shape.

    >>> state = dict(train=True, momentum=0.1, eps=1e-9,
    ...              mean=np.zeros(1), var=np.ones(1))
    >>> x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> batchnorm_forward(x, np.ones(1), np.zeros(1), state).ravel().round(6)
    array([-1.,  1.])
    >>> state["mean"], state["var"]
    (array([0.2]), array([1.1]))
    """
    mean, var = state["mean"], state["var"]
    if state["train"]:
        mean = x.mean(axis=(0, 2, 3))
        var = x.var(axis=(0, 2, 3))
        m = x.size // x.shape[1]
        new = state["momentum"]
        state["mean"] = (1 - new) * state["mean"] + new * mean
        state["var"] = (1 - new) * state["var"] + new * var * m / (m - 1)
    column = (1, -1, 1, 1)
    x_hat = x - mean.reshape(column)
    x_hat = x_hat / np.sqrt(var + state["eps"]).reshape(column)
    return gamma.reshape(column) * x_hat + beta.reshape(column)


def _for_each_pixel(x, gamma, beta, state):
    y = batchnorm_forward(x, gamma, beta, state)
    if not state["train"]:
        return y
    x_hat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + state["eps"])
    return gamma.reshape(1, -1, 1, 1) * x_hat + beta.reshape(1, -1, 1, 1)


def _make(rng, samples=None, pixels=None, channels=None, train=True, momentum=0.1, eps=1e-5):
    n, c, height, width = distinct(rng, 4, 2, 6)
    n, c = samples or n, channels or c
    height, width = (pixels, pixels) if pixels else (height, width)
    offset, size = rng.uniform(-3, 3, (1, c, 1, 1)), rng.uniform(0.3, 3, (1, c, 1, 1))
    return {
        "x": offset + size * rng.standard_normal((n, c, height, width)),
        "gamma": rng.uniform(0.5, 1.5, c),
        "beta": rng.standard_normal(c),
        "state": {
            "train": train,
            "momentum": momentum,
            "eps": eps,
            "mean": rng.standard_normal(c),
            "var": rng.uniform(0.5, 2.0, c),
        },
    }


def _call(function, args):
    state = copy.deepcopy(args["state"])
    y = function(args["x"], args["gamma"], args["beta"], state)
    return y, state["mean"], state["var"]


def _expected(x, gamma, beta, state):
    mean, var = Tensor(state["mean"].copy()), Tensor(state["var"].copy())
    y = F.batch_norm(
        Tensor(x),
        mean,
        var,
        Tensor(gamma),
        Tensor(beta),
        training=state["train"],
        momentum=state["momentum"],
        eps=state["eps"],
    )
    return y.data, mean.data, var.data


EXERCISE = Exercise(
    number=16,
    title="batch normalisation, forward",
    chapter=CHAPTERS[2],
    solution=batchnorm_forward,
    make=_make,
    cases={
        "evaluation": {"train": False},
        "training, vectors (H = W = 1)": {"samples": 5, "pixels": 1},
        "training, one channel": {"channels": 1},
        "training, images": {},
        "another momentum": {"momentum": 0.4},
        "a large eps": {"eps": 0.5},
        "evaluation, a large eps": {"train": False, "eps": 0.5},
    },
    call=_call,
    expected=_expected,
    outputs=("y", "running mean", "running var"),
    hints=(
        "Which axes does a mean for each channel run over? Which numbers normalise in training, "
        "which in evaluation, and when do the running ones change?",
        "x.mean(axis=(0, 2, 3)) and x.var(axis=(0, 2, 3)) have shape (C,); reshape them to "
        "(1, C, 1, 1) to combine them with x. The running variance gets var * m / (m - 1) with "
        "m = N H W.",
        "state['mean'] = (1 - momentum) * state['mean'] + momentum * mean, the same for var with "
        "the unbiased one; y = gamma * (x - mean) / np.sqrt(var + eps) + beta.",
    ),
    mistakes=(
        Mistake(
            "axes",
            "mean and variance are taken over the batch only, for each pixel of its own",
            "In a convolutional network all places of a channel share their statistics, as they "
            "share their filter: axes 0, 2 and 3.",
            function=_for_each_pixel,
        ),
        Mistake(
            "running-var-biased",
            "the running variance takes the biased estimate, where it must be the unbiased one",
            "Evaluation needs the variance of all images, for which var * M / (M - 1) is the "
            "estimate.",
            edits=((" * m / (m - 1)", ""),),
        ),
        Mistake(
            "normalised-by-unbiased",
            "training divides by the unbiased variance, where it must be the biased one",
            "The batch itself shall have variance 1: divide by M. The unbiased estimate belongs "
            "into the running variance.",
            edits=(
                ("x.var(axis=(0, 2, 3))", "x.var(axis=(0, 2, 3), ddof=1)"),
                (" * m / (m - 1)", ""),
            ),
        ),
        Mistake(
            "momentum-swapped",
            "the momentum is swapped: the running averages keep it, where they must take it",
            "running = (1 - momentum) * running + momentum * batch, as in PyTorch; other "
            "frameworks write it the other way round.",
            edits=(('new = state["momentum"]', 'new = 1 - state["momentum"]'),),
        ),
        Mistake(
            "eps-outside",
            "eps is added to the standard deviation, where it must be added to the variance",
            "sqrt(var + eps), not sqrt(var) + eps.",
            edits=(('np.sqrt(var + state["eps"])', '(np.sqrt(var) + state["eps"])'),),
        ),
        Mistake(
            "batch-in-evaluation",
            "evaluation uses the statistics of the batch",
            "An image's prediction would depend on the other images. Use the running averages.",
            edits=(
                ('    if state["train"]:\n        mean = x', "    mean = x"),
                (
                    "        var = x.var(axis=(0, 2, 3))\n",
                    '    var = x.var(axis=(0, 2, 3))\n    if state["train"]:\n',
                ),
            ),
        ),
        Mistake(
            "updated-in-evaluation",
            "evaluation changes the running averages",
            "Looking at a model must not change it.",
            edits=(
                (
                    "    column = (1, -1, 1, 1)",
                    '    if not state["train"]:\n'
                    '        m, new = x.size // x.shape[1], state["momentum"]\n'
                    "        got, spread = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))\n"
                    '        state["mean"] = (1 - new) * mean + new * got\n'
                    '        state["var"] = (1 - new) * var + new * spread * m / (m - 1)\n'
                    "    column = (1, -1, 1, 1)",
                ),
            ),
        ),
        Mistake(
            "not-kept",
            "the running averages are not updated",
            "Evaluation depends on them: replace state['mean'] and state['var'] in training.",
            edits=(
                ('        state["mean"] = (1 - new) * state["mean"] + new * mean\n', ""),
                (
                    '        state["var"] = (1 - new) * state["var"] + new * var * m / (m - 1)\n',
                    "",
                ),
            ),
        ),
    ),
    payoff="every network since 2015 stands on this; without it ResNets do not train.",
)
