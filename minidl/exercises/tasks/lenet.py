"""LeNet from your own functions. There is nothing to fill in here: read it,
then run

    python -m minidl.exercises check capstone

which trains it on 64 images of clothes until it knows them by heart. A
network that cannot learn 64 images by heart has a mistake somewhere; one
that can has all its gradients right.

    image     1 x 28 x 28
    conv 1    6 filters of 5 x 5, padding 2, ReLU      6 x 28 x 28
    pool      2 x 2                                    6 x 14 x 14
    conv 2    16 filters of 5 x 5, ReLU                16 x 10 x 10
    pool      2 x 2                                    16 x 5 x 5
    linear    400 -> 120, ReLU, 120 -> 84, ReLU, 84 -> 10

(LeCun and others, 1998, with ReLU, max pooling and softmax, which came later.)
"""

import numpy as np

from .e04_linear_backward import linear_backward
from .e05_relu_backward import relu_backward
from .e06_softmax_xent import softmax_xent
from .e07_conv_out_size import conv_out_size
from .e09_im2col import im2col
from .e11_conv2d_backward import conv2d_backward
from .e12_maxpool_backward import maxpool_backward, maxpool_forward
from .e20_sgd_momentum_step import sgd_momentum_step

SHAPES = {
    "conv1": (6, 1, 5, 5),
    "conv2": (16, 6, 5, 5),
    "linear1": (120, 400),
    "linear2": (84, 120),
    "linear3": (10, 84),
}


def conv2d(x, w, b, p):
    """Convolution with stride 1, as one product of matrices."""
    k, _, r, t = w.shape
    rows = conv_out_size(x.shape[2], r, 1, p)
    columns = conv_out_size(x.shape[3], t, 1, p)
    y = w.reshape(k, -1) @ im2col(x, (r, t), 1, p)  # (N, K, P*Q)
    return y.reshape(len(x), k, rows, columns) + b[:, None, None]


def make_parameters(rng):
    """Weights after He and others (2015), variance 2 / fan-in; biases 0."""
    parameters = {}
    for name, shape in SHAPES.items():
        spread = np.sqrt(2 / np.prod(shape[1:]))
        parameters[name] = spread * rng.standard_normal(shape)
        parameters[name + ".bias"] = np.zeros(shape[0])
    return parameters


def loss_and_gradients(parameters, x, y):
    """One pass forward and one back; also returns the logits."""
    weights = [parameters[name] for name in SHAPES]
    biases = [parameters[name + ".bias"] for name in SHAPES]
    way = []  # what the backward pass needs
    for w, b, p in zip(weights[:2], biases[:2], (2, 0), strict=True):
        h = conv2d(x, w, b, p)
        pooled, cache = maxpool_forward(np.maximum(h, 0), 2, 2)
        way.append((x, w, p, h, cache))
        x = pooled
    before = x.shape
    x = x.reshape(len(x), -1)
    for w, b in zip(weights[2:], biases[2:], strict=True):
        h = x @ w.T + b
        way.append((x, w, h))
        x = np.maximum(h, 0)
    logits = h
    loss, d = softmax_xent(logits, y)

    gradients = {}
    for name in reversed(SHAPES):
        if name.startswith("linear"):
            x, w, h = way.pop()
            if name != "linear3":
                d = relu_backward(d, h)
            d, dw, db = linear_backward(d, x, w)
            if name == "linear1":
                d = d.reshape(before)
        else:
            x, w, p, h, cache = way.pop()
            d = relu_backward(maxpool_backward(d, cache), h)
            d, dw, db = conv2d_backward(d, (x, w, 1, p))
        gradients[name], gradients[name + ".bias"] = dw, db
    return loss, gradients, logits


def train(images, labels, epochs=30, batch=16, lr=0.02):
    """Train on the images (N, 1, 28, 28); stops when all of them are known.

    Returns the mean loss of each epoch and how many images are known.
    """
    rng = np.random.default_rng(0)
    parameters = make_parameters(rng)
    velocities = {name: np.zeros_like(p) for name, p in parameters.items()}
    losses, known = [], 0
    for _ in range(epochs):
        epoch = []
        for chosen in rng.permutation(len(images)).reshape(-1, batch):
            loss, gradients, _ = loss_and_gradients(parameters, images[chosen], labels[chosen])
            epoch.append(float(loss))
            for name, p in parameters.items():
                parameters[name], velocities[name] = sgd_momentum_step(
                    p, gradients[name], velocities[name], lr, 0.9, 0.0
                )
        losses.append(np.mean(epoch))
        _, _, logits = loss_and_gradients(parameters, images, labels)
        known = int((logits.argmax(axis=1) == labels).sum())
        if known == len(images):
            break
    return losses, known
