# %% [markdown]
# # Chapter 4: assembling and training LeNet
#
# This chapter builds on your answers in the folder that `python -m minidl.exercises start` made.
# Set `FOLDER` to where it is.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minidl as md
from minidl.exercises import check

FOLDER = Path("minidl-exercises")
sys.path.insert(0, str(FOLDER.resolve()))

from e04_linear_backward import linear_backward
from e05_relu_backward import relu_backward


# %% [markdown] tags=["task", "residual_backward"]
# ## Exercise 18: a residual block
#
# ```text
# A deep stack of layers is hard to train; ResNet lets each block learn only
# what to add to its input:
#
#     y = F(x) + x                   the same width on both sides
#     y = F(x) + x @ proj.T          if the width changes
#
# Here F is two linear layers (without bias) and a ReLU between them:
#
#     h = x @ w1.T,   F(x) = relu(h) @ w2.T
#
# Addition hands the gradient on to both of its terms undiminished. So it goes
# two ways and is added up where they meet:
#
#     dx = (what comes back through F)  +  (what comes back through the skip)
#
# With the identity the second is d itself: dy/dx = dF/dx + 1. However small
# the weights of F are, the gradient reaches the layers below.
#
# A worked example with single numbers: x = 2, w1 = 3, w2 = 4, d = 1. h = 6, so
# through F come 1 * 4 * 3 = 12, through the skip comes 1: dx = 13. dw2 = 6,
# dw1 = 4 * 2 = 8.
#
# Your linear_backward and relu_backward do most of it.
# ```

# %% tags=["exercise", "residual_backward"]
def residual_backward(d, x, w1, w2, proj=None):
    """Gradients of y = relu(x @ w1.T) @ w2.T + skip.

    d: dL/dy, (N, M)
    x: (N, D), w1: (E, D), w2: (M, E)
    proj: (M, D) if the skip is x @ proj.T, or None if it is x itself

    Returns dx, dw1, dw2, dproj; dproj is None if proj is.

    >>> d = np.ones((1, 1))
    >>> residual_backward(d, 2 * d, 3 * d, 4 * d)[0]
    array([[13.]])
    """
    raise NotImplementedError


# %%
check("residual_backward", residual_backward)


# %% [markdown] tags=["task", "concat_backward"]
# ## Exercise 19: concatenation
#
# ```text
# An Inception module computes several things from the same input and puts
# the results one behind the other, along the channels:
#
#     y = concatenate([x1, x2, x3, x4], axis=1)
#
# Nothing is computed, so nothing is computed on the way back: every part gets
# the channels of the gradient that it gave to y, in the same order. What needs
# care is where each part begins: behind all parts before it.
#
#     part        1          2          3          4
#     channels  0 .. 127, 128 .. 319, 320 .. 415, 416 .. 671
#
# A worked example, GoogLeNet's naive module from the lectures: 28 x 28 places
# and 128 + 192 + 96 + 256 channels make 28 x 28 x 672 numbers, 526,848 of them
# (the lectures print 529k). The second part's gradient is d[:, 128:320].
# ```

# %% tags=["exercise", "concat_backward"]
def concat_backward(d, sizes):
    """Gradients of the parts of a concatenation along axis 1.

    d: dL/dy, (N, C, H, W)
    sizes: list of the parts' numbers of channels; they add up to C

    Returns a list with one array for each part.

    >>> d = np.arange(6.0).reshape(1, 6, 1, 1)
    >>> [part.ravel() for part in concat_backward(d, [1, 2, 3])]
    [array([0.]), array([1., 2.]), array([3., 4., 5.])]
    """
    raise NotImplementedError


# %%
check("concat_backward", concat_backward)


# %% [markdown] tags=["task", "sgd_momentum_step"]
# ## Exercise 20: a step of gradient descent
#
# ```text
# Gradient descent moves each parameter against its gradient. Momentum lets
# it roll: a velocity v remembers past gradients and smooths their noise.
# Weight decay pulls the parameter towards zero, as a penalty on its square
# does, whose gradient is decay * p:
#
#     g  <-  g + decay * p
#     v  <-  momentum * v + g
#     p  <-  p - lr * v
#
# The order matters when the learning rate changes on the way: here, as in
# minidl and PyTorch, the velocity holds gradients and the learning rate stands
# outside. AlexNet was trained so, with lr 0.01, momentum 0.9, decay 0.0005 and
# a batch of 128.
#
# A worked example: p = 1, v = 0.5, g = 2, lr = 0.1, momentum = 0.9, decay = 0.1
# gives g = 2.1, v = 0.45 + 2.1 = 2.55, p = 1 - 0.255 = 0.745.
#
# With a constant gradient the velocity grows to g / (1 - momentum): ten times
# the gradient for 0.9.
# ```

# %% tags=["exercise", "sgd_momentum_step"]
def sgd_momentum_step(p, g, v, lr, momentum=0.9, decay=0.0):
    """One step of stochastic gradient descent with momentum and weight decay.

    p, g, v: parameter, its gradient and its velocity, one shape
    lr, momentum, decay: numbers

    Returns the new p and the new v; the old ones stay as they are.

    >>> one = np.ones(1)
    >>> sgd_momentum_step(one, 2 * one, 0.5 * one, 0.1, 0.9, 0.1)
    (array([0.745]), array([2.55]))
    """
    raise NotImplementedError


# %%
check("sgd_momentum_step", sgd_momentum_step)

# %% [markdown]
# ### Rolling down a valley
#
# The same twenty steps with and without momentum, in a valley ten times as steep across as along.

# %%
def path(momentum, lr):
    p, v, places = np.array([-4.0, 1.0]), np.zeros(2), []
    for _ in range(20):
        places.append(p)
        p, v = sgd_momentum_step(p, p * [1.0, 10.0], v, lr, momentum, 0.0)
    return np.array(places)


for momentum in (0.0, 0.7):
    plt.plot(*path(momentum, 0.05).T, marker=".", label=f"momentum {momentum}")
plt.legend()
plt.show()

# %% [markdown]
# ## The capstone: LeNet from your own functions
#
# `lenet.py` in your folder puts them together; read it first. Then it learns 64 images by heart. If
# it does, all of your gradients are right.

# %%
import lenet

images, labels = md.data.load(channels=1, image_size=28).train.batch(range(64))
losses, known = lenet.train(images.astype(float), labels)
plt.plot(losses)
plt.xlabel("rounds through the images")
plt.ylabel("mean loss")
plt.title(f"{known} of {len(labels)} images known")
plt.show()
