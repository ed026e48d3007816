"""How long OpenMP's threads wait for each other before they sleep; imported before any kernel.

GNU's OpenMP lets a thread that waits spin for milliseconds. On a machine that other programs use
too, it then burns the time slice that the thread it waits for needs, and LeNet-5 trains two to
three times slower. Three thousand turns, less than a tenth of a millisecond, bridge the gap between
two kernels, so that no thread has to be woken (0.1 ms for a small convolution on a virtual
machine), and cost a few percent beside other programs; eight thousand would cost ResNet-20 half of
its speed there. The setting is read when OpenMP is loaded, so it stands in the environment for that
moment only; a user's own setting wins.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

SPIN = "GOMP_SPINCOUNT"
TURNS = "3000"


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
