"""The emulator runs CUDA as it should, and notices what a GPU would not."""

from pathlib import Path

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR
from kernel_cases import normal

PROBE = Path(__file__).with_name("probe.cu")
F32 = np.dtype(np.float32)

pytestmark = ON_THE_EMULATOR


@pytest.fixture
def probe(cuda, monkeypatch):
    """The kernels of probe.cu, as a launch module would have them."""
    modules = cuda.module("modules")
    monkeypatch.setattr(modules.KernelFile, "known", [])
    names = "scale<T>", "reverse<T, true>", "reverse<T, false>", "row_sums<T>", "ballots<T>"
    names += "beyond_the_end<T>", "reads_unwritten_shared_memory<T>", "half_a_block_waits<T>"
    return modules.KernelFile(str(PROBE), *names, "by_vectors<T>")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strides_and_scalars(cuda, thread_order, probe, dtype):
    x = normal(0, 3000, dtype=dtype)
    y = cuda.array(np.zeros_like(x))
    grid = cuda.module("modules").striding(x.size)
    probe.launch("scale<T>", x.dtype, grid, (cuda.array(x), y, x.size, 3.0, True))
    np.testing.assert_array_equal(cuda.numpy(y), -3 * x)


def test_a_barrier_makes_the_order_of_threads_irrelevant(cuda, thread_order, probe):
    x = normal(0, 256, dtype=np.float32)
    y = cuda.array(np.zeros_like(x))
    probe.launch("reverse<T, true>", F32, ((4,), (64,)), (cuda.array(x), y))
    np.testing.assert_array_equal(cuda.numpy(y), x.reshape(4, 64)[:, ::-1].ravel())


def test_a_missing_barrier_shows(cuda, thread_order, probe):
    x = normal(0, 256, dtype=np.float32)
    y = cuda.array(np.zeros_like(x))
    probe.launch("reverse<T, false>", F32, ((4,), (64,)), (cuda.array(x), y))
    assert np.isnan(cuda.numpy(y)).any()


@pytest.mark.parametrize("threads", [32, 96, 1024])
def test_shuffles_and_dynamic_shared_memory(cuda, thread_order, probe, threads):
    x = normal(0, 5, 333)
    sums = cuda.array(np.zeros(5))
    args = (cuda.array(x), sums, 333)
    probe.launch("row_sums<T>", x.dtype, ((5,), (threads,)), args, shared_bytes=threads // 32 * 8)
    np.testing.assert_allclose(cuda.numpy(sums), x.sum(1), rtol=1e-12)


def test_ballots(cuda, thread_order, probe):
    x = normal(0, 64, dtype=np.float32)
    votes = cuda.array(np.zeros(64, np.uint32))
    probe.launch("ballots<T>", F32, ((1,), (64,)), (cuda.array(x), votes))
    expected = [sum(int(v > 0) << i for i, v in enumerate(warp)) for warp in x.reshape(2, 32)]
    assert cuda.numpy(votes).tolist() == np.repeat(expected, 32).tolist()


def test_vectors(cuda, probe):
    x = normal(0, 128, dtype=np.float32)
    y = cuda.array(np.zeros_like(x))
    probe.launch("by_vectors<T>", F32, ((1,), (32,)), (cuda.array(x), y, 2.0))
    np.testing.assert_array_equal(cuda.numpy(y), 2 * x)


def test_shared_memory_begins_as_nan(cuda, thread_order, probe):
    y = cuda.array(np.zeros(32))
    probe.launch("reads_unwritten_shared_memory<T>", y.dtype, ((1,), (32,)), (y,))
    assert np.isnan(cuda.numpy(y)).all()


def test_barriers_that_differ_are_an_error(cuda, probe):
    args = (cuda.array(np.zeros(64)),)
    with pytest.raises(RuntimeError, match="threads of a block wait at different barriers, lines"):
        probe.launch("half_a_block_waits<T>", args[0].dtype, ((1,), (64,)), args)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: np.float32(1)}, "argument 0 is float32, expected \\*f4"),
        ({2: 3.0}, "argument 2 is float32, expected i8"),
        ({2: np.int32(3)}, "argument 2 is int32, expected i8"),
        ({3: 1}, "argument 3 is int64, expected f4"),
        ({4: 1.0}, "argument 4 is float32, expected b1"),
    ],
)
def test_arguments_must_be_what_the_kernel_takes(cuda, probe, change, text):
    args = [cuda.array(np.zeros(3, F32)), cuda.array(np.zeros(3, F32)), 3, 1.0, False]
    for position, value in change.items():
        args[position] = value
    with pytest.raises(TypeError, match=text):
        probe.launch("scale<T>", F32, ((1,), (32,)), tuple(args))


def test_arrays_must_have_the_dtype_of_the_kernel(cuda, probe):
    x, y = cuda.array(np.zeros(3)), cuda.array(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match=r"argument 0 is an array of f8: \*f4"):
        probe.launch("scale<T>", F32, ((1,), (32,)), (x, y, 3, 1.0, False))


def test_arrays_must_be_contiguous(cuda, probe):
    x, y = cuda.array(np.zeros((4, 4), F32)), cuda.array(np.zeros(4, np.float32))
    with pytest.raises(TypeError, match="argument 0 is not contiguous"):
        probe.launch("scale<T>", F32, ((1,), (32,)), (x[:, 0], y, 4, 1.0, False))


def test_arrays_must_be_on_the_current_device(cuda, probe):
    with cuda.cupy.cuda.Device(1):
        x = cuda.array(np.zeros(3, F32))
    with pytest.raises(RuntimeError, match=r"scale<T>: arrays .* got one on cuda:1 and cuda:0"):
        probe.launch("scale<T>", F32, ((1,), (32,)), (x, x, 3, 1.0, False))


def test_only_listed_kernels_can_be_launched(cuda, probe):
    with pytest.raises(TypeError, match=r"probe.cu has no kernel missing<T> for float32"):
        probe.launch("missing<T>", F32, ((1,), (32,)), ())


def test_no_arrays_of_numpy(cuda):
    x = cuda.array(np.ones(3))
    with pytest.raises(TypeError, match="Unsupported type"):
        x + np.ones(3)
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError, match="Unsupported type"):
        x[np.array([0])]
