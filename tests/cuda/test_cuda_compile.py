"""Every kernel compiles for real GPUs, without warnings and with registers enough."""

import os

import pytest
from nvrtc import compile_program, spills

from minidl import _kernels

FOLDER = _kernels.__path__[0] + "/cuda"
FILES = sorted(name for name in os.listdir(FOLDER) if name.endswith(".cu"))
SPILLING = """
template <typename T> __global__ void __launch_bounds__(1024, 2) spilling(const T* x, T* y) {
    T values[64];
    for (int i = 0; i < 64; ++i) values[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
    for (int i = 0; i < 64; ++i) y[i * 1024 + threadIdx.x] = values[i] * values[63 - i];
}
"""


def compiled(code, names, arch, options=()):
    try:
        return compile_program(code, names, options, arch)
    except OSError as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"CI must compile the kernels, but there is {error}")
        pytest.skip(str(error))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("filename", FILES)
def test_kernels_compile(cuda, filename, arch):
    modules = cuda.module("modules")
    for name in os.listdir(FOLDER):
        if name.startswith("launch_"):
            cuda.module(name.removesuffix(".py"))
    files = [file for file in modules.KernelFile.known if file.filename == filename]
    assert files, f"no launch module uses {filename}"
    for file in files:
        for dtype in file.dtypes:
            code = modules.source(filename, dtype)
            log = compiled(code, file.instances(dtype), arch, modules.OPTIONS)
            assert "warning" not in log, log
            assert spills(log) == [], log


def test_the_check_sees_spills():
    log = compiled(SPILLING, ("spilling<double>",), "sm_90")
    assert spills(log) == ["_Z8spillingIdEvPKT_PS0_"]


def test_the_check_sees_warnings_and_errors():
    unused = "template <typename T> __global__ void k(T* y) { int unused; y[0] = 0; }"
    assert "warning" in compiled(unused, ("k<float>",), "sm_90")
    with pytest.raises(RuntimeError, match=r"identifier .missing. is undefined"):
        compiled("__global__ void k(float* y) { y[0] = missing; }", ("k",), "sm_90")
