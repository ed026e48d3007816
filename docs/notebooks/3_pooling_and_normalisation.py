# %% [markdown]
# # Chapter 3: pooling and normalisation
#
# Layers that have few parameters or none, and backward passes that are easily got wrong. Chapter 2
# is not needed here.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minidl.exercises import check


# %% [markdown] tags=["task", "maxpool_backward"]
# ## Exercise 12: max pooling, backward
#
# ```text
# Max pooling keeps the largest number of each window:
#
#     y[n, c, i, j] = max over r, t of x[n, c, i s + r, j s + t]
#
# The others could be a little different without y noticing, so all of the
# gradient goes to the winner of the window and none to the others. There are
# no parameters.
#
# With a stride smaller than the window, as in AlexNet (3 x 3, stride 2),
# windows overlap, and a number can win several of them: it gets all their
# gradients. Where two numbers in a window are equal, the first in reading
# order wins, and takes all.
#
# A worked example: x = [[1, 5, 2, 5]], windows of one row and two columns at
# stride 1 would be (1, 5), (5, 2), (2, 5). With dy = [[10, 20, 30]]
# dx = [[0, 30, 0, 30]]: the first 5 wins twice.
# ```

# %% tags=["exercise", "maxpool_backward"]
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
    raise NotImplementedError


# %%
check("maxpool_backward", maxpool_backward)


# %% [markdown] tags=["task", "avgpool_backward"]
# ## Exercise 13: average pooling, backward
#
# ```text
# Average pooling replaces each window by its mean. Each of the numbers in a
# window has the same share in it, so each gets the same share of the gradient:
#
#     y[n, c, i, j]   = sum of the window at (i, j) / divisor
#     dx[n, c, u, v]  = sum over the windows that hold (u, v) of dy / divisor
#
# Without padding the divisor is k * k. With padding there are two customs: to
# count the zeros that were added (the divisor stays k * k), or to count only
# the pixels of the image that lie in the window (fewer at the border). The
# frameworks call the switch count_include_pad; here it is count_padding.
#
# A worked example: a 2 x 2 image, window 2, stride 1, padding 1 has nine
# windows. Counting the padding each gets dy / 4, and every pixel lies in four
# windows: with dy all ones, dx is 1 everywhere. Not counting it, the corner
# windows hold one pixel, the edges two, the centre four, and each pixel gets
# 1/1 + 1/2 + 1/2 + 1/4 = 2.25.
# ```

# %% tags=["exercise", "avgpool_backward"]
def avgpool_backward(d, cache):
    """Gradient of average pooling.

    d: dL/dy, (N, C, P, Q)
    cache: the tuple (shape, k, s, p, count_padding): shape of x (N, C, H, W),
        window k x k, stride s, padding p, and the custom, True or False

    Returns dx, of that shape.

    >>> d = np.ones((1, 1, 3, 3))
    >>> avgpool_backward(d, ((1, 1, 2, 2), 2, 1, 1, False))
    array([[[[2.25, 2.25],
             [2.25, 2.25]]]])
    """
    raise NotImplementedError


# %%
check("avgpool_backward", avgpool_backward)


# %% [markdown] tags=["task", "dropout"]
# ## Exercise 14: dropout
#
# ```text
# Dropout switches units off at random while training, each with probability
# p, so that no unit can rely on another. What is left is scaled up, so that a
# sum over many units stays what it was on average:
#
#     training     y = x * slope,  slope = 0 with probability p,
#                                  slope = 1 / (1 - p) otherwise
#     evaluation   y = x,          slope = 1
#
# E[slope] = p * 0 + (1 - p) / (1 - p) = 1, so E[y] = x, and nothing needs to be
# done in evaluation. The slope is also what the backward pass multiplies by,
# dL/dx = dL/dy * slope: the same mask, with the same scale.
#
# The original paper scaled in evaluation instead, by the probability of being
# kept. (A lecture among our sources says: by the probability of being set to
# zero. With p = 1/2 nobody notices.)
#
# A worked example: p = 0.2 keeps 4 of 5 units and scales them by 1.25. With
# draws [0.1, 0.5, 0.9], x = [1, 2, 3] becomes [0, 2.5, 3.75].
#
# Draw the numbers as rng.random(x.shape), and drop where a number is below p:
# then your mask can be compared.
# ```

# %% tags=["exercise", "dropout"]
def dropout(x, p, rng, train):
    """Dropout, scaled in training.

    x: any shape
    p: probability of being dropped, 0 <= p < 1
    rng: a NumPy generator; one draw for each element, rng.random(x.shape)
    train: True or False

    Returns y and slope, both of x's shape.

    >>> y, slope = dropout(np.ones(4), 0.5, np.random.default_rng(1), True)
    >>> y, slope
    (array([2., 2., 0., 2.]), array([2., 2., 0., 2.]))
    """
    raise NotImplementedError


# %%
check("dropout", dropout)

# %% [markdown]
# ### The sum stays what it was, on average
#
# A thousand runs of dropout over the same numbers: their sums scatter around the sum without it.

# %%
rng = np.random.default_rng(0)
numbers = rng.uniform(0, 1, 200)
plt.hist([dropout(numbers, 0.5, rng, True)[0].sum() for _ in range(1000)], 40)
plt.axvline(numbers.sum(), color="black", label="without dropout")
plt.legend()
plt.show()


# %% [markdown] tags=["task", "lrn_backward"]
# ## Exercise 15: local response normalisation, backward
#
# ```text
# AlexNet's local response normalisation divides each number by a scale that
# its neighbours in the channel direction set, n of them around it (n odd,
# fewer at the first and last channels):
#
#     scale[i] = k + alpha * sum over j in window(i) of x[j]^2
#     y[i]     = x[i] * scale[i]^(-beta)
#
# for every image and pixel separately; i and j are channels, and window(i) is
# the channels from i - n//2 to i + n//2 that exist. alpha is not divided by n.
#
# x[i] has an effect on its own y[i], and on the scale of each channel whose
# window holds it, which are again those in window(i):
#
#     dx[i] = d[i] * scale[i]^(-beta)
#             - 2 alpha beta x[i] * sum over j in window(i) of
#                                   d[j] x[j] scale[j]^(-beta - 1)
#
# The paper's alpha is 0.0001, and with it the second line can be left out
# without anybody noticing. It is checked with alpha near 1.
#
# A worked example: one channel, n = 1, k = 1, alpha = 1, beta = 1:
# y = x / (1 + x^2), dy/dx = (1 - x^2) / (1 + x^2)^2; at x = 2 it is -3/25.
# ```

# %% tags=["exercise", "lrn_backward"]
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
    raise NotImplementedError


# %%
check("lrn_backward", lrn_backward)


# %% [markdown] tags=["task", "batchnorm_forward"]
# ## Exercise 16: batch normalisation, forward
#
# ```text
# Batch normalisation gives each channel mean 0 and variance 1, over all
# images and pixels of the batch, and then a scale and an offset to learn:
#
#     mean[c] = mean of x[:, c, :, :]        M = N H W numbers
#     var[c]  = mean of (x - mean)^2         divided by M
#     y       = gamma * (x - mean) / sqrt(var + eps) + beta
#
# In evaluation there may be one image only, so training keeps running averages
# and evaluation uses them in the place of mean and var:
#
#     running = (1 - momentum) * running + momentum * batch
#
# The running variance takes the unbiased estimate, var * M / (M - 1); what
# divides in training is the biased one. Evaluation changes nothing.
#
# A worked example: one channel with the numbers 1, 3: mean 2, var 1, so y is
# -1, 1 (for a tiny eps). With momentum 0.1, a running mean of 0 and variance
# of 1 become 0.2 and 0.9 * 1 + 0.1 * 2 = 1.1.
# ```

# %% tags=["exercise", "batchnorm_forward"]
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
    raise NotImplementedError


# %%
check("batchnorm_forward", batchnorm_forward)

# %% [markdown]
# ### Whatever comes in
#
# Two channels of very different size before and after.

# %%
batch = rng.standard_normal((64, 2, 5, 5)) * [[[[5.0]], [[0.3]]]] + [[[[8.0]], [[-2.0]]]]
state = {"train": True, "momentum": 0.1, "eps": 1e-5, "mean": np.zeros(2), "var": np.ones(2)}
normalised = batchnorm_forward(batch, np.ones(2), np.zeros(2), state)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, array, title in zip(axes, (batch, normalised), ("before", "after")):
    axis.hist([array[:, 0].ravel(), array[:, 1].ravel()], 50, histtype="step")
    axis.set_title(title)
plt.show()


# %% [markdown] tags=["task", "batchnorm_backward"]
# ## Exercise 17: batch normalisation, backward
#
# ```text
# In training, each number of a channel goes into the channel's mean and
# variance, and through these into every output of the channel. With
#
#     x_hat = (x - mean) / std,   std = sqrt(var + eps),
#     y     = gamma * x_hat + beta
#
# and M = N H W numbers in a channel, the three paths add up to
#
#     g  = d * gamma                              the gradient of x_hat
#     dx = ( g - mean(g) - x_hat * mean(g * x_hat) ) / std
#
# where mean is over the channel. The second term comes from the mean, the
# third from the variance. And, as sums over the channel,
#
#     dgamma = sum(d * x_hat),   dbeta = sum(d)
#
# Two things must come out whatever d is, since neither a shift nor a stretch
# of x changes y: dx sums to 0 over a channel, and so does dx * x_hat. Which is
# why d must be random in a check: with d all ones, even dx = 0 is right.
#
# A worked example: a channel 1, 3 gives x_hat = -1, 1 and dx = 0 for every d:
# two numbers can always be shifted and stretched into -1, 1. Try it.
# ```

# %% tags=["exercise", "batchnorm_backward"]
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
    raise NotImplementedError


# %%
check("batchnorm_backward", batchnorm_backward)

