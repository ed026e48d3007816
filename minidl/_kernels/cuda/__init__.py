"""The kernel contract on NVIDIA GPUs: `.cu` files behind one launch layer, through CuPy."""

from .launch_conv import (
    col2im,
    conv2d_forward,
    conv2d_input_grad,
    conv2d_weight_grad,
    im2col,
    matmul,
)

__all__ = [
    "col2im",
    "conv2d_forward",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "im2col",
    "matmul",
]
