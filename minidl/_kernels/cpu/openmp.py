"""How long OpenMP's threads wait for each other before they sleep; imported before any kernel.

GNU's OpenMP lets a thread that waits spin for milliseconds. On a machine that other programs use
too, it then burns the time slice that the thread it waits for needs, and LeNet-5 trains two to
three times slower. 4,500 turns, about a tenth of a millisecond, bridge the gap between two kernels,
so that no thread has to be woken (0.1 ms for a small convolution on a virtual machine). With 3,000
ResNet-20 trains 3 percent slower; beside two busy programs the two are even, with 6,000 it takes a
fifth longer there, with 8,000 two thirds. The setting is read when OpenMP is loaded, so it stands
in the environment for that moment only; a user's own setting wins.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

SPIN = "GOMP_SPINCOUNT"
TURNS = "4500"


@contextmanager
def short_spinning() -> Iterator[None]:
    """Within this block, an OpenMP that is being loaded learns not to spin for long."""
    if SPIN in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ[SPIN] = TURNS
    try:
        yield
    finally:
        del os.environ[SPIN]
