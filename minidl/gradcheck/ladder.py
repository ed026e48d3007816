"""A ladder of configurations: where a gradient stops being right says what it forgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .check import gradcheck
from .patterns import Diagnosis
from .report import GradReport

__all__ = ["Rung", "check_ladder"]


class Rung(NamedTuple):
    """One configuration: a name that says what is new ("stride 2"), and what to check."""

    name: str
    fn: Any
    inputs: Any


def check_ladder(rungs: Sequence[Rung], **options: Any) -> GradReport:
    """`gradcheck` at every rung, from the simplest to the most general.

    Returns the report on the first rung that does not pass, with what all rungs say as its first
    diagnosis, or on the last rung if all pass; `report.rungs` lists names and statuses. `options`
    are passed to `gradcheck`. Raises ValueError without rungs.

    >>> import numpy as np
    >>> def forward(x):
    ...     return x.mean(0)
    >>> def backward(upstream, x):
    ...     return np.broadcast_to(upstream, x.shape)  # divides by nothing
    >>> rungs = [Rung(f"batch of {n}", (forward, backward), np.ones((n, 3))) for n in (1, 2, 4)]
    >>> report = check_ladder(rungs)
    >>> report.rungs
    [('batch of 1', 'passed'), ('batch of 2', 'failed'), ('batch of 4', 'failed')]
    >>> report.diagnoses[0].name
    'right until: batch of 2'
    """
    if not rungs:
        raise ValueError("check_ladder: no rungs")
    reports = [gradcheck(rung.fn, rung.inputs, **options) for rung in rungs]
    statuses = [(rung.name, report.status) for rung, report in zip(rungs, reports, strict=True)]
    first = next((i for i, report in enumerate(reports) if not report.ok), len(reports) - 1)
    report = reports[first]
    report.rungs = statuses
    passed = [name for name, status in statuses if status == "passed"]
    if not report.ok:
        others = [name for name, status in statuses[first + 1 :] if status != "passed"]
        name = f"right until: {rungs[first].name}" if first else "wrong from the first rung"
        evidence = f"passed: {', '.join(passed) or 'nothing'}; failed: " + ", ".join(
            [rungs[first].name, *others]
        )
        hint = "what does this configuration need that the ones before do not?"
        if first == 0:
            hint = "begin with the simplest case; the others build on it"
        report.diagnoses.insert(0, Diagnosis(name, evidence, hint))
    return report
