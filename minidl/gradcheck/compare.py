"""Analytic against numeric, along one line after the other.

A disagreement is not yet a mistake: the numeric side may suffer from a kink nearby or from strong
curvature. So it is measured again with smaller and smaller steps, and only what disagrees at every
step, at a place without a kink, is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np

from .kinks import branch_changes, slope_ranges
from .numeric import STEPS, Line, Outputs, central, complex_step, richardson, weigh

__all__ = ["Comparer", "Comparison", "Verdict"]

METHODS = {"richardson": richardson, "central": central, "complex": complex_step}
# After so many confirmed mistakes, and no disagreement that went away, the first step decides;
# after many more it decides in any case.
ENOUGH_WRONG, FAR_ENOUGH_WRONG = 24, 200


class Verdict(IntEnum):
    """What came out for one element or direction."""

    UNCHECKED = 0
    RIGHT = 1
    WRONG = 2
    KINK = 3


@dataclass
class Comparison:
    """One line: the derivatives along it, for the upstream gradient where they differ most."""

    verdict: Verdict
    analytic: float
    numeric: float
    upstream: int  # number of that upstream gradient
    along: str = ""  # what was moved, where it was not one element


@dataclass
class Comparer:
    """Compares along lines of one subject.

    Attributes:
        upstream: the upstream gradients to use, all for every line.
        noise: the rounding error of <upstream, f>.
        known_branches: whether the subject tells its branches.
    """

    method: str
    upstream: Sequence[Outputs]
    rtol: float
    atol: float | None
    noise: float
    known_branches: bool
    start: int = 0  # the step to begin with: where most lines so far came to agree
    agreed_at: list[int] = field(default_factory=list)
    confirmed: int = 0
    rescued: int = 0

    def compare(
        self,
        line: Line,
        analytic: Sequence[float],
        unit: float,
        scale: float,
        closer: Sequence[float] = (),
    ) -> Comparison:
        """Hold `analytic`, a derivative per upstream gradient, against the numeric one.

        `unit` is how far the line goes per step of 1, in the units of the derivative; `scale` is
        the size of derivatives around it, which decides about the absolute tolerance. `closer` are
        further steps to try, where kinks are dense.
        """
        steps = (*STEPS[self.method][self.start :], *closer)
        found: list[list[float]] = []
        for number, h in enumerate(steps):
            columns = METHODS[self.method](line, h)
            found.append([weigh(weights, columns) / unit for weights in self.upstream])
            tolerance = self.tolerance(analytic, found[-1], scale, h * unit)
            if np.all(np.abs(np.subtract(analytic, found[-1])) <= tolerance):
                self.rescued += number > 0
                self._note_agreement(self.start + number)
                return self._result(Verdict.RIGHT, analytic, found[-1], tolerance)
            if self.confirmed >= (FAR_ENOUGH_WRONG if self.rescued else ENOUGH_WRONG):
                return self._result(Verdict.WRONG, analytic, found[-1], tolerance)
        numeric = _most_settled(found)
        tolerance = self.tolerance(analytic, numeric, scale, unit * 1e-4)
        known = self.known_branches and branch_changes(line, min(steps))
        ranges = slope_ranges(line, self.upstream, known, float(tolerance.max()) * unit)
        if ranges is not None and all(
            r.holds(a * unit, float(t) * unit)
            for r, a, t in zip(ranges, analytic, tolerance, strict=True)
        ):
            self.rescued += 1
            return self._result(Verdict.KINK, analytic, numeric, tolerance)
        self.confirmed += 1
        return self._result(Verdict.WRONG, analytic, numeric, tolerance)

    def tolerance(
        self, analytic: Sequence[float], numeric: Sequence[float], scale: float, reach: float
    ) -> np.ndarray:
        """How far the two may differ, for each upstream gradient, at a step of this reach."""
        relative = self.rtol * np.maximum(np.abs(analytic), np.abs(numeric))
        absolute = 0.01 * self.rtol * scale if self.atol is None else self.atol
        lost = 0.0 if self.method == "complex" else 10 * self.noise / reach
        return np.asarray(relative + absolute + lost)

    def _note_agreement(self, step: int) -> None:
        self.agreed_at.append(step)
        if len(self.agreed_at) == 16:
            self.start = min(sorted(self.agreed_at)[8], len(STEPS[self.method]) - 1)

    def _result(
        self,
        verdict: Verdict,
        analytic: Sequence[float],
        numeric: Sequence[float],
        tolerance: np.ndarray,
    ) -> Comparison:
        excess = np.abs(np.subtract(analytic, numeric)) / np.maximum(tolerance, 1e-300)
        worst = int(np.nan_to_num(excess, nan=np.inf).argmax())
        return Comparison(verdict, float(analytic[worst]), float(numeric[worst]), worst)


def _most_settled(found: list[list[float]]) -> list[float]:
    """Of the results at several steps the one that changed least to the next."""
    if len(found) == 1:
        return found[0]
    changes = [np.abs(np.subtract(a, b)).max() for a, b in pairwise(found)]
    changes = [np.inf if np.isnan(change) else change for change in changes]
    return found[int(np.argmin(changes)) + 1]
