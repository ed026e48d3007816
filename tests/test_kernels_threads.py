"""How many threads the kernels may be told to use."""

import os
import subprocess
import sys

import pytest

import minidl as md


@pytest.mark.parametrize("count", [0, -1, 1025, 10**6, 2.0, True, "2", None])
def test_numbers_of_threads_that_make_no_sense(count):
    before = md.get_num_threads()
    with pytest.raises(ValueError, match="set_num_threads: expected a whole number from 1 to 1024"):
        md.set_num_threads(count)
    assert md.get_num_threads() == before


@pytest.mark.parametrize("variable", ["MINIDL_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_environment_cannot_ask_for_a_crowd(variable):
    others = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    code = "import minidl as md; print(md.get_num_threads())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**others, variable: "1000000"},
    )
    assert (result.returncode, int(result.stdout) <= 1024) == (0, True)
