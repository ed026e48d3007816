"""A classifier ends in C numbers for each image, the logits z. The softmax
makes probabilities of them, and the cross-entropy asks for the logarithm of
the one that should be large, that of the right class y[n]:

    prob[n, c] = exp(z[n, c]) / sum over k of exp(z[n, k])
    loss       = - mean over n of log prob[n, y[n]]

Taken together their gradient is simple, which is why they are taken together:

    dloss/dz[n, c] = ( prob[n, c] - (1 if c == y[n] else 0) ) / N

The 1/N comes from the mean. exp(1000) is inf, but a softmax does not change
when the same number is subtracted from all logits of an image: subtract the
largest, then no exp exceeds 1.

A worked example: z = [[0, 0]], y = [1] gives prob = [[1/2, 1/2]],
loss = log 2 = 0.693 and dz = [[1/2, -1/2]]. A network that knows nothing has
a loss of log C: with 10 classes 2.303, a number to remember.
"""

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake, distinct
from ..oracle import tensors


def softmax_xent(z, y):
    """Mean cross-entropy of a softmax, and its gradient.

    z: logits, (N, C)
    y: right classes, (N,), integers from 0 to C - 1

    Returns loss (a number) and dz (N, C).

    >>> loss, dz = softmax_xent(np.zeros((1, 2)), np.array([1]))
    >>> round(float(loss), 3), dz
    (0.693, array([[ 0.5, -0.5]]))
    """
    n = len(z)
    shifted = z - z.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    log_prob = shifted - np.log(total)
    loss = -log_prob[np.arange(n), y].mean()
    dz = np.exp(log_prob)
    dz[np.arange(n), y] -= 1
    return loss, dz / n


def _make(rng, samples=None, shift=0.0, spread=0.0, scale=1.0):
    n, classes = distinct(rng, 2, 3, 8)
    n = samples or n
    z = scale * rng.standard_normal((n, classes)) + shift
    z += spread * np.linspace(-1, 1, n)[:, None]
    return {"z": z, "y": rng.integers(0, classes, n)}


def _expected(z, y):
    (logits,) = tensors(z)
    loss = F.cross_entropy(logits, Tensor(y))
    loss.backward()
    return loss.data, logits.grad.data


def _pair(function, z, y):
    def forward(z):
        return F.cross_entropy(Tensor(z), Tensor(y)).data

    def softmax_xent(upstream, z):
        _, dz = function(z, y)
        return upstream * dz

    return (forward, softmax_xent), z


EXERCISE = Exercise(
    number=6,
    title="softmax and cross-entropy",
    chapter=CHAPTERS[0],
    solution=softmax_xent,
    make=_make,
    cases={
        "one image": {"samples": 1},
        "equal logits: the loss is log C": {"samples": 1, "scale": 0.0},
        "a batch": {},
        "logits around 1000": {"shift": 1000.0},
        "one image's logits far above another's": {"spread": 1000.0},
    },
    expected=_expected,
    pair=_pair,
    outputs=("loss", "dz"),
    hints=(
        "Three steps: shift the logits, compute log-probabilities, pick the right class. The "
        "gradient is the probabilities with 1 subtracted in one place of each row.",
        "log prob = shifted - log(sum of exp(shifted)), with the sum over axis 1 and "
        "keepdims=True. log_prob[np.arange(n), y] picks one element of each row.",
        "dz = np.exp(log_prob); dz[np.arange(n), y] -= 1; return loss, dz / n.",
    ),
    mistakes=(
        Mistake(
            "no-shift",
            "large logits overflow: the largest is not subtracted first",
            "exp(1000) is inf, and inf / inf is nan. Subtract each row's maximum: the "
            "probabilities do not change.",
            edits=(("z - z.max(axis=1, keepdims=True)", "z"),),
        ),
        Mistake(
            "shift-of-the-batch",
            "the largest logit of the whole batch is subtracted, not of each image",
            "Another image's logits may be far larger; then all exp of this one are 0, and the "
            "logarithm of their sum is -inf.",
            edits=(("z.max(axis=1, keepdims=True)", "z.max()"),),
        ),
        Mistake(
            "loss-not-averaged",
            "the loss is not divided by N",
            "It is the mean over the batch, so that it does not grow with the batch.",
            edits=((".mean()", ".sum()"),),
        ),
        Mistake(
            "gradient-not-averaged",
            "the gradient is not divided by N",
            "The loss is a mean, so each image counts 1/N.",
            edits=(("dz / n", "dz"),),
        ),
        Mistake(
            "neither-averaged",
            "neither the loss nor its gradient is divided by N",
            "The loss is the mean over the batch, so each image counts 1/N, also in the gradient.",
            edits=((".mean()", ".sum()"), ("dz / n", "dz")),
        ),
        Mistake(
            "one-not-subtracted",
            "1 is not subtracted at the right class: the gradient is the bare probabilities",
            "Without it every logit is pushed down, the right one too.",
            edits=(("    dz[np.arange(n), y] -= 1\n", ""),),
        ),
        Mistake(
            "over-the-batch",
            "the probabilities are normalised over the batch, not over the classes",
            "The C probabilities of one image sum to 1: axis 1.",
            edits=((".sum(axis=1, keepdims=True)", ".sum(axis=0, keepdims=True)"),),
        ),
        Mistake(
            "negated",
            "the logits are negated: exp(-z) stands where exp(z) belongs",
            "The largest logit shall have the largest probability. (A lecture among our sources "
            "prints the softmax with exp(-a).)",
            edits=(("shifted = z - z.max(", "shifted = -z - (-z).max("),),
        ),
        Mistake(
            "sign",
            "the gradient has the wrong sign: it leads uphill",
            "Probability minus one-hot: the right class has a negative gradient.",
            edits=(("dz / n", "-dz / n"),),
        ),
    ),
    payoff="you have all that a small classifier needs; images come next.",
)
