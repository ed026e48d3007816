"""The kernel contract on NVIDIA GPUs: `.cu` files behind one launch layer, through CuPy.

Steps are not captured as CUDA graphs, because CuPy does not allow it (14.2, and 15.0 so far). While
a stream is captured, every call of cuBLAS raises NotImplementedError (`setStream` in its
cupy_backends/cuda/libs/cublas.pyx), which linear layers and most 1x1 convolutions make; a copy from
main memory, which brings the labels, raises RuntimeError (`copy_from_host_async` in
cupy/cuda/memory.pyx). Kernels of our own could be captured, but with the values of their arguments:
the learning rate, Adam's count of steps, and where the random numbers of dropout begin.
"""

from .launch_conv import (
    col2im,
    conv2d_forward,
    conv2d_input_grad,
    conv2d_weight_grad,
    im2col,
    matmul,
)
from .launch_elementwise import (
    dropout,
    log_softmax_backward,
    log_softmax_forward,
    relu_backward,
    relu_forward,
)
from .launch_norm import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    local_response_norm_backward,
    local_response_norm_forward,
)
from .launch_optim import adam_step, rmsprop_step, sgd_step
from .launch_pool import (
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
