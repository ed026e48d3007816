"""The kernels under address and undefined-behaviour sanitizers: no access out of bounds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OUT_OF_BOUNDS = """
import cupy_standin as cp
import emulator
text = "__global__ void beyond(const float* x, float* y, long long n) {\\n y[0] = x[n];\\n}"
program = emulator.Program('#line 1 "beyond.cu"\\n' + text, ("beyond",))
x = cp.zeros(300, cp.float32)
cp.RawKernel(program, "beyond")((1,), (1,), (x, x, cp.int64(300)))
"""


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the sanitizers in it."""
    libraries = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=0",
        "LD_PRELOAD": " ".join(libraries),
        "MINIDL_CUDA_SANITIZE": "1",
        "MINIDL_TEST_EXAMPLES": "2",  # everything takes ten times as long
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = (sys.executable, *command)
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_an_access_out_of_bounds_is_reported_with_its_line():
    result = sanitized("-c", OUT_OF_BOUNDS)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
    assert "beyond.cu:2" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("family", ["conv", "elementwise", "emulator", "norm", "optim", "pool"])
def test_kernels_stay_in_bounds(family):
    result = sanitized("-m", "pytest", "-q", "-x", str(HERE / f"test_cuda_{family}.py"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
