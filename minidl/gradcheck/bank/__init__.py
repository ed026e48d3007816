"""Mistakes that people make in the gradients of the usual layers, ready to be compared with.

Every function takes the layer's arguments and returns a list of `Mistake`s, whose backward passes
are called as `backward(upstream, *inputs)`, with the inputs in the order of the layer's function in
`minidl.functional`:

>>> import numpy as np
>>> import minidl as md
>>> from minidl.gradcheck import bank
>>> pair = (lambda x: np.maximum(x, 0)), (lambda dy, x: dy * (dy > 0))
>>> report = md.gradcheck(pair, np.array([1.0, -2.0, 3.0, -4.0]), mistakes=bank.relu())
>>> report.diagnoses[0].name
'the mask is taken from the upstream gradient'
"""

from .convolution import conv2d
from .dense import cross_entropy, dropout, linear, log_softmax, relu
from .normalisation import batch_norm, local_response_norm
from .pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from .structure import concat, mean, residual

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "concat",
    "conv2d",
    "cross_entropy",
    "dropout",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mean",
    "relu",
    "residual",
]
