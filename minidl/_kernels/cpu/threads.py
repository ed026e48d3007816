"""How many threads the CPU kernels use."""

import os
import sys
from pathlib import Path

from .affinity import keep_apart
from .conv import has_openmp

__all__ = ["available_cpus", "get_num_threads", "set_num_threads", "threads_for"]

# A loop over fewer elements is over before a second thread has woken up.
SMALL_LOOP = 32768

# OpenMP keeps a record of each thread on the stack, and a crowd of them overflows it.
MAX_THREADS = 1024

_num_threads: int | None = None


def _cgroup_limit() -> int | None:
    """Whole processors that the container's CPU quota (cgroup v2, then v1) amounts to."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return max(1, round(int(quota) / int(period)))


def available_cpus() -> int:
    """Processors this process may use: its affinity mask, cut to the container's quota."""
    if sys.platform == "linux":
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return min(cpus, _cgroup_limit() or cpus)


def _initial_num_threads() -> int:
    if not has_openmp():
        return 1
    for variable in ("MINIDL_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            return min(int(text), MAX_THREADS)
    return available_cpus()


def get_num_threads() -> int:
    """Number of threads the CPU kernels use.

    It starts as MINIDL_NUM_THREADS, else OMP_NUM_THREADS, else the processors that are available.

    >>> import minidl as md
    >>> md.get_num_threads() >= 1
    True
    """
    global _num_threads
    if _num_threads is None:
        _num_threads = _initial_num_threads()
    return _num_threads


def set_num_threads(count: int) -> None:
    """Set the number of threads of the CPU kernels; results do not depend on it, bit for bit.

    Raises:
        ValueError: `count` is not a whole number from 1 to 1024.
    """
    global _num_threads
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_THREADS:
        raise ValueError(
            f"set_num_threads: expected a whole number from 1 to {MAX_THREADS}, got {count!r}"
        )
    _num_threads = count


def threads_for(elements: int) -> int:
    """Number of threads for a loop that touches this many elements: one if there are few.

    The loop comes next; what is prepared once for several loops says `keep_apart` before each.
    """
    if elements < SMALL_LOOP:
        return 1
    num_threads = get_num_threads()
    keep_apart(num_threads)
    return num_threads
