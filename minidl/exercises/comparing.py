"""Running an answer on one case, and comparing what it returned with what is right."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .format import Exercise


@dataclass(frozen=True)
class Outcome:
    """What a function did with the arguments of one case."""

    values: tuple[Any, ...] = ()
    error: Exception | SystemExit | None = None
    changed: tuple[str, ...] = ()

    def value(self, position: int) -> Any:
        """One of the results, or the error that came instead."""
        return self.values[position] if position < len(self.values) else self.error


def run_case(exercise: Exercise, function: Callable[..., Any], args: dict[str, Any]) -> Outcome:
    """Call the function on a copy of the arguments and see whether it changes them."""
    given = copy.deepcopy(args)
    try:
        with np.errstate(all="ignore"):
            result = exercise.call(function, given)
    except (Exception, SystemExit) as error:
        return Outcome(error=error)
    changed = tuple(name for name in args if not _equal(args[name], given[name]))
    return Outcome(as_tuple(result), changed=changed)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Results as a tuple, also where there is one."""
    return value if isinstance(value, tuple) else (value,)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return True


def problem(exercise: Exercise, outcome: Outcome, expected: tuple[Any, ...]) -> str:
    """What is wrong with an outcome, in a few words; empty if nothing is."""
    if outcome.error is not None:
        return f"{type(outcome.error).__name__}: {outcome.error}".splitlines()[0]
    values = outcome.values
    if len(values) == 1 and values[0] is None:
        return "returned None (is a `return` missing?)"
    if len(values) != len(expected):
        found = f"{len(values)} values" if len(values) > 1 else f"one {type(values[0]).__name__}"
        return f"returned {found}, expected {', '.join(exercise.outputs)}"
    texts = [
        difference(name, value, right, exercise.tolerance)
        for name, value, right in zip(exercise.outputs, values, expected, strict=True)
    ]
    texts += [f"{name} was changed, but it belongs to the caller" for name in outcome.changed]
    return "; ".join(filter(None, texts))


def difference(name: str, value: Any, right: Any, tolerance: float) -> str:
    """What is wrong with one result; empty if nothing is.

    >>> difference("dx", np.array([1.0, 2.0]), np.array([1.0, 3.0]), 1e-8)
    'dx is wrong in 1 of 2 elements'
    >>> difference("dx", [1.0, 3.0], np.array([1.0, 3.0]), 1e-8)
    'dx is a list, expected a NumPy array'
    """
    if isinstance(right, np.ndarray) and right.ndim and not isinstance(value, np.ndarray):
        return f"{name} is a {type(value).__name__}, expected a NumPy array"
    if not isinstance(value, np.ndarray | np.generic | int | float):
        return f"{name} is a {type(value).__name__}, expected a number"
    value, right = np.asarray(value), np.asarray(right)
    if value.shape != right.shape:
        return f"{name} has shape {value.shape}, expected {right.shape}"
    if value.dtype != right.dtype and (right.ndim or value.dtype.kind not in "fiu"):
        return f"{name} is {value.dtype}, expected {right.dtype}"
    bad = int((~close(value, right, tolerance)).sum())
    if not bad:
        return ""
    if not np.isfinite(value).all():
        return f"{name} holds inf or nan"
    return (
        f"{name} is wrong in {bad} of {value.size} elements" if value.ndim else f"{name} is wrong"
    )


def close(value: np.ndarray, right: np.ndarray, tolerance: float) -> np.ndarray:
    """Which elements agree within the tolerance, relative to the largest element."""
    finite = np.abs(right[np.isfinite(right)])
    scale = float(finite.max()) if finite.size else 0.0
    with np.errstate(all="ignore"):
        return np.isclose(value, right, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def worst_element(name: str, value: Any, right: Any) -> str:
    """Where two arrays of one shape differ most, and by how much; empty for other things.

    >>> worst_element("dx", np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    'dx[1] is 2, expected 4 (0.5 times as much)'
    """
    right = np.asarray(right)
    if not isinstance(value, np.ndarray | np.generic | int | float):
        return ""
    value = np.asarray(value)
    if value.shape != right.shape or value.dtype.kind not in "fiu" or not right.size:
        return ""
    error = np.abs(np.where(np.isfinite(value), value - right, np.inf))
    index = np.unravel_index(int(np.argmax(error)), error.shape)
    yours, wanted = float(value[index]), float(right[index])
    place = f"{name}[{', '.join(map(str, index))}]" if index else name
    ratio = yours / wanted if wanted and np.isfinite(yours) else 1.0
    telling = f" ({ratio:.4g} times as much)" if abs(ratio - 1) > 0.01 else ""
    return f"{place} is {yours:.8g}, expected {wanted:.8g}{telling}"
