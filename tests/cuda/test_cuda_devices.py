"""Tensors, modules and optimisers go to a GPU and back, and errors say what is wrong."""

import copy

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR

import minidl as md
import minidl.functional as F
from minidl import device, installation
from minidl.train import main

pytestmark = ON_THE_EMULATOR


@pytest.mark.parametrize(
    "make",
    [
        lambda d: md.tensor([[1.5, 2.0]], device=d),
        lambda d: md.zeros(2, 3, device=d),
        lambda d: md.ones(2, dtype=md.float64, device=d),
        lambda d: md.full((2, 2), 7, device=d),
        lambda d: md.arange(2, 8, 3, device=d),
        lambda d: md.linspace(0, 1, 5, device=d),
        lambda d: md.eye(3, 4, device=d),
        lambda d: md.rand(5, device=d),
        lambda d: md.randn(5, 2, device=d),
        lambda d: md.randint(0, 9, (4,), device=d),
        lambda d: md.randperm(7, device=d),
    ],
)
def test_tensors_are_made_with_the_same_bits(cuda, make):
    md.manual_seed(3)
    expected = make("cpu")
    md.manual_seed(3)
    found = make("cuda:1")
    assert found.device == "cuda:1"
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.cpu().numpy(), expected.numpy())


def test_there_and_back(cuda):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    y = x.to("cuda")
    assert (x.device, y.device, y.cuda(1).device) == ("cpu", "cuda:0", "cuda:1")
    assert y.to("cuda:0") is y
    assert x.cpu() is x
    (y * y).cuda(1).sum().cpu().backward()
    assert x.grad.device == "cpu"
    assert x.grad.tolist() == [2, 4]
    assert repr(y.detach()) == "tensor([1., 2.], device='cuda:0')"
    with pytest.raises(TypeError, match=r"numpy: the tensor is on cuda:0; use cpu\(\)\.numpy\(\)"):
        y.detach().numpy()


def test_reading_and_writing_elements(cuda):
    x = md.arange(6, device="cuda").reshape(2, 3)
    assert x[1, 2].item() == 5
    assert x[:, [2, 0]].tolist() == [[2, 0], [5, 3]]
    assert x[md.tensor([1])].tolist() == [[3, 4, 5]]  # an index from the CPU
    assert x[x > 2].tolist() == [3, 4, 5]
    x[0] = 7
    x[1, :2] = md.tensor([8, 9], device="cuda")
    assert x.tolist() == [[7, 7, 7], [8, 9, 5]]
    x.add_(1).mul_(2)
    x -= 1
    assert x.tolist() == [[15, 15, 15], [17, 19, 11]]
    assert 19 in x
    assert float(x[0, 0]) == 15.0
    assert x.copy_(md.zeros(3)).tolist() == [[0, 0, 0]] * 2


def test_other_libraries_arrays(cuda):
    array = cuda.cupy.arange(3, dtype=np.float32)
    x = md.Tensor(array)
    assert x.data is array
    assert (x + array).tolist() == [0, 2, 4]


def test_modules_and_optimisers_move(cuda):
    model = md.nn.Sequential(md.nn.Linear(3, 4), md.nn.ReLU(), md.nn.Linear(4, 2))
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    model.to("cuda:1")
    assert {p.device for p in model.parameters()} == {"cuda:1"}
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    F.mse_loss(model(md.ones(5, 3, device="cuda:1")), md.zeros(5, 2, device="cuda:1")).backward()
    optimizer.step()
    twin = copy.deepcopy(model)
    other = md.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    saved = optimizer.state_dict()
    to_cpu = {
        i: {n: device.to_device(a, "cpu") for n, a in s.items()} for i, s in saved["state"].items()
    }
    other.load_state_dict({**saved, "state": to_cpu})
    model.load_state_dict({name: md.from_numpy(array) for name, array in before.items()})
    for name, tensor in model.state_dict().items():
        assert tensor.device == "cuda:1"
        np.testing.assert_array_equal(tensor.cpu().numpy(), before[name])


def test_weights_are_saved_from_a_gpu(cuda, tmp_path):
    model = md.nn.Linear(3, 4).to("cuda")
    md.save(model, tmp_path / "w.safetensors")
    loaded = md.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(loaded["weight"].numpy(), model.weight.detach().cpu().numpy())


def test_labels_are_checked_where_that_costs_no_wait(cuda):
    scores, wrong = md.zeros(2, 3, device="cuda"), md.tensor([0, 3])
    with pytest.raises(ValueError, match=r"label 3 \(row 1\) is out of range for 3 classes"):
        F.cross_entropy(scores, wrong)
    assert np.isnan(F.cross_entropy(scores, wrong.cuda()).item())
    assert F.cross_entropy(scores, md.tensor([0, -100], device="cuda")).item() == pytest.approx(
        np.log(3)
    )


def test_the_doctor_knows_the_gpus(cuda, monkeypatch):
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: name)
    facts, problems = installation.collect_config()
    assert facts["CuPy"] == "14.2.0 for CUDA 13.0, driver for 13.0"
    assert facts["GPU"] == (
        "cuda:0 Emulated GPU, 80 GiB, sm_90; cuda:1 Emulated GPU, 80 GiB, sm_90"
    )
    assert not [line for line in problems if "CuPy" in line]

    def no_compiler():
        raise RuntimeError("no NVRTC")

    monkeypatch.setattr(cuda.cupy.cuda.nvrtc, "getVersion", no_compiler)
    problem = "CuPy cannot compile (no NVRTC): pip install 'cupy-cuda13x[ctk]'"
    assert any(line.startswith(problem) for line in installation.collect_config()[1])
    device._open_gpu.cache_clear()
    with pytest.raises(
        RuntimeError, match=r"device 'cuda:0': CuPy cannot compile \(no NVRTC\): pip"
    ):
        md.zeros(1, device="cuda")


# ---- errors ----


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a + b,
        lambda a, b: a @ b,
        lambda a, b: md.concat([a, b]),
        lambda a, b: a.add_(b),
        lambda a, b: a > b,
        lambda a, b: F.linear(a, b),
    ],
)
def test_tensors_on_different_devices(cuda, call):
    a = md.ones(2, 2, device="cuda:1")
    for b, text in ((md.ones(2, 2), "cpu and cuda:1"), (md.ones(2, 2).cuda(), "cuda:0 and cuda:1")):
        with pytest.raises(RuntimeError, match=rf"\w+: all tensors must be on .*, got {text};"):
            call(a, b)


def test_a_gpu_that_is_not_there(cuda):
    with pytest.raises(RuntimeError, match=r"'cuda:7': there is no such GPU, this machine has 2"):
        md.zeros(2, device="cuda:7")


def test_a_full_gpu_says_what_to_do(cuda, monkeypatch, capsys):
    md.zeros(1, device="cuda")

    def malloc(size):
        raise cuda.cupy.cuda.memory.OutOfMemoryError

    monkeypatch.setattr(cuda.cupy.get_default_memory_pool(), "malloc", malloc)
    text = (
        r"cuda:0 is out of memory: 4.00 GB asked for, 0.00 GB in use here, 64.42 of 85.90 GB free; "
        r"use smaller batches or images"
    )
    with pytest.raises(MemoryError, match=text):
        md.zeros(1000, 1000, 1000, device="cuda")
    assert main(["--arch", "lenet5", "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("minidl.train: cuda:0 is out of memory: 0.00 GB asked for")
    assert line.endswith("use smaller batches or images: --batch-size, --image-size")
