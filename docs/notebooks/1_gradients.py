# %% [markdown]
# # Chapter 1: numerical gradients and the graph
#
# Fill in each function, run its cell and the one below: it says whether the function is right, and
# what is wrong with it if not. For gradients it also shows the report of minidl's checker and a
# heat map: what your function returned, what was measured, and where they differ.
#
# `python -m minidl.exercises hint NAME` gives hints.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minidl as md
from minidl.exercises import check


# %% [markdown] tags=["task", "numerical_grad"]
# ## Exercise 1: gradients by finite differences
#
# ```text
# Before any backward pass is written, we want something to hold it against.
# The derivative of f at x is a limit, and a small step h comes close to it:
#
#     df/dx  ~  ( f(x + h) - f(x - h) ) / (2 h)
#
# This central difference errs by about h^2 f'''/6. The one-sided form
# (f(x + h) - f(x)) / h errs by h f''/2, which is thousands of times more.
#
# For an array x and a function f that returns one number, do this for one
# element after the other: move that element alone, ask f twice, put it back.
#
# A worked example: f(x) = x^3 at x = 2 with h = 0.1 gives
# (2.1^3 - 1.9^3) / 0.2 = (9.261 - 6.859) / 0.2 = 12.01; exact is 12.
# One-sided it would be (9.261 - 8) / 0.1 = 12.61.
#
# Everything that follows is checked with this idea (minidl's own checker,
# md.gradcheck, takes five points instead of two).
# ```

# %% tags=["exercise", "numerical_grad"]
def numerical_grad(f, x, h=1e-5):
    """Gradient of f at x by central differences.

    f: takes an array like x, returns one number
    x: array of any shape, of floats or of integers; it stays as it is
    h: the step

    Returns a float64 array of x's shape.

    >>> numerical_grad(lambda x: x[0] ** 3, np.array([2.0]), 0.1).round(6)
    array([12.01])
    """
    raise NotImplementedError


# %%
check("numerical_grad", numerical_grad)

# %% [markdown]
# ### How small should the step be?
#
# Too large, and the curve bends between the two points; too small, and the two values agree in
# nearly all of their 16 digits. Your function, at the sine of 1:

# %%
steps = np.logspace(-12, -1, 45)
right = np.cos(1.0)
errors = [abs(numerical_grad(lambda x: np.sin(x[0]), np.ones(1), h)[0] - right) for h in steps]
one_sided = [abs((np.sin(1 + h) - np.sin(1)) / h - right) for h in steps]
plt.loglog(steps, errors, label="central")
plt.loglog(steps, one_sided, label="one-sided")
plt.xlabel("h")
plt.ylabel("error")
plt.legend()
plt.show()


# %% [markdown] tags=["task", "topo_backward"]
# ## Exercise 2: the backward walk through a graph
#
# ```text
# A network is a graph of small steps. Each step knows its own slopes: for
# y = a * b they are dy/da = b and dy/db = a. The chain rule joins them:
#
#     dL/da  =  sum over all steps y that use a of   dL/dy * dy/da
#
# The sum matters: a value that is used twice gets two contributions, as in
# this diamond, where both paths from x to L count:
#
#           a = x + x
#         /           \
#       x               L = a * b
#         \           /
#           b = x * x
#
# A worked example at x = 3: a = 6, b = 9, L = 54. dL/da = 9, dL/db = 6, so
# dL/dx = 9 * (1 + 1) + 6 * (3 + 3) = 54, and indeed L = 2 x^3, 6 x^2 = 54.
#
# A node may hand its gradient on only when it is complete, that is after all
# nodes that use it: walk the graph in reverse topological order. The graph of
# a deep network is thousands of nodes long, more than Python lets a function
# call itself.
# ```

# %% tags=["exercise", "topo_backward"]
class Node:
    """A number in a graph: its value, what it came from, and its gradient.

    slopes[i] is the derivative of this node with respect to parents[i].
    """

    def __init__(self, value, parents=(), slopes=()):
        self.value = value
        self.parents = parents
        self.slopes = slopes
        self.grad = 0.0

    def __add__(self, other):
        return Node(self.value + other.value, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        slopes = (other.value, self.value)
        return Node(self.value * other.value, (self, other), slopes)


def topo_backward(root):
    """Set the grad of every node below root to d root / d node.

    root: a Node; its own gradient is 1. All gradients are 0 at the start.

    Returns nothing.

    >>> x = Node(3.0)
    >>> topo_backward((x + x) * (x * x))
    >>> x.grad
    54.0
    """
    raise NotImplementedError


# %%
check("topo_backward", topo_backward)


# %% [markdown] tags=["task", "unbroadcast"]
# ## Exercise 3: undoing a broadcast
#
# ```text
# Adding a bias of shape (4,) to a matrix of shape (3, 4) copies the bias into
# each of the three rows. NumPy calls it broadcasting: axes that are missing
# are added in front, axes of size 1 are stretched.
#
# On the way back, each of those copies has a gradient of its own, and by the
# chain rule they are added up:
#
#     forward    y[i, j] = x[i, j] + b[j]
#     backward   db[j]   = sum over i of dy[i, j]
#
# So the gradient g of the large shape becomes one of the small shape by
# summing over every axis that was added or stretched. An axis of size 1 that
# was there before stays, with size 1.
#
# Worked examples, with g of shape (2, 3) and all ones:
#     shape (3,)     [2, 2, 2]           the axis of size 2 was added
#     shape (2, 1)   [[3], [3]]          the axis of size 3 was stretched
#     shape ()       6                   both were added
# ```

# %% tags=["exercise", "unbroadcast"]
def unbroadcast(g, shape):
    """The gradient of an array of this shape that was broadcast to g's.

    g: gradient of the broadcast array
    shape: tuple, the shape before; it can be broadcast to g.shape

    Returns an array of that shape.

    >>> unbroadcast(np.ones((2, 3)), (2, 1))
    array([[3.],
           [3.]])
    """
    raise NotImplementedError


# %%
check("unbroadcast", unbroadcast)


# %% [markdown] tags=["task", "linear_backward"]
# ## Exercise 4: the linear layer
#
# ```text
# A linear layer (also called fully connected) with N samples, D inputs and
# M outputs computes, for each sample n and output m,
#
#     y[n, m] = sum over d of x[n, d] * w[m, d]  +  b[m]
#     y = x @ w.T + b           x (N, D), w (M, D), b (M,), y (N, M)
#
# w has one row for each output, as in minidl and PyTorch. VGG16's first linear
# layer has D = 7 * 7 * 512 = 25,088 and M = 4,096: 102,760,448 weights, three
# quarters of the whole network.
#
# Given dL/dy, the chain rule gives one product for each argument. Write down
# the shapes, and only one arrangement of each product fits:
#
#     dx (N, D)     dw (M, D)     db (M,)
#
# b is broadcast over the batch; exercise 3 says what that means for db.
#
# A worked example: x = [[1, 2]], w = [[3, 4]], dy = [[10]] gives
# dx = [[30, 40]], dw = [[10, 20]], db = [10].
# ```

# %% tags=["exercise", "linear_backward"]
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
    raise NotImplementedError


# %%
check("linear_backward", linear_backward)

# %% [markdown]
# ### The same check for functions of your own
#
# `md.gradcheck` takes any pair of a forward and a backward function. Change a sign in `backward`
# and look at what it says.

# %%
def forward(x):
    return np.tanh(x), x


def backward(upstream, x):
    return upstream * (1 - np.tanh(x) ** 2)


md.gradcheck((forward, backward), np.random.default_rng(0).standard_normal((3, 4)))


# %% [markdown] tags=["task", "relu_backward"]
# ## Exercise 5: the rectified linear unit
#
# ```text
# The rectified linear unit lets positive numbers pass and stops the others:
#
#     y = max(0, x)        dy/dx = 1 where x > 0, 0 where x < 0
#
# so each element of the gradient is either handed on as it is or stopped. It is
# the sign of x, the input of the forward pass, that decides; the gradient that
# arrives may have any sign.
#
# At x = 0 the function has a kink and no derivative. minidl takes 0 there, as
# everybody does; this exercise does not ask.
#
# A worked example: x = [-1, 2, 3], dy = [5, -6, 7] gives dx = [0, -6, 7].
#
# Positive inputs hand their gradient on undiminished, through any number of
# layers: that is why deep networks took to it. A unit that is negative for
# every image gets no gradient, and stays so.
# ```

# %% tags=["exercise", "relu_backward"]
def relu_backward(d, x):
    """Gradient of y = max(0, x).

    d: dL/dy, any shape
    x: the input of the forward pass, the same shape

    Returns dL/dx, the same shape.

    >>> relu_backward(np.array([5.0, -6.0, 7.0]), np.array([-1.0, 2.0, 3.0]))
    array([ 0., -6.,  7.])
    """
    raise NotImplementedError


# %%
check("relu_backward", relu_backward)


# %% [markdown] tags=["task", "softmax_xent"]
# ## Exercise 6: softmax and cross-entropy
#
# ```text
# A classifier ends in C numbers for each image, the logits z. The softmax
# makes probabilities of them, and the cross-entropy asks for the logarithm of
# the one that should be large, that of the right class y[n]:
#
#     prob[n, c] = exp(z[n, c]) / sum over k of exp(z[n, k])
#     loss       = - mean over n of log prob[n, y[n]]
#
# Taken together their gradient is simple, which is why they are taken together:
#
#     dloss/dz[n, c] = ( prob[n, c] - (1 if c == y[n] else 0) ) / N
#
# The 1/N comes from the mean. exp(1000) is inf, but a softmax does not change
# when the same number is subtracted from all logits of an image: subtract the
# largest, then no exp exceeds 1.
#
# A worked example: z = [[0, 0]], y = [1] gives prob = [[1/2, 1/2]],
# loss = log 2 = 0.693 and dz = [[1/2, -1/2]]. A network that knows nothing has
# a loss of log C: with 10 classes 2.303, a number to remember.
# ```

# %% tags=["exercise", "softmax_xent"]
def softmax_xent(z, y):
    """Mean cross-entropy of a softmax, and its gradient.

    z: logits, (N, C)
    y: right classes, (N,), integers from 0 to C - 1

    Returns loss (a number) and dz (N, C).

    >>> loss, dz = softmax_xent(np.zeros((1, 2)), np.array([1]))
    >>> round(float(loss), 3), dz
    (0.693, array([[ 0.5, -0.5]]))
    """
    raise NotImplementedError


# %%
check("softmax_xent", softmax_xent)

# %% [markdown]
# ### What a network that knows nothing should lose
#
# With ten classes, log 10. If the first loss that you see in training is far from it, something is
# wrong before training has begun.

# %%
loss, _ = softmax_xent(np.zeros((5, 10)), np.arange(5))
print(loss, np.log(10))
