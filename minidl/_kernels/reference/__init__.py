"""The kernel contract, written to be read: plain NumPy, any floating-point dtype, slow on purpose.

Every other implementation offers the names of `__all__` with the same parameters and defaults, and
is tested against these functions. The shapes, the formulas and their sources stand here once.

Letters: N images in a batch, C input channels, K output channels, H x W input, P x Q output,
R x S window. Images are (N, C, H, W), convolution weights (K, C/groups, R, S). Arguments that
describe a window are pairs (height, width); the padding of a convolution is (top, bottom, left,
right). No function changes its arguments, except the optimiser steps, which work in place.
"""

from .convolution import (
    col2im,
    conv2d_forward,
    conv2d_input_grad,
    conv2d_weight_grad,
    im2col,
    matmul,
)
from .elementwise import (
    dropout,
    log_softmax_backward,
    log_softmax_forward,
    relu_backward,
    relu_forward,
)
from .normalisation import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    local_response_norm_backward,
    local_response_norm_forward,
)
from .optimiser import adam_step, rmsprop_step, sgd_step
from .pooling import (
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool2d_forward,
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
    max_pool2d_gather,
)

__all__ = [
    "adam_step",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "col2im",
    "conv2d_forward",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "dropout",
    "im2col",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "log_softmax_backward",
    "log_softmax_forward",
    "matmul",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
    "relu_backward",
    "relu_forward",
    "rmsprop_step",
    "sgd_step",
]
