"""Recognising mistakes: which of an exercise's own mistakes does just what the answer does?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .comparing import Outcome, close, difference, run_case
from .format import Exercise, Mistake
from .sources import plant

Outcomes = Mapping[str, Outcome]


def name_mistakes(
    exercise: Exercise, outcomes: Outcomes, rights: Mapping[str, tuple[Any, ...]], seed: int
) -> tuple[list[Mistake], list[str]]:
    """The known mistakes that explain what an answer did, and the results they do not explain.

    Either one mistake that does the same in all cases, or one for each result that is wrong, which
    does the same in the first case where that result is wrong and in most of them.
    """
    banks = {}
    for mistake in exercise.mistakes:
        planted = plant(exercise, mistake)
        banks[mistake.name] = {
            label: run_case(exercise, planted, exercise.arguments(label, seed))
            for label in exercise.cases
        }
    for mistake in exercise.mistakes:
        bank = banks[mistake.name]
        if all(_alike(outcomes[label], bank[label], exercise) for label in exercise.cases):
            return [mistake], []
    found: dict[str, Mistake] = {}
    unexplained = []
    for position, name in enumerate(exercise.outputs):
        answer = {label: outcome.value(position) for label, outcome in outcomes.items()}
        wrong = [
            label
            for label, right in rights.items()
            if difference(name, answer[label], right[position], exercise.tolerance)
        ]
        explained = {
            mistake.name: [
                label
                for label in wrong
                if _same(answer[label], banks[mistake.name][label].value(position), exercise)
            ]
            for mistake in exercise.mistakes
        }
        likely = [
            mistake
            for mistake in exercise.mistakes
            if wrong[:1] == explained[mistake.name][:1] != []
            and 2 * len(explained[mistake.name]) > len(wrong)
        ]
        best = max(likely, key=lambda mistake: len(explained[mistake.name]), default=None)
        if best:
            found[best.name] = best
        if wrong and (best is None or explained[best.name] != wrong):
            unexplained.append(name)
    return list(found.values()), unexplained


def _alike(a: Outcome, b: Outcome, exercise: Exercise) -> bool:
    if a.error is not None or b.error is not None:
        return _same(a.error, b.error, exercise)
    return (
        a.changed == b.changed
        and len(a.values) == len(b.values)
        and all(_same(x, y, exercise) for x, y in zip(a.values, b.values, strict=True))
    )


def _same(a: Any, b: Any, exercise: Exercise) -> bool:
    if isinstance(a, RecursionError) and isinstance(b, RecursionError):
        return True  # its text depends on where Python noticed
    if isinstance(a, Exception) or isinstance(b, Exception) or a is None or b is None:
        return type(a) is type(b) and str(a) == str(b)
    if isinstance(a, list | tuple | str) or isinstance(b, list | tuple | str):
        return type(a) is type(b) and a == b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind not in "fiub":
        return False
    return bool(close(a, b, exercise.tolerance).all())
