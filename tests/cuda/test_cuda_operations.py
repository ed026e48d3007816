"""Every operation on tensors computes on a GPU what it does on the CPU."""

import numpy as np
import pytest
from kernel_cases import normal
from operations import OPERATIONS

import minidl as md

NO_GRADIENT = ("compare", "integers", "sum of integers", "argmax", "any", "zeros_like", "full_like")


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_compute_what_they_do_on_the_cpu(cuda, name):
    image = normal(0, 2, 4, 9, 8, dtype=np.float32)
    results = []
    for where in ("cpu", "cuda"):
        md.manual_seed(0)
        x = md.tensor(image, device=where, requires_grad=True)
        y = OPERATIONS[name](x)
        assert y.device == x.device
        gradient = None
        if name not in NO_GRADIENT:
            dy = md.tensor(normal(1, *y.shape, dtype=np.float32), device=where)
            y.backward(dy)
            assert x.grad.device == x.device
            gradient = x.grad.cpu().numpy()
        results.append((y.detach().cpu().numpy(), gradient))
    (y, dx), (cuda_y, cuda_dx) = results
    assert cuda_y.dtype == y.dtype
    np.testing.assert_allclose(cuda_y, y, rtol=1e-4, atol=1e-5)
    if dx is not None:
        np.testing.assert_allclose(cuda_dx, dx, rtol=1e-4, atol=1e-5)
