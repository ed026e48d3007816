"""Derivatives by evaluating the function nearby.

A `Move` changes the subject's arrays along a straight line, t units from where they are; the
derivative by t is taken of every output element at once and weighed with the upstream gradients
afterwards, so that one set of evaluations serves several of them, and only what changes is
subtracted.

Sources: five points, i.e. central differences with one step of Richardson's extrapolation: Fornberg
(1988), table 1; complex step: Squire and Trapp (1998); noise: Hamming's difference table as in
Moré and Wild (2011), "Estimating computational noise", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._kernels import array_namespace
from .subject import Subject

__all__ = [
    "STEPS",
    "Line",
    "central",
    "complex_step",
    "direction",
    "element",
    "noise",
    "one_sided",
    "richardson",
    "typical_size",
    "weigh",
]

# The steps to try in turn, as fractions of an array's typical size: each next one where a kink, or
# curvature, disturbed the one before.
STEPS = {
    "richardson": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    "central": (1e-4, 1e-5, 1e-6, 1e-3),
    "complex": (1e-30,),
}

Outputs = list[Any]


class Line:
    """The subject along x + t d; `d` maps the number of an array to a direction for it."""

    def __init__(self, subject: Subject, directions: dict[int, Any]) -> None:
        self.subject, self.directions = subject, directions
        self.start = {k: subject.arrays[k].copy() for k in directions}

    def _go(self, t: float) -> None:
        for k, d in self.directions.items():
            self.subject.arrays[k][...] = self.start[k] + t * d

    def _back(self) -> None:
        for k, start in self.start.items():
            self.subject.arrays[k][...] = start

    def at(self, t: float) -> Outputs:
        """The outputs t units along the line; copies, because they may be views of the arrays."""
        return self._visit(t, lambda: [output.copy() for output in self.subject.value()])

    def branches(self, t: float) -> Outputs:
        """The branches taken there."""
        return self._visit(t, self.subject.branches)

    def _visit(self, t: float, look: Callable[[], Outputs]) -> Outputs:
        self._go(t)
        try:
            return look()
        finally:
            self._back()

    def imaginary(self, t: float) -> Outputs:
        """The outputs at x + i t d."""
        arrays = list(self.subject.arrays)
        for k, d in self.directions.items():
            arrays[k] = self.start[k] + 1j * (t * d)
        return self.subject.value(arrays)


class _ElementLine(Line):
    """A line along one element: cheaper than an array of zeros with a one."""

    def __init__(self, subject: Subject, k: int, index: int, size: float) -> None:
        self.subject, self.k, self.index, self.size = subject, k, index, size
        self.flat = subject.arrays[k].reshape(-1)  # a view
        self.value = self.flat[index].item()

    def _go(self, t: float) -> None:
        self.flat[self.index] = self.value + t * self.size

    def _back(self) -> None:
        self.flat[self.index] = self.value

    def imaginary(self, t: float) -> Outputs:
        arrays = list(self.subject.arrays)
        arrays[self.k] = arrays[self.k].astype(np.complex128)
        arrays[self.k].reshape(-1)[self.index] += 1j * t * self.size
        return self.subject.value(arrays)


def typical_size(array: Any) -> float:
    """The root mean square of the elements; 1 if all are zero, or there are none."""
    return (float((array * array).sum()) / max(array.size, 1)) ** 0.5 or 1.0


def element(subject: Subject, k: int, index: int, size: float) -> Line:
    """The line along element `index` of the k-th array, in units of `size`."""
    return _ElementLine(subject, k, index, size)


def direction(subject: Subject, rng: np.random.Generator, arrays: Sequence[int]) -> Line:
    """A line in a random direction in several arrays, in each as long as the array is large."""
    chosen = {}
    for k in arrays:
        array = subject.arrays[k]
        drawn = rng.standard_normal(array.shape) * typical_size(array)
        chosen[k] = array_namespace(array).asarray(drawn)
    return Line(subject, chosen)


def central(line: Line, h: float) -> Outputs:
    """(f(h) - f(-h)) / 2h, of every output element. The error is of order h^2."""
    return [(above - below) / (2 * h) for above, below in _pairs(line, h)]


def richardson(line: Line, h: float) -> Outputs:
    """(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h. The error is of order h^4."""
    near, far = _pairs(line, h), _pairs(line, 2 * h)
    return [(8 * (a - b) - (c - d)) / (12 * h) for (a, b), (c, d) in zip(near, far, strict=True)]


def complex_step(line: Line, h: float) -> Outputs:
    """Im f(x + ih) / h: nothing is subtracted, so nothing is lost."""
    outputs = line.imaginary(h)
    for output in outputs:
        if output.dtype.kind != "c":
            raise TypeError(
                "gradcheck: method='complex' needs a function that computes with complex numbers; "
                f"this one returned {output.dtype} for complex inputs (abs, .real and casts to "
                "float drop the imaginary part)"
            )
    return [output.imag / h for output in outputs]


def one_sided(line: Line, h: float) -> tuple[Outputs, Outputs]:
    """The slopes to the left and to the right, each by three points on its side."""
    here = line.at(0.0)
    slopes = []
    for side in (-h, h):
        near, far = line.at(side), line.at(2 * side)
        slopes.append(
            [(4 * a - b - 3 * y) / (2 * side) for a, b, y in zip(near, far, here, strict=True)]
        )
    return slopes[0], slopes[1]


def noise(line: Line, upstream: Sequence[Outputs]) -> float:
    """The rounding error (standard deviation) of <upstream, f>, measured along a line.

    A function in which nothing changes at the closest distance rounds more coarsely than float64,
    and is looked at from further away. At least the rounding of the sum itself.
    """
    measured = 0.0
    for spacing in (1e-10, 1e-7, 1e-5):
        measured = measured or _roughness(line, upstream, spacing)
    here = line.at(0.0)
    squares = [
        sum(float(((v * y) ** 2).sum()) for v, y in zip(weights, here, strict=True))
        for weights in upstream
    ]
    return max(measured, 1e-16 * max(squares) ** 0.5)


def _roughness(line: Line, upstream: Sequence[Outputs], spacing: float) -> float:
    """Third differences of values so close together that a smooth function has none: what is left
    is noise, amplified by 20 in variance."""
    values = [line.at(t * spacing) for t in range(7)]
    largest = 0.0
    for weights in upstream:
        projected = np.array(
            [weigh(weights, [y - y0 for y, y0 in zip(ys, values[0], strict=True)]) for ys in values]
        )
        largest = max(largest, float(np.sqrt((np.diff(projected, 3) ** 2).mean() / 20)))
    return largest


def weigh(upstream: Outputs, outputs: Outputs) -> float:
    """<upstream, outputs>, summed over all outputs."""
    return sum(float((v * y).sum()) for v, y in zip(upstream, outputs, strict=True))


def _pairs(line: Line, h: float) -> list[tuple[Any, Any]]:
    return list(zip(line.at(h), line.at(-h), strict=True))
