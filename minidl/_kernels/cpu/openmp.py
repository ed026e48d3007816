"""How long OpenMP's threads wait for each other before they sleep; imported before any kernel.

GNU's OpenMP lets a thread that waits spin for milliseconds. On a machine that other programs use
too, it then burns the very time slice that the thread it waits for needs: small networks trained
three times slower, in the worst case eight times. A thousand turns bridge the gap between two
kernels and cost nothing measurable on an idle machine. GNU's OpenMP reads the setting when it is
loaded, so it stands in the environment for that moment only; a user's own setting wins.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

SPIN = "GOMP_SPINCOUNT"
TURNS = "1000"


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
