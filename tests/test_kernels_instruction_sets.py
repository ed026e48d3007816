"""The kernels' tests again in processes that were told which instruction set to use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = [
    str(Path(__file__).with_name(f"test_kernels_{family}.py"))
    for family in ("buffers", "conv", "elementwise", "norm", "optim", "pool")
]
EXAMPLES = "10"  # of each property test; all of them run with the best set


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx2", "portable"])
def test_every_instruction_set_computes_the_same(isa):
    environment = os.environ | {"MINIDL_ISA": isa, "MINIDL_TEST_EXAMPLES": EXAMPLES}
    query = "from minidl._kernels import cpu; print(cpu.instruction_set())"
    command = [sys.executable, "-c", query]
    chosen = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if chosen.stdout.strip() != isa:
        pytest.skip(f"this processor has no {isa}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
