"""Checking an answer: run it on every case, compare, and say what is wrong with it."""

import contextlib
import copy
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..gradcheck.patterns import Diagnosis, describe
from .comparing import Outcome, as_tuple, difference, problem, run_case, worst_element
from .format import Exercise
from .naming import name_mistakes
from .verdict import CRASHED, NOT_STARTED, PASSED, WRONG, Verdict

Guard = Callable[[], contextlib.AbstractContextManager[Any]]


def check_function(
    exercise: Exercise,
    function: Callable[..., Any],
    seed: int = 0,
    file: str = "",
    guard: Guard = contextlib.nullcontext,
    progress: Callable[[str], None] = lambda label: None,
) -> Verdict:
    """Run an answer on all cases of an exercise and name what is wrong with it.

    ``file`` is where the answer stands, so that errors can be placed. ``guard`` surrounds every
    call of the answer; ``progress`` is told the label of each case before it runs.
    """
    start = time.perf_counter()
    outcomes: dict[str, Outcome] = {}
    rights: dict[str, tuple[Any, ...]] = {}
    ladder: list[tuple[str, str]] = []
    for label in exercise.cases:
        args = exercise.arguments(label, seed)
        rights[label] = as_tuple(exercise.expected(**copy.deepcopy(args)))
        progress(label)
        with guard():
            outcomes[label] = run_case(exercise, function, args)
        error = outcomes[label].error
        if isinstance(error, NotImplementedError):
            return Verdict(exercise.name, NOT_STARTED, missing(error, file))
        ladder.append((label, problem(exercise, outcomes[label], rights[label])))
    verdict = Verdict(exercise.name, PASSED, exercise.payoff, ladder=ladder)
    if any(text for _, text in ladder):
        _explain(verdict, exercise, outcomes, rights, seed, file)
    elif exercise.extra is not None:
        progress("further checks")
        with guard():
            complaint = exercise.extra(function, np.random.default_rng([seed, exercise.number]))
        if complaint:
            verdict.status, verdict.headline = WRONG, complaint
    verdict.seconds = time.perf_counter() - start
    return verdict


def _explain(
    verdict: Verdict,
    exercise: Exercise,
    outcomes: dict[str, Outcome],
    rights: dict[str, tuple[Any, ...]],
    seed: int,
    file: str,
) -> None:
    """Fill in what is wrong: a known mistake if there is one, the first wrong case if not."""
    failed = {label: text for label, text in verdict.ladder if text}
    first = next(iter(failed))
    error = outcomes[first].error
    verdict.status = WRONG if error is None else CRASHED
    mistakes, unexplained = name_mistakes(exercise, outcomes, rights, seed)
    verdict.mistakes = [mistake.name for mistake in mistakes]
    verdict.details = list(dict.fromkeys(mistake.why for mistake in mistakes))
    names = " and ".join(unexplained)
    if mistakes and unexplained:
        verdict.details.append(f"That does not explain all that is wrong with {names}.")
    if mistakes:
        verdict.headline = "; ".join(mistake.verdict for mistake in mistakes)
    elif error is not None:
        verdict.headline = f"an error in the case '{first}'"
    else:
        verdict.headline = f"{_where(verdict.ladder, failed)}: {failed[first]}"
    if error is not None:
        verdict.details.append(f"{failed[first]}{place_of(error, file)}")
        return
    patterns = _patterns(exercise, failed, outcomes, rights, unexplained)
    verdict.details += [f"{it.name} ({it.evidence}): {it.hint.rstrip('.')}" for it in patterns]
    for label in failed:
        elements = [
            worst_element(name, value, right)
            for name, value, right in zip(
                exercise.outputs, outcomes[label].values, rights[label], strict=False
            )
            if difference(name, value, right, exercise.tolerance)
        ]
        if any(elements):
            verdict.worst = f"{next(filter(None, elements))}, case '{label}'"
            break


def _patterns(
    exercise: Exercise,
    failed: Iterable[str],
    outcomes: dict[str, Outcome],
    rights: dict[str, tuple[Any, ...]],
    names: Iterable[str],
) -> list[Diagnosis]:
    """What turns the right results into those found, in the most general case that is wrong."""
    found = []
    for name in names:
        position = exercise.outputs.index(name)
        for label in reversed(list(failed)):
            value, right = outcomes[label].value(position), rights[label][position]
            text = difference(name, value, right, exercise.tolerance)
            if isinstance(value, np.ndarray) and value.shape == right.shape and text:
                diagnosis = describe(name, value, right)
                found += [diagnosis] if diagnosis else []
                break
    return found


def _where(ladder: list[tuple[str, str]], failed: dict[str, str]) -> str:
    """Up to where on the ladder the answer is right."""
    if len(failed) == len(ladder):
        return "wrong in every case"
    first = next(iter(failed))
    if ladder[0][0] == first:
        return f"wrong in {len(failed)} of {len(ladder)} cases, first in '{first}'"
    return f"right until '{first}'"


def missing(error: BaseException, file: str) -> str:
    """Whether it is this function that is empty, or one from another exercise that it calls."""
    raised = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if file and str(raised) != file and raised.parent == Path(file).parent:
        number, _, name = raised.stem.partition("_")
        return f"it calls {name}, which is not started (exercise {number.lstrip('e0')})"
    return "the function is still empty"


def place_of(error: BaseException, file: str) -> str:
    """Where in the learner's folder an error arose, as ``, line 12: y = x / 0``."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if file and Path(frame.filename).parent == Path(file).parent:
            other = "" if frame.filename == file else f" {Path(frame.filename).name}"
            return f",{other} line {frame.lineno}: {frame.line}"
    return ""
