"""The gradients of an operation, first and second, by minidl's own check."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import minidl as md


def check_gradients(
    fn: Callable[..., md.Tensor | tuple[md.Tensor, ...]], *arrays: np.ndarray, second: bool = True
) -> None:
    """Fail unless the gradients of `fn` at `arrays`, and with `second` theirs, are right.

    Places at kinks would be left out: tests of piecewise functions stay away from them.
    """
    for check in (md.gradcheck, md.gradgradcheck) if second else (md.gradcheck,):
        report = check(fn, arrays)
        assert report, f"\n{report}"
        assert report.kinks == 0, f"\n{report}"
