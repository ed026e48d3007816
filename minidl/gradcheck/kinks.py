"""Kinks: places where the slopes to the left and to the right differ, and both are right.

Where the subject tells which branch of every ReLU and which winner of every maximum it took, a kink
is where these change. A plain array function does not tell: there the slopes of both sides are
compared at shrinking distances. The difference vanishes with the distance where the function is
smooth, however curved (x^3 at 0), and stays at a kink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .numeric import Line, Outputs, one_sided
from .subject import namespace

__all__ = ["SlopeRange", "branch_changes", "slope_ranges"]

NEAR, FAR = 1e-5, 1e-4  # distances at which the slopes of both sides are compared
SLACK = 0.02  # of the jump: how far beyond the two slopes a gradient may lie


@dataclass
class SlopeRange:
    """What the derivative may be at a kink, for one upstream gradient."""

    low: float
    high: float

    def holds(self, value: float, tolerance: float) -> bool:
        """Whether `value` is a slope in between, up to the error of measuring the two."""
        slack = tolerance + SLACK * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack


def branch_changes(line: Line, h: float) -> bool:
    """Whether the subject took another branch at -h or h than in the middle."""
    here = line.branches(0.0)
    return any(_differ(here, line.branches(t)) for t in (-h, h))


def _differ(a: Sequence[Any], b: Sequence[Any]) -> bool:
    if len(a) != len(b):
        return True
    return any(x.shape != y.shape or bool((x != y).any()) for x, y in zip(a, b, strict=True))


def slope_ranges(
    line: Line, upstream: Sequence[Outputs], known: bool, tolerance: float
) -> list[SlopeRange] | None:
    """The range of slopes for each upstream gradient, or None if the function is smooth here.

    `known` tells that there is a kink. Every output element chooses its side by itself: several
    windows of max pooling with ties in them, for instance, do.
    """
    left, right = one_sided(line, NEAR)
    if not _finite(left) or not _finite(right):
        return [SlopeRange(-np.inf, np.inf) for _ in upstream]  # a singularity, as of sqrt at 0
    if not known and not _jump_stays(line, upstream, left, right, tolerance):
        return None
    ranges = []
    for weights in upstream:
        low = high = 0.0
        for v, a, b in zip(weights, left, right, strict=True):
            xp = namespace(v)
            low += float(xp.minimum(v * a, v * b).sum())
            high += float(xp.maximum(v * a, v * b).sum())
        ranges.append(SlopeRange(low, high))
    return ranges


def _jump_stays(
    line: Line, upstream: Sequence[Outputs], left: Outputs, right: Outputs, tolerance: float
) -> bool:
    further = _jumps(upstream, *one_sided(line, FAR))
    return any(
        near > 10 * tolerance and near > 0.5 * far
        for near, far in zip(_jumps(upstream, left, right), further, strict=True)
    )


def _jumps(upstream: Sequence[Outputs], left: Outputs, right: Outputs) -> list[float]:
    return [
        sum(float(abs(v * (b - a)).sum()) for v, a, b in zip(weights, left, right, strict=True))
        for weights in upstream
    ]


def _finite(outputs: Outputs) -> bool:
    return all(bool(namespace(y).isfinite(y).all()) for y in outputs)
