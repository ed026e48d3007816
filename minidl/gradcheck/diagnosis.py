"""From a report to what the mistake probably is: known mistakes first, then patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .compare import Verdict
from .patterns import CLOSE, Diagnosis, Hints, describe
from .report import ArrayReport, GradReport
from .subject import host

__all__ = ["Mistake", "diagnose"]


@dataclass(frozen=True)
class Mistake:
    """A known mistake: a name, a backward pass that makes it, and what to do about it.

    `backward` is called as the pair's own; for functions of Tensors as
    `backward(upstream, *inputs, *parameters)`. It gets and returns arrays.
    """

    name: str
    backward: Callable[..., Any]
    hint: str = ""


def diagnose(
    report: GradReport, mistakes: Sequence[tuple[Mistake, list[Any]]], hints: Hints
) -> list[Diagnosis]:
    """What may explain the wrong gradients; `mistakes` with the gradients each of them gives."""
    wrong = [k for k, array in enumerate(report.arrays) if array.wrong]
    if not wrong:  # only a direction is: no element shows where
        wrong = list(range(len(report.arrays)))
        mistakes = [m for m in mistakes if all(map(_explains, report.arrays, m[1]))]
    found = []
    unexplained = set(wrong)
    for mistake, gradients in _most_explaining_first(report, wrong, mistakes):
        explained = {k for k in unexplained if _explains(report.arrays[k], gradients[k])}
        if explained:
            unexplained -= explained
            names = ", ".join(report.arrays[k].name for k in sorted(explained))
            found.append(
                Diagnosis(
                    mistake.name,
                    f"this mistake gives exactly these gradients of {names}",
                    mistake.hint,
                )
            )
    for k in sorted(unexplained):
        array = report.arrays[k]
        if array.analytic is not None and array.wrong:
            right = np.where(array.verdicts == Verdict.KINK, np.nan, array.numeric)
            pattern = describe(array.name, array.analytic, right, hints)
            found += [pattern] if pattern else []
    return found


def _most_explaining_first(
    report: GradReport, wrong: Sequence[int], mistakes: Sequence[tuple[Mistake, list[Any]]]
) -> list[tuple[Mistake, list[Any]]]:
    def explained(entry: tuple[Mistake, list[Any]]) -> int:
        return sum(_explains(report.arrays[k], entry[1][k]) for k in wrong)

    return sorted(mistakes, key=explained, reverse=True)


def _explains(array: ArrayReport, gradient: Any) -> bool:
    if array.analytic is None or gradient is None:
        return False
    gradient = host(gradient)
    if gradient.shape != array.shape:
        return False
    looked_at = np.isfinite(array.analytic)
    difference = np.abs(gradient - array.analytic)[looked_at]
    size = np.abs(array.analytic[looked_at]).max(initial=0.0)
    return bool(difference.max(initial=0.0) <= CLOSE * size)
