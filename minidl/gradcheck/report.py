"""What a gradient check found out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .compare import Comparison, Verdict
from .patterns import Diagnosis
from .probes import Problem

__all__ = ["ArrayReport", "GradReport"]

MOST_KINKS = 0.2  # of what was checked: with more left out, a check has shown nothing


@dataclass
class ArrayReport:
    """What was found about the gradient of one input or parameter.

    Attributes:
        name: of the input or parameter.
        analytic: the gradient from the backward pass, or None if it has the wrong shape.
        numeric: the one from evaluating the function; NaN where it was not computed.
        verdicts: a `Verdict` per element.
        noise: the floor of rounding errors in `numeric`.
    """

    name: str
    shape: tuple[int, ...]
    analytic: np.ndarray | None
    numeric: np.ndarray
    verdicts: np.ndarray
    noise: float

    @property
    def checked(self) -> int:
        """How many elements were looked at."""
        return int((self.verdicts != Verdict.UNCHECKED).sum())

    @property
    def wrong(self) -> int:
        """How many of them are wrong."""
        return int((self.verdicts == Verdict.WRONG).sum())

    @property
    def kinks(self) -> int:
        """How many were left out, because the function has a kink there."""
        return int((self.verdicts == Verdict.KINK).sum())

    @property
    def worst(self) -> tuple[int, ...] | None:
        """The index of the worst wrong element, None if there is none."""
        wrong = self.verdicts == Verdict.WRONG
        if self.analytic is None or not wrong.any():
            return None
        error = np.where(wrong, np.abs(self.analytic - self.numeric), -1.0)
        error = np.nan_to_num(error, nan=np.inf)
        return tuple(int(i) for i in np.unravel_index(int(error.argmax()), self.shape))

    @property
    def worst_analytic(self) -> float:
        """The gradient from the backward pass at the worst element."""
        return float("nan") if self.worst is None else float(self.analytic[self.worst])  # type: ignore[index]

    @property
    def worst_numeric(self) -> float:
        """The gradient from evaluating the function at the worst element."""
        return float("nan") if self.worst is None else float(self.numeric[self.worst])

    @property
    def ratio(self) -> float:
        """Analytic divided by numeric at the worst element."""
        numeric = self.worst_numeric
        return self.worst_analytic / numeric if numeric else float("inf")

    @property
    def box(self) -> tuple[tuple[int, int], ...] | None:
        """The smallest block that holds all wrong elements: (start, stop) for every axis."""
        wrong = np.argwhere(self.verdicts == Verdict.WRONG)
        if not len(wrong):
            return None
        ends = zip(wrong.min(0).tolist(), (wrong.max(0) + 1).tolist(), strict=True)
        return tuple((int(a), int(b)) for a, b in ends)

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the two gradients, as far as both are known."""
        if self.analytic is None:
            return float("nan")
        known = np.isfinite(self.numeric) & np.isfinite(self.analytic)
        a, n = self.analytic[known], self.numeric[known]
        length = float(np.sqrt((a * a).sum() * (n * n).sum()))
        return float((a * n).sum()) / length if length else float("nan")

    @property
    def scale(self) -> float:
        """The largest element of the numeric gradient."""
        known = np.abs(self.numeric[np.isfinite(self.numeric)])
        return float(known.max(initial=0.0))

    def as_dict(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "checked": self.checked,
            "wrong": self.wrong,
            "worst": None if self.worst is None else list(self.worst),
            "analytic": _number(self.worst_analytic),
            "numeric": _number(self.worst_numeric),
            "ratio": _number(self.ratio) if self.worst is not None else None,
            "box": None if self.box is None else [list(ends) for ends in self.box],
            "cosine": _number(self.cosine),
            "scale": self.scale,
            "kinks": self.kinks,
            "noise": self.noise,
        }


@dataclass
class GradReport:
    """The result of `md.gradcheck`; true if the gradients passed.

    Attributes:
        title: the function that was checked.
        status: "passed", "failed", or "inconclusive" when too little could be checked.
        arrays: an `ArrayReport` for every input and parameter.
        directions: the derivatives along random directions, where elements were too many.
        problems: what is wrong apart from values: shapes, changed inputs, state.
        diagnoses: what the mistake probably is, the most certain first.
        reproduce: a call that checks the worst element alone.
        method, mode, seeds: how it was checked.
        held: inputs that were not differentiated by.
        rungs: names and statuses of the configurations that `check_ladder` tried.
    """

    title: str
    arrays: list[ArrayReport]
    directions: list[Comparison]
    problems: list[Problem]
    method: str
    mode: str
    seeds: tuple[int, ...]
    reproduce: str
    obstacle: Problem | None = None  # why nothing can be said
    diagnoses: list[Diagnosis] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    rungs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> str:
        """ "passed", "failed" or "inconclusive"."""
        if self.problems or self.wrong:
            return "failed"
        if self.obstacle is not None or self.kinks > MOST_KINKS * self.checked:
            return "inconclusive"
        return "passed"

    @property
    def ok(self) -> bool:
        """Whether the gradients passed; "inconclusive" is not passed."""
        return self.status == "passed"

    def __bool__(self) -> bool:
        return self.ok

    @property
    def wrong(self) -> int:
        """How many elements and directions are wrong."""
        return sum(a.wrong for a in self.arrays) + self._directions(Verdict.WRONG)

    @property
    def kinks(self) -> int:
        """How many elements and directions were left out at kinks."""
        return sum(a.kinks for a in self.arrays) + self._directions(Verdict.KINK)

    @property
    def checked(self) -> int:
        """How many elements and directions were looked at."""
        return sum(a.checked for a in self.arrays) + len(self.directions)

    def _directions(self, verdict: Verdict) -> int:
        return sum(d.verdict == verdict for d in self.directions)

    def __getitem__(self, name: str) -> ArrayReport:
        """The report on the input or parameter of that name."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise KeyError(f"no input or parameter {name!r}; there are {[a.name for a in self.arrays]}")

    def __str__(self) -> str:
        from .text import as_text

        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from .text import as_html

        return as_html(self)

    def heat_map(self, name: str | None = None) -> Any:
        """A matplotlib figure of one gradient: analytic, numeric, and where they differ.

        Args:
            name: which input or parameter; by default the one with the largest share of mistakes.

        Raises KeyError for an unknown name, ImportError without matplotlib.
        """
        from .drawing import heat_map

        return heat_map(self, name)

    def to_json(self) -> str:
        """All numbers but the arrays themselves, as a JSON object."""
        return json.dumps(
            {
                "title": self.title,
                "ok": self.ok,
                "status": self.status,
                "method": self.method,
                "mode": self.mode,
                "seeds": list(self.seeds),
                "held": self.held,
                "rungs": self.rungs,
                "arrays": [array.as_dict() for array in self.arrays],
                "directions": [
                    {
                        "verdict": direction.verdict.name.lower(),
                        "analytic": _number(direction.analytic),
                        "numeric": _number(direction.numeric),
                    }
                    for direction in self.directions
                ],
                "problems": [vars(problem) for problem in self.problems],
                "obstacle": None if self.obstacle is None else vars(self.obstacle),
                "diagnoses": [vars(diagnosis) for diagnosis in self.diagnoses],
                "reproduce": self.reproduce,
            },
            indent=1,
        )


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if np.isfinite(value) else None
