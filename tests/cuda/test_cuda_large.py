"""On a GPU: arrays of more than 2^31 elements, and grids that stride; see also sanitize.sh.

A batch is so large that its last image lies beyond the reach of 32-bit indices. What a kernel makes
of that image must be what it makes of the image alone.
"""

import numpy as np
import pytest
from cuda_backend import ON_A_GPU

import minidl as md

pytestmark = ON_A_GPU

N, C, SIDE = 17, 128, 1024
ALONE = slice(N - 1, N)


@pytest.fixture
def images(cuda):
    """(17, 128, 1024, 1024) float32: 2.3e9 elements, 9 GB."""
    free, _ = cuda.cupy.cuda.Device().mem_info
    if free < 60e9:
        pytest.skip(f"needs 60 GB of GPU memory, {free / 1e9:.0f} GB are free")
    row = np.random.default_rng(0).standard_normal(SIDE).astype(np.float32)
    x = cuda.cupy.empty((N, C, SIDE, SIDE), np.float32)
    x[...] = cuda.array(row)
    x *= cuda.cupy.arange(1, C + 1, dtype=np.float32).reshape(C, 1, 1)
    yield x
    del x
    cuda.cupy.get_default_memory_pool().free_all_blocks()


def weight(cuda, *shape):
    numbers = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return cuda.array(numbers)


KERNELS = {
    "relu": lambda c, k, x: k.relu_forward(x),
    "relu backward": lambda c, k, x: k.relu_backward(x, x),
    "max pooling": lambda c, k, x: k.max_pool2d_forward(x, (3, 3), (2, 2), (1, 1))[0],
    "average pooling": lambda c, k, x: k.avg_pool2d_forward(x, (2, 3), (1, 2)),
    "local response": lambda c, k, x: k.local_response_norm_forward(x, alpha=0.9)[0],
    "batch norm": lambda c, k, x: k.batch_norm_inference(
        x, weight(c, C), weight(c, C), weight(c, C), abs(weight(c, C)), relu=True
    ),
    "3x3": lambda c, k, x: k.conv2d_forward(x, weight(c, 4, C, 3, 3), padding=(1, 1, 1, 1)),
    "1x1": lambda c, k, x: k.conv2d_forward(x, weight(c, C, C, 1, 1)),
    "5x5 in groups": lambda c, k, x: k.conv2d_forward(
        x, weight(c, C, 2, 5, 5), stride=(2, 1), groups=C // 2
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_last_image_is_computed_as_alone(cuda, images, name):
    whole = KERNELS[name](cuda, cuda.kernels, images)[ALONE]
    alone = KERNELS[name](cuda, cuda.kernels, images[ALONE])
    largest = float(abs(alone).max())
    assert float(abs(whole - alone).max()) <= 1e-5 * largest
    assert largest > 0


@pytest.mark.parametrize("algorithm", ["direct", "tensor_core", "neither"])
def test_sums_over_all_images(cuda, images, algorithm):
    """Batch norm's moments, found by a convolution or by itself."""

    def moments_of(x):
        found = []
        if algorithm != "neither":
            before = md.config.conv_algorithm
            md.config.conv_algorithm, md.config.allow_tf32 = algorithm, True
            x = cuda.kernels.conv2d_forward(x, weight(cuda, C, C, 1, 1), moments=found)
            md.config.conv_algorithm, md.config.allow_tf32 = before, False
            assert len(found) == 1
        return cuda.kernels.batch_norm_forward(x, None, None, moments=found[0] if found else None)

    _, mean, var = moments_of(images)
    _, one_mean, one_var = moments_of(images[ALONE])
    for whole, alone in ((mean, one_mean), (var, one_var)):  # all images are the same
        np.testing.assert_allclose(cuda.numpy(whole), cuda.numpy(alone), rtol=1e-4, atol=1e-4)
