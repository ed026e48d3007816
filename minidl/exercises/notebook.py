"""Checking an answer inside a notebook, with the report and a heat map beside the verdict."""

import base64
import html
import io
from collections.abc import Callable
from typing import Any

from ..gradcheck import GradReport, gradcheck
from .catalogue import find
from .checking import check_function
from .format import Exercise
from .show import STYLES, verdict_lines
from .verdict import PASSED, WRONG, Verdict

COLOURS = {"green": "#18794e", "red": "#cd2b31", "magenta": "#8e4ec6", "yellow": "#8a6d00"}


class Checked:
    """A verdict, and for gradients md.gradcheck's report; both show themselves in a notebook."""

    def __init__(self, verdict: Verdict, report: GradReport | None) -> None:
        self.verdict = verdict
        self.report = report

    @property
    def ok(self) -> bool:
        """Whether the answer passed."""
        return self.verdict.exit_code == 0

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return "\n".join(text for _, text in verdict_lines(self.verdict))

    def _repr_html_(self) -> str:
        colour = COLOURS[STYLES[self.verdict.status].split()[-1]]
        first, _, rest = repr(self).partition("\n")
        page = f'<b style="color:{colour}">{html.escape(first)}</b><pre>{html.escape(rest)}</pre>'
        if self.report is not None:
            page += self.report._repr_html_() + _heat_map(self.report)
        return page


def _heat_map(report: GradReport) -> str:
    """The heat map as an image inside of the page."""
    try:
        figure = report.heat_map()
    except ImportError as error:
        return f"<p>{html.escape(str(error))}</p>"
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=80)
    encoded = base64.b64encode(image.getvalue()).decode()
    return f'<img alt="heat map of the gradients" src="data:image/png;base64,{encoded}">'


def check(name: str, function: Callable[..., Any], seed: int = 0) -> Checked:
    """Check an answer to an exercise; in a notebook, shows what is wrong with it and where.

    Other than the command, it runs the function in this process: a loop without end is yours to
    interrupt. Raises :class:`ValueError` for an unknown exercise.

    >>> check("relu_backward", lambda d, x: d * (d > 0))
    5  relu_backward: wrong
      The mask is made from the gradient d, where it must be made from x.
      ...
    """
    exercise = find(name)
    verdict = check_function(exercise, function, seed)
    return Checked(verdict, _report(exercise, function, verdict, seed))


def _report(
    exercise: Exercise, function: Callable[..., Any], verdict: Verdict, seed: int
) -> GradReport | None:
    """md.gradcheck's report on the first case that is wrong, or the last one if none is.

    Cases that are all kinks (ties in max pooling) say nothing about a right answer: they are passed
    over. None where the exercise is no gradient, or its shapes are wrong already.
    """
    if exercise.pair is None or verdict.status not in (PASSED, WRONG):
        return None
    wrong = [label for label, text in verdict.ladder if text]
    report = None
    for label in wrong[:1] or [label for label, _ in reversed(verdict.ladder)]:
        pair, inputs = exercise.pair(function, **exercise.arguments(label, seed))
        try:
            report = gradcheck(pair, inputs)
        except (TypeError, ValueError):
            return None  # the answer returns something that is no gradient; the verdict says what
        if report.status != "inconclusive":
            break
    return report
