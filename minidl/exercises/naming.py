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

    Either one mistake that does the same in all cases, or one for each result that is wrong.
    """
    banks = {
        mistake.name: {
            label: run_case(exercise, plant(exercise, mistake), exercise.arguments(label, seed))
            for label in exercise.cases
        }
        for mistake in exercise.mistakes
    }
    for mistake in exercise.mistakes:
        bank = banks[mistake.name]
        if all(_alike(outcomes[label], bank[label], exercise) for label in exercise.cases):
            return [mistake], []
    found: dict[str, Mistake] = {}
    unexplained = []
    for position, name in enumerate(exercise.outputs):
        right = {label: values[position] for label, values in rights.items()}
        answer = {label: outcome.value(position) for label, outcome in outcomes.items()}
        if not _is_wrong(exercise, name, answer, right):
            continue
        for mistake in exercise.mistakes:
            bank = banks[mistake.name]
            planted = {label: outcome.value(position) for label, outcome in bank.items()}
            if _is_wrong(exercise, name, planted, right) and all(
                _same(answer[label], planted[label], exercise) for label in answer
            ):
                found[mistake.name] = mistake
                break
        else:
            unexplained.append(name)
    return list(found.values()), unexplained


def _is_wrong(
    exercise: Exercise, name: str, column: Mapping[str, Any], right: Mapping[str, Any]
) -> bool:
    """Whether one of the results is wrong in any case."""
    return any(
        difference(name, column[label], right[label], exercise.tolerance) for label in column
    )


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
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind not in "fiub":
        return False
    return bool(close(a, b, exercise.tolerance).all())
