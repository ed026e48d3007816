"""What belongs together runs in few kernels, without the user saying so."""

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR
from kernel_cases import normal

import minidl as md
import minidl.functional as F
from minidl.autograd import observe_operations
from minidl.functional import conversion

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


@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision_converts_no_feature_maps(cuda, algorithm, monkeypatch, training):
    """Batch norm reads what a convolution wrote, in 16 bits, and writes what the next one reads."""
    md.manual_seed(0)
    net = md.nn.Sequential(md.nn.Conv2d(3, 9, 1, bias=False), md.nn.BatchNorm2d(9), Block())
    net = net.to("cuda").train(training)
    x = md.tensor(normal(1, 2, 3, 5, 6, dtype=np.float32), device="cuda")
    expected = net(x)
    for norm in (net[1], net[2].norm):
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
    shapes = []
    cast = conversion.Cast.forward
    monkeypatch.setattr(
        conversion.Cast, "forward", lambda self, x: (shapes.append(x.shape), cast(self, x))[1]
    )
    with md.autocast("bf16"):
        y = net(x)
    assert y.dtype.name == "bfloat16"
    assert shapes == [x.shape, net[0].weight.shape, net[2].conv.weight.shape]
    found, expected = y.detach().cpu().numpy().astype(np.float32), expected.detach().cpu().numpy()
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    (y.to(md.float32) ** 2).sum().backward()
    assert {p.grad.dtype for p in net.parameters()} == {md.float32}
    assert all(np.isfinite(p.grad.cpu().numpy()).all() for p in net.parameters())
    if training:
        assert net[1].running_mean.dtype == md.float32


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
