"""What must hold of every backward pass, whatever it computes.

The same call gives the same result, inputs stay as they are, gradients have the shape and dtype of
what they are gradients of, and they are linear in the upstream gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .numeric import Outputs
from .subject import Backward, Subject, WrongResultError, namespace

__all__ = ["Problem", "Unsteady", "analytic_gradients", "check_forward", "probe"]

CLOSE = 1e-9  # relative: what different orders of summation may change, and no mistake does

Gradients = list[Any]  # one per array; None where it has the wrong shape or is no array


@dataclass(frozen=True)
class Problem:
    """Something that is wrong apart from the values of the gradients."""

    kind: str
    text: str
    hint: str


class Unsteady(Exception):
    """The function cannot be checked at all; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


def check_forward(subject: Subject) -> tuple[Outputs, Backward, list[Problem]]:
    """Call the function twice. Raises `Unsteady` unless it is a finite function of its inputs."""
    before = [array.copy() for array in subject.arrays]
    outputs, backward = subject.record()
    problems = _changed(subject, before, "the forward pass")
    for i, output in enumerate(outputs):
        finite = namespace(output).isfinite(output)
        if not bool(finite.all()):
            raise Unsteady(
                Problem(
                    "not finite",
                    f"output {i} has {int((~finite).sum())} NaN or infinite elements of "
                    f"{output.size}",
                    "check at inputs where the function is finite",
                )
            )
    again = subject.value()
    if [y.shape for y in again] != [y.shape for y in outputs] or not all(
        _close(a, b, _largest(a)) for a, b in zip(outputs, again, strict=True)
    ):
        raise Unsteady(
            Problem(
                "not deterministic",
                "the function returned different values for the same inputs",
                "does it draw random numbers, or keep something from one call to the next? Draw "
                "with a fixed seed, or from minidl's generator, which the check holds still",
            )
        )
    return outputs, backward, problems


def analytic_gradients(
    subject: Subject, backward: Backward, upstream: Outputs, last: bool = False
) -> tuple[Gradients, list[Problem]]:
    """The gradients of every array, and what is wrong with them at first sight."""
    before = [array.copy() for array in subject.arrays]
    handed = [v.copy() for v in upstream]
    try:
        found = backward(handed, last=last)
    except WrongResultError as error:
        return [None] * len(subject.arrays), [
            Problem("not a gradient", str(error), "return one array per input, in their order")
        ]
    problems = _changed(subject, before, "the backward pass")
    if any(bool((a != b).any()) for a, b in zip(handed, upstream, strict=True)):
        problems.append(
            Problem(
                "upstream changed",
                "the backward pass changed the upstream gradient it was given",
                "work on a copy: what came from upstream belongs to somebody else",
            )
        )
    gradients: Gradients = []
    for name, array, gradient in zip(subject.names, subject.arrays, found, strict=True):
        problem = _at_first_sight(name, array, gradient)
        problems += [problem] if problem else []
        usable = problem is None or problem.kind in ("dtype", "not finite")
        gradients.append(gradient.astype(array.dtype) if usable else None)  # astype copies
    return gradients, problems


def _at_first_sight(name: str, array: Any, gradient: Any) -> Problem | None:
    if not hasattr(gradient, "dtype"):
        return Problem(
            "not a gradient",
            f"the gradient of {name} is a {type(gradient).__name__}, not an array",
            "return an array for every input",
        )
    if gradient.shape != array.shape:
        return Problem(
            "shape",
            f"the gradient of {name} has shape {gradient.shape}, but {name} has {array.shape}",
            f"a gradient has the shape of what it is a gradient of{_transposed(gradient, array)}",
        )
    if gradient.dtype != array.dtype:
        return Problem(
            "dtype",
            f"the gradient of {name} is {gradient.dtype}, but {name} is {array.dtype}",
            "allocate with the dtype of the input: np.zeros(n) is float64, np.zeros_like(x) is x's",
        )
    if not bool(namespace(gradient).isfinite(gradient).all()):
        return Problem(
            "not finite",
            f"the gradient of {name} has NaN or infinite elements",
            "a division by zero, or an overflow?",
        )
    return None


def _transposed(gradient: Any, array: Any) -> str:
    same = sorted(gradient.shape) == sorted(array.shape)
    return ": these are the right sizes in another order" if same else ""


def probe(
    subject: Subject, backward: Backward, upstream: Outputs, found: Gradients
) -> list[Problem]:
    """Hold gradients `found` for `upstream` against those of related calls."""
    problems = []
    sizes = _sizes(found, upstream)
    twice = [analytic_gradients(subject, backward, upstream)[0] for _ in range(2)]
    if not all(_all_close(found, again, sizes) for again in twice):
        problems.append(
            Problem(
                "not repeatable",
                "the same backward pass, run twice, gave different gradients",
                "it changes its cache, adds to what the last call left, or draws a new mask",
            )
        )
    zeros, _ = analytic_gradients(subject, backward, [v * 0 for v in upstream])
    for name, zero, size in zip(subject.names, zeros, sizes, strict=True):
        if zero is not None and not _close(zero, zero * 0, size):
            problems.append(
                Problem(
                    "upstream",
                    f"an upstream gradient of zeros gives {name} a gradient that is not zero",
                    "every term of the chain rule has the upstream gradient as a factor",
                )
            )
    others = [v[tuple(slice(None, None, -1) for _ in v.shape)] * 0.75 + 0.25 for v in upstream]
    alone, _ = analytic_gradients(subject, backward, others)
    both, _ = analytic_gradients(
        subject, backward, [v + w for v, w in zip(upstream, others, strict=True)]
    )
    for name, one, other, sum_, size in zip(subject.names, found, alone, both, sizes, strict=True):
        usable = one is not None and other is not None and sum_ is not None
        if usable and not problems and not _close(one + other, sum_, size):
            problems.append(
                Problem(
                    "linearity",
                    f"the gradient of {name} for the sum of two upstream gradients is not the sum "
                    f"of its gradients",
                    "a gradient is linear in the upstream gradient; a mask or a branch belongs to "
                    "the input, not to the upstream gradient",
                )
            )
    return problems + _probe_state(subject, upstream, found, sizes, problems)


def _sizes(gradients: Gradients, upstream: Outputs) -> list[float]:
    """How large gradients are, to compare differences with; where one is zero but for rounding
    errors (of a bias before batch normalisation), the errors come from its larger neighbours."""
    own = [0.0 if g is None else _largest(g) for g in gradients]
    around = max([*own, *(_largest(v) for v in upstream)])
    return [max(size, 1e-4 * around) for size in own]


def _probe_state(
    subject: Subject,
    upstream: Outputs,
    found: Gradients,
    sizes: Sequence[float],
    problems: Sequence[Problem],
) -> list[Problem]:
    """Whether a call in between, with other inputs, disturbs the backward pass of the first."""
    _, backward = subject.record()
    others = list(subject.arrays)
    for k in subject.inputs:
        others[k] = others[k] * 1.25
    subject.record(others)
    late, _ = analytic_gradients(subject, backward, upstream)
    if problems or _all_close(found, late, sizes):
        return []
    return [
        Problem(
            "state",
            "another forward pass in between changed the gradients of the first",
            "keep what backward needs in a cache of its own for every call, not in one place",
        )
    ]


def _changed(subject: Subject, before: Sequence[Any], who: str) -> list[Problem]:
    problems = []
    for name, array, old in zip(subject.names, subject.arrays, before, strict=True):
        if bool((array != old).any()):
            array[...] = old
            problems.append(
                Problem(
                    "input changed", f"{who} changed its input {name}", f"work on a copy of {name}"
                )
            )
    return problems


def _all_close(a: Gradients, b: Gradients, sizes: Sequence[float]) -> bool:
    return all(
        _close(x, y, size) if x is not None and y is not None else (x is None) == (y is None)
        for x, y, size in zip(a, b, sizes, strict=True)
    )


def _close(a: Any, b: Any, size: float) -> bool:
    """Whether a = b up to rounding errors of numbers of this size."""
    xp = namespace(a)
    both = xp.isnan(a) & xp.isnan(b)
    return _largest(xp.where(both, 0.0, a - b)) <= CLOSE * size


def _largest(array: Any) -> float:
    """The largest absolute value, infinite ones left aside; NaN if there is any."""
    absolute = abs(array)
    finite = namespace(array).where(absolute == np.inf, 0.0, absolute)
    return float(finite.max()) if array.size else 0.0
