"""How the tests get at the CUDA kernels: on the emulator, or with `-m gpu` on a real GPU.

To test a kernel, write in tests/cuda/test_cuda_<family>.py

    def test_relu(cuda, thread_order):
        x = normal(0, 3, 5, dtype=np.float32)
        y = cuda.kernels.relu_forward(cuda.array(x))
        assert_close(cuda.numpy(y), reference.relu_forward(x))

`cuda.kernels` is the module minidl._kernels.cuda, `cuda.array` copies a NumPy array to the GPU,
`cuda.numpy` brings one back (or a tuple of them). A family whose names are not yet in the package
is imported with `cuda.module("launch_pool")`. With `thread_order` the test runs under each order of
threads and blocks, and with grids of at most three blocks, so that loops over the grid stride.

`python -m pytest -m gpu` runs the very same tests on a real GPU, and those in test_cuda_large.py,
which only a GPU can do. What only makes sense on the emulator says `pytestmark = ON_THE_EMULATOR`.
"""

import importlib
import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from minidl.device import _open_gpu

NAMES = ("cupy", "minidl._kernels.cuda")
ON_THE_EMULATOR = pytest.mark.parametrize("cuda", ["emulator"], indirect=True)
ON_A_GPU = pytest.mark.parametrize(
    "cuda", [pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True
)


@pytest.fixture(scope="module", params=["emulator", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request):
    """The CUDA backend, on the stand-in for CuPy or on a GPU; see the top of this file."""
    if request.param == "gpu":
        try:
            _open_gpu(0)
        except RuntimeError as error:
            pytest.skip(str(error))
        if os.environ.get("MINIDL_CUDA_SANITIZE") == "1":
            # Without a pool each array is an allocation of its own, whose ends can be watched.
            importlib.import_module("cupy").cuda.set_allocator(None)
        yield _backend()
        return
    if shutil.which("g++") is None or not sys.platform.startswith("linux"):
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("CI must run the CUDA kernels on the emulator, which needs Linux and g++")
        pytest.skip("the emulator of CUDA needs Linux and g++")
    before = {name: module for name, module in sys.modules.items() if _belongs(name)}
    for name in before:
        del sys.modules[name]
    sys.modules["cupy"] = importlib.import_module("cupy_standin")
    _open_gpu.cache_clear()
    yield _backend()
    _open_gpu.cache_clear()
    for name in [name for name in sys.modules if _belongs(name)]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture(params=["ascending", "descending", "shuffled"])
def thread_order(request, cuda, monkeypatch):
    """Runs a test under three orders of threads, with few blocks."""
    monkeypatch.setattr(importlib.import_module("emulator"), "order", request.param)
    monkeypatch.setattr(cuda.module("modules"), "MAX_BLOCKS", 3)
    return request.param


def _belongs(name: str) -> bool:
    return any(name == base or name.startswith(f"{base}.") for base in NAMES)


def _backend() -> SimpleNamespace:
    cupy = importlib.import_module("cupy")

    def numpy(result):
        if isinstance(result, tuple):
            return tuple(map(numpy, result))
        return cupy.asnumpy(result)

    return SimpleNamespace(
        cupy=cupy,
        array=lambda array: cupy.array(np.ascontiguousarray(array)),
        numpy=numpy,
        module=lambda name: importlib.import_module(f"minidl._kernels.cuda.{name}"),
        kernels=importlib.import_module("minidl._kernels.cuda"),
    )
