"""How many threads the kernels may be told to use."""

import os
import subprocess
import sys

import pytest

import minidl as md
from minidl._kernels.cpu import has_openmp


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


AFFINITIES = """
import os
import minidl as md

before = os.sched_getaffinity(0)
for num_threads in (len(before) + 1, 2):
    md.set_num_threads(num_threads)
    md.functional.relu(md.ones(1 << 18)).numpy()
    assert os.sched_getaffinity(0) == before
    threads = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
    print([len(before - allowed) for allowed in threads if allowed < before], end="")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux chooses the processors")
@pytest.mark.skipif(not has_openmp(), reason="built without OpenMP")
@pytest.mark.parametrize(
    ("environment", "processors_less"), [({}, "[][1]"), ({"OMP_PROC_BIND": "false"}, "[][]")]
)
def test_threads_keep_away_from_the_one_they_work_for(environment, processors_less):
    """Unless a user has bound them, or there are fewer processors than threads."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    others = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    result = subprocess.run(
        [sys.executable, "-c", AFFINITIES], capture_output=True, text=True, env=others | environment
    )
    assert (result.stdout, result.stderr) == (processors_less, "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux chooses the processors")
def test_threads_on_one_processor():
    """There is no other to keep away to: nothing changes, and nothing fails."""
    one = {min(os.sched_getaffinity(0))}
    code = f"import os; os.sched_setaffinity(0, {one})\n" + AFFINITIES
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[][]", "")
