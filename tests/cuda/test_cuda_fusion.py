"""What belongs together runs in few kernels, without the user saying so."""

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR
from kernel_cases import normal

import minidl as md
import minidl.functional as F
from minidl.autograd import observe_operations

pytestmark = ON_THE_EMULATOR


class Block(md.nn.Module):
    """The end of a residual block: convolution, batch norm, addition, ReLU."""

    def __init__(self):
        super().__init__()
        self.conv = md.nn.Conv2d(9, 9, 3, padding=1, bias=False)
        self.norm = md.nn.BatchNorm2d(9)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)


@pytest.fixture
def launched(cuda, monkeypatch):
    """The names of the kernels that run, without their template arguments."""
    names = []
    modules = cuda.module("modules")
    launch = modules.KernelFile.launch

    def listen(file, kernel, *args, **options):
        names.append(kernel.split("<")[0])
        return launch(file, kernel, *args, **options)

    monkeypatch.setattr(modules.KernelFile, "launch", listen)
    return names


@pytest.fixture(params=["direct", "tensor_core"])
def algorithm(request):
    """Both whose kernels have an epilogue; tensor cores multiply TF32."""
    before = md.config.conv_algorithm
    md.config.conv_algorithm, md.config.allow_tf32 = request.param, True
    yield request.param
    md.config.conv_algorithm, md.config.allow_tf32 = before, False


def step(mode=None):
    """A training step of a block: its output, its gradients and its statistics."""
    md.manual_seed(0)
    block = Block().to("cuda")
    x = md.tensor(normal(1, 2, 9, 7, 8, dtype=np.float32), device="cuda").requires_grad_()
    if mode is None:
        y = block(x)
    else:
        with mode:
            y = block(x)
    (y * y).sum().backward()
    tensors = [y, x.grad, *(p.grad for p in block.parameters()), *block.buffers()]
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def test_batch_norm_does_not_look_for_moments_that_the_convolution_found(cuda, launched, algorithm):
    together = step()
    assert "batch_norm_merge" in launched
    assert "batch_norm_moments" not in launched
    assert "relu_forward" not in launched
    launched.clear()
    one_by_one = step(observe_operations(lambda *_: None))
    assert "batch_norm_merge" not in launched
    for found, expected in zip(together, one_by_one, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
