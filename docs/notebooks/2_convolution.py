# %% [markdown]
# # Chapter 2: convolution
#
# From the size of the output to the backward pass. The functions of this chapter call each other,
# so do them in order.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minidl as md
from minidl.exercises import check


# %% [markdown] tags=["task", "conv_out_size"]
# ## Exercise 7: the size of a convolution's output
#
# ```text
# A window of k pixels slides along n pixels in steps of s (the stride). On
# either side p zeros are added first (the padding). With dilation d, the
# window's k pixels are d apart, so it covers d (k - 1) + 1 pixels.
#
#     p zeros     n pixels          p zeros
#     0 0 | . . . . . . . . . . . | 0 0
#     [k k k]
#       ->  [k k k]           in steps of s
#
# How many positions are there at which it fits? The first one takes
# d (k - 1) + 1 pixels; whatever is left, divided by s, gives further ones. An
# incomplete step gives none.
#
# Worked examples, from the lectures' questions:
#     7 pixels, window 3, stride 1                5 positions
#     7 pixels, window 3, stride 2                3 positions
#     AlexNet's first layer: 227, window 11, stride 4     (227 - 11) / 4 + 1 = 55
#     its first pooling: 55, window 3, stride 2           (55 - 3) / 2 + 1 = 27
#
# One lecture gives that first layer an image of 224 pixels and no padding, and
# 55 positions all the same. Check it when you are done.
# ```

# %% tags=["exercise", "conv_out_size"]
def conv_out_size(n, k, s=1, p=0, d=1):
    """Number of positions of a window.

    n: pixels, k: window, s: stride, p: padding on either side, d: dilation;
    integers. The window fits at least once.

    Returns an integer.

    >>> conv_out_size(227, 11, s=4), conv_out_size(55, 3, s=2)
    (55, 27)
    """
    raise NotImplementedError


# %%
check("conv_out_size", conv_out_size)


# %% [markdown] tags=["task", "conv2d_naive"]
# ## Exercise 8: convolution by its definition
#
# ```text
# A convolutional layer puts a small filter on each place of an image and
# multiplies and adds what lies under it. With N images x of C channels and K
# filters w, each over all channels:
#
#     y[n, k, i, j] = b[k] + sum over c, r, t of
#                     x[n, c, i s + r, j s + t] * w[k, c, r, t]
#
# after p zeros have been added around the image.
#
#     x (N, C, H, W)     w (K, C, R, S)     b (K,)     y (N, K, P, Q)
#
# P and Q are exercise 7's. The filter is not flipped: what deep learning calls
# convolution is a correlation. A filter sees 5 x 5 x 3 numbers of a colour
# image, and the same 75 weights serve all its places; AlexNet's first layer has
# 96 filters of 11 x 11 x 3, which is 34,848 weights.
#
# A worked example: the image [[1, 2, 3], [4, 5, 6], [7, 8, 9]] and the filter
# [[1, 0], [0, -1]] give [[1 - 5, 2 - 6], [4 - 8, 5 - 9]], which is -4
# everywhere.
#
# Loops are fine. This is the version against which fast ones are held.
# ```

# %% tags=["exercise", "conv2d_naive"]
def conv2d_naive(x, w, b, s=1, p=0):
    """Convolution by its definition.

    x: (N, C, H, W), w: (K, C, R, S), b: (K,)
    s: stride, p: padding, integers, the same for both axes

    Returns y (N, K, P, Q).

    >>> image = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> corner = np.array([[[[1.0, 0.0], [0.0, -1.0]]]])
    >>> conv2d_naive(image, corner, np.zeros(1))
    array([[[[-4., -4.],
             [-4., -4.]]]])
    """
    raise NotImplementedError


# %%
check("conv2d_naive", conv2d_naive)

# %% [markdown]
# ### What a filter sees
#
# An ankle boot, and the same under two filters that answer to edges.

# %%
images, labels = md.data.load(channels=1, image_size=28).train.batch([0])
edges = np.array([[-1.0, 0.0, 1.0]] * 3)
filters = np.stack([edges, edges.T])[:, None]  # (2, 1, 3, 3)
seen = conv2d_naive(images, filters, np.zeros(2), 1, 1)
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
for axis, picture, title in zip(axes, [images[0, 0], *seen[0]], ["image", "upright", "level"]):
    axis.imshow(picture, cmap="gray")
    axis.set_title(title)
    axis.axis("off")
plt.show()


# %% [markdown] tags=["task", "im2col"]
# ## Exercise 9: windows as columns
#
# ```text
# A convolution is a product of matrices once every window has been laid out
# as a column. For each image there is a matrix with one column for each place
# of the window and one row for each number in it:
#
#     cols[n]    (C R S, P Q)
#     y[n] = w.reshape(K, C R S) @ cols[n]         (K, P Q)
#
# which takes memory (a 3 x 3 window repeats each pixel up to nine times) and
# saves time, for nothing on a processor is faster than a product of matrices.
#
# The order is agreed upon, and the same in all frameworks:
#     rows      by channel, then row of the window, then column of the window
#     columns   by row of the output, then column of the output
#
# A worked example: the image [[1, 2, 3], [4, 5, 6], [7, 8, 9]] with a window
# of 2 x 2 at stride 1 has the windows 1 2 4 5, 2 3 5 6, 4 5 7 8, 5 6 8 9:
#
#     [[1, 2, 4, 5],
#      [2, 3, 5, 6],
#      [4, 5, 7, 8],
#      [5, 6, 8, 9]]
# ```

# %% tags=["exercise", "im2col"]
def im2col(x, k, s=1, p=0):
    """Windows as columns.

    x: (N, C, H, W)
    k: height and width of the window, a pair (R, S)
    s: stride, p: padding, integers, the same for both axes

    Returns (N, C * R * S, P * Q).

    >>> im2col(np.arange(1, 10).reshape(1, 1, 3, 3), (2, 2))
    array([[[1, 2, 4, 5],
            [2, 3, 5, 6],
            [4, 5, 7, 8],
            [5, 6, 8, 9]]])
    """
    raise NotImplementedError


# %%
check("im2col", im2col)

# %% [markdown]
# ### One product of matrices
#
# The same convolution, and how much faster it is.

# %%
from time import perf_counter

x, w = np.random.default_rng(0).standard_normal((4, 3, 24, 24)), np.ones((8, 3, 3, 3))
start = perf_counter()
slow = conv2d_naive(x, w, np.zeros(8), 1, 1)
between = perf_counter()
fast = (w.reshape(8, -1) @ im2col(x, (3, 3), 1, 1)).reshape(slow.shape)
end = perf_counter()
print(f"equal: {np.allclose(slow, fast)}; {(between - start) / (end - between):.0f} times as fast")


# %% [markdown] tags=["task", "col2im"]
# ## Exercise 10: columns back into an image
#
# ```text
# im2col copies pixels into columns, some of them many times. On the way back
# each copy brings a gradient, and they are added up where the pixel came from:
#
#     dx[n, c, u, v] = sum of dcols over all copies of the pixel (u, v)
#
# That is the transpose of im2col, as a linear map. Two maps A and B are each
# other's transpose if <A x, c> = <x, B c> for all x and c, with <,> the sum of
# the products of all elements; this is how the exercise is checked.
#
# It is no inverse: im2col followed by col2im multiplies each pixel by the
# number of windows that see it.
#
# A worked example: a 3 x 3 image, a window of 2 x 2, and columns of ones.
# A corner lies in one window, an edge in two, the centre in four:
#
#     [[1, 2, 1],
#      [2, 4, 2],
#      [1, 2, 1]]
#
# What falls into the padding is dropped: those zeros were nobody's pixels.
# ```

# %% tags=["exercise", "col2im"]
def col2im(cols, shape, k, s=1, p=0):
    """The transpose of im2col: adds columns up into an image.

    cols: (N, C * R * S, P * Q), ordered as im2col orders them
    shape: of the image, (N, C, H, W)
    k: the window (R, S), s: stride, p: padding

    Returns an array of that shape.

    >>> col2im(np.ones((1, 4, 4)), (1, 1, 3, 3), (2, 2))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    raise NotImplementedError


# %%
check("col2im", col2im)


# %% [markdown] tags=["task", "conv2d_backward"]
# ## Exercise 11: convolution, backward
#
# ```text
# A filter is used at every place of every image, so its gradient is a sum
# over all of them. With windows as columns (exercise 9), for each image n,
#
#     y[n] = W @ cols[n]       W (K, C R S), cols[n] (C R S, P Q)
#
# which is a linear layer with the places in the role of a batch, and has a
# linear layer's gradients:
#
#     dW       = sum over n of  dy[n] @ cols[n].T     (K, C R S)
#     dcols[n] = W.T @ dy[n]                          (C R S, P Q)
#     db       = sum over n and all places of dy      (K,)
#
# dx then is dcols put back by col2im. What is left is reshaping: dy is
# (N, K, P, Q), dw must be (K, C, R, S).
#
# A worked example: x = [[1, 2, 3]] (one row of three pixels), w = [[4, 5]],
# dy = [[1, 1]]. w[0] met 1 and 2, w[1] met 2 and 3: dw = [[3, 5]]. The middle
# pixel met w[1] and w[0]: dx = [[4, 9, 5]]. db = 2.
# ```

# %% tags=["exercise", "conv2d_backward"]
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
    raise NotImplementedError


# %%
check("conv2d_backward", conv2d_backward)

