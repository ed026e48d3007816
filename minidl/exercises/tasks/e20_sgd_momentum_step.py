"""Gradient descent moves each parameter against its gradient. Momentum lets
it roll: a velocity v remembers past gradients and smooths their noise.
Weight decay pulls the parameter towards zero, as a penalty on its square
does, whose gradient is decay * p:

    g  <-  g + decay * p
    v  <-  momentum * v + g
    p  <-  p - lr * v

The order matters when the learning rate changes on the way: here, as in
minidl and PyTorch, the velocity holds gradients and the learning rate stands
outside. AlexNet was trained so, with lr 0.01, momentum 0.9, decay 0.0005 and
a batch of 128.

A worked example: p = 1, v = 0.5, g = 2, lr = 0.1, momentum = 0.9, decay = 0.1
gives g = 2.1, v = 0.45 + 2.1 = 2.55, p = 1 - 0.255 = 0.745.

With a constant gradient the velocity grows to g / (1 - momentum): ten times
the gradient for 0.9.
"""

import numpy as np

from ...optim import SGD
from ...tensor import Tensor
from ..format import CHAPTERS, Exercise, Mistake, distinct


def sgd_momentum_step(p, g, v, lr, momentum=0.9, decay=0.0):
    """One step of stochastic gradient descent with momentum and weight decay.

    p, g, v: parameter, its gradient and its velocity, one shape
    lr, momentum, decay: numbers

    Returns the new p and the new v; the old ones stay as they are.

    >>> one = np.ones(1)
    >>> sgd_momentum_step(one, 2 * one, 0.5 * one, 0.1, 0.9, 0.1)
    (array([0.745]), array([2.55]))
    """
    g = g + decay * p
    v = momentum * v + g
    return p - lr * v, v


STEPS = 5


def _make(rng, rates, momentum=0.0, decay=0.0):
    shape = tuple(distinct(rng, 2))
    return {
        "p": rng.standard_normal(shape),
        "gradients": rng.standard_normal((STEPS, *shape)),
        "v": np.zeros(shape),
        "rates": rates,
        "momentum": momentum,
        "decay": decay,
    }


def _call(function, args):
    """Where several steps lead, each with its own gradient and learning rate."""
    p, v = args["p"], args["v"]
    for g, lr in zip(args["gradients"], args["rates"], strict=True):
        new = function(p, g, v, lr, args["momentum"], args["decay"])
        if not isinstance(new, tuple) or len(new) != 2:
            return new
        p, v = new
    return p, v


def _expected(p, gradients, v, rates, momentum, decay):
    parameter = Tensor(p.copy(), requires_grad=True)
    optimizer = SGD([parameter], lr=1.0, momentum=momentum, weight_decay=decay)
    for g, lr in zip(gradients, rates, strict=True):
        before = parameter.data.copy()
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = Tensor(g)
        optimizer.step()
        v = (before - parameter.data) / lr
    return parameter.data, v


CONSTANT, FALLING = (0.1,) * STEPS, (0.4, 0.2, 0.2, 0.1, 0.05)

EXERCISE = Exercise(
    number=20,
    title="a step of gradient descent",
    chapter=CHAPTERS[3],
    solution=sgd_momentum_step,
    make=_make,
    cases={
        "plain gradient descent": {"rates": CONSTANT},
        "momentum": {"rates": CONSTANT, "momentum": 0.9},
        "a falling learning rate": {"rates": FALLING, "momentum": 0.9},
        "weight decay": {"rates": CONSTANT, "decay": 0.1},
        "all of it": {"rates": FALLING, "momentum": 0.8, "decay": 0.3},
    },
    call=_call,
    expected=_expected,
    outputs=("p", "v"),
    hints=(
        "Three lines, one for each line of the task. Which p does the decay see, and which v "
        "moves p?",
        "Make new arrays: g = g + decay * p leaves the caller's g alone, g += decay * p does not.",
        "g = g + decay * p; v = momentum * v + g; return p - lr * v, v.",
    ),
    mistakes=(
        Mistake(
            "lr-in-the-velocity",
            "the learning rate is inside of the velocity",
            "v = momentum v + lr g leads to the same place while the learning rate is constant. "
            "When it falls, old steps keep their old size.",
            edits=(("momentum * v + g", "momentum * v + lr * g"), ("p - lr * v", "p - v")),
        ),
        Mistake(
            "velocity-downhill",
            "the velocity holds steps (minus lr times the gradient), not gradients",
            "v = momentum v - lr g with p = p + v is another custom. When the learning rate "
            "falls, its old steps keep their old size; here lr stands outside.",
            edits=(("momentum * v + g", "momentum * v - lr * g"), ("p - lr * v", "p + v")),
        ),
        Mistake(
            "old-velocity",
            "the parameter moves by the old velocity, where it must move by the new one",
            "First v, then p: the gradient just computed counts at once.",
            edits=(
                (
                    "    v = momentum * v + g\n    return p - lr * v, v",
                    "    return p - lr * v, momentum * v + g",
                ),
            ),
        ),
        Mistake(
            "dampened",
            "the gradient is multiplied by 1 - momentum",
            "That is an average of gradients; here they are summed up: v = momentum v + g.",
            edits=(("momentum * v + g", "momentum * v + (1 - momentum) * g"),),
        ),
        Mistake(
            "decay-after",
            "the weight decay passes the velocity by: it is applied to the parameter itself",
            "That is decoupled decay, as in AdamW. In SGD decay * p is part of the gradient.",
            edits=(("    g = g + decay * p\n", ""), ("p - lr * v", "p - lr * (v + decay * p)")),
        ),
        Mistake(
            "decay-without-lr",
            "the weight decay is not multiplied by the learning rate",
            "decay * p is added to the gradient, before the learning rate.",
            edits=(("    g = g + decay * p\n", ""), ("p - lr * v", "p - lr * v - decay * p")),
        ),
        Mistake(
            "decay-sign",
            "the weight decay has the wrong sign: it pushes parameters away from zero",
            "The penalty decay / 2 * p^2 has the gradient + decay * p.",
            edits=(("g + decay * p", "g - decay * p"),),
        ),
        Mistake(
            "decay-forgotten",
            "the weight decay is left out",
            "decay * p is added to the gradient.",
            edits=(("g + decay * p", "g + 0.0"),),
        ),
        Mistake(
            "nesterov",
            "the parameter moves as in Nesterov's momentum, which looks one step ahead",
            "Here p moves by lr * v; Nesterov's by lr * (g + momentum * v).",
            edits=(("p - lr * v", "p - lr * (g + momentum * v)"),),
        ),
        Mistake(
            "g-changed",
            "the caller's g is changed",
            "g += ... writes into the caller's array. g = g + ... makes a new one.",
            edits=(("g = g + decay * p", "g += decay * p"),),
        ),
        Mistake(
            "uphill",
            "the step leads uphill",
            "The gradient points to where the loss grows: subtract.",
            edits=(("p - lr * v", "p + lr * v"),),
        ),
    ),
    payoff="that was the last one: the capstone puts them together and trains LeNet.",
)
