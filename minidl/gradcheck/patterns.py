"""Patterns that mistakes leave in a gradient: what turns the right one into the one found.

Works on two arrays alone, so that whoever knows the right values can ask what happened to others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Diagnosis", "Hints", "describe"]

CLOSE = 1e-5  # relative: measured gradients are better than that, and mistakes are larger
MOST_SHIFT = 3
MOST_CERTAIN = 6  # known elements: among fewer a common factor may be chance


@dataclass(frozen=True)
class Diagnosis:
    """What the mistake probably is: a name, what speaks for it, and what to do."""

    name: str
    evidence: str
    hint: str


@dataclass(frozen=True)
class Hints:
    """What the caller knows about a function.

    Attributes:
        factors: numbers by name that may be missing or too many ("1 - p": 0.8), or arrays that
            hold one per channel ("gamma").
        regions: masks by name of elements that may go wrong together ("where windows overlap").
        input_shape: of the function's first input, whose sizes are factors with names: N, H*W;
            None for the shape of the gradient itself.
    """

    factors: Mapping[str, Any]
    regions: Mapping[str, Any]
    input_shape: tuple[int, ...] | None = None


NOTHING = Hints({}, {})


def describe(name: str, got: Any, right: Any, hints: Hints = NOTHING) -> Diagnosis | None:
    """Say how `got` differs from `right`, the gradient of `name`; None if no pattern fits.

    NaN in `right` stands for elements that are not known.

    >>> import numpy as np
    >>> right = np.arange(12.0).reshape(4, 3)
    >>> describe("w", right / 4, right)
    Diagnosis(name='w: 1/N times what it should be', evidence='analytic = 0.25 * ...)
    >>> describe("w", right[::-1], right).name
    'w: flipped along axis 0'
    >>> describe("w", right - right.mean(0), right).name
    'w: a term is missing that is the same along axis 0'
    """
    got, right = np.asarray(got, dtype=float), np.asarray(right, dtype=float)
    if not np.isfinite(got).any():
        return None
    patterns = PATTERNS if np.isfinite(right).mean() > 0.75 else WITHOUT_PLACES
    with np.errstate(all="ignore"):
        for pattern in patterns if got.shape == right.shape else [_reordered]:
            found = pattern(got, right, hints)
            if found is not None:
                return Diagnosis(f"{name}: {found[0]}", found[1], found[2])
    return None


Found = tuple[str, str, str] | None


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a = b wherever both are known."""
    if a.shape != b.shape:
        return False
    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():
        return False
    size = max(np.abs(a[known]).max(), np.abs(b[known]).max())
    return bool(size > 0 and np.abs(a - b)[known].max() <= CLOSE * size)


def _zero(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    if got.any():
        return None
    return (
        "always zero",
        "analytic = 0 everywhere, numeric is not",
        "was it computed but not returned, or overwritten?",
    )


# ---- factors ----


def _factor(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    factor = _common_factor(got, right)
    if factor is None:
        return None
    evidence = f"analytic = {factor:.6g} * numeric, everywhere"
    if math.isclose(factor, -1, rel_tol=CLOSE):
        return "the sign is wrong", evidence, "a minus too many, or one missing"
    sign = "with the wrong sign and " if factor < 0 else ""
    names = [
        name
        for name, value in _named_factors(hints.input_shape or got.shape, hints)
        if _same(abs(factor), value)
    ]
    if names:
        return (
            f"{sign}{' or '.join(names[:3])} times what it should be",
            evidence,
            "a factor too many, or its inverse forgotten: a mean is a sum divided by the number "
            "of terms, and so is its gradient",
        )
    return (
        f"{sign}{abs(factor):.6g} times what it should be",
        evidence,
        "a constant factor is wrong",
    )


def _common_factor(got: np.ndarray, right: np.ndarray) -> float | None:
    """f with got = f * right wherever known, if there is one."""
    known = np.isfinite(got) & np.isfinite(right)
    squares = float((right[known] ** 2).sum())
    if not squares or known.sum() < min(MOST_CERTAIN, got.size):
        return None
    factor = float((got[known] * right[known]).sum()) / squares
    return factor if factor and _equal(got, factor * right) else None


def _named_factors(shape: tuple[int, ...], hints: Hints) -> Iterator[tuple[str, float]]:
    """Numbers with a name, each followed by its inverse; the caller's own first."""
    named = [(n, float(f)) for n, f in hints.factors.items() if np.ndim(f) == 0]
    letters = {4: "NCHW", 3: "NLD", 2: "ND", 1: "N"}.get(len(shape), "")
    sizes = dict(zip(letters, shape, strict=True)) if letters else {}
    if len(shape) == 4:
        sizes["H*W"] = sizes["H"] * sizes["W"]
        sizes["N*H*W"] = sizes["N"] * sizes["H*W"]
    named += list(sizes.items())
    for name, value in [*named, ("2", 2.0), ("number of elements", float(math.prod(shape)))]:
        if value not in (0, 1):
            yield name, value
            yield f"1/({name})" if len(name) > 1 and not name.isdigit() else f"1/{name}", 1 / value


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE)


def _factor_per_index(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    """One factor per channel, or per index of another axis."""
    for axis, n in enumerate(got.shape):
        if n < 2 or got.size == n:
            continue
        rows = zip(np.moveaxis(got, axis, 0), np.moveaxis(right, axis, 0), strict=True)
        factors = [_common_factor(a, b) for a, b in rows]
        if any(f is None for f in factors):
            continue
        found = np.array(factors, dtype=float)
        for name, value in hints.factors.items():
            given = np.asarray(value, dtype=float)
            if given.shape != (n,):
                continue
            if np.allclose(found * given, 1, rtol=CLOSE):
                text = f"{name} is missing"
            elif np.allclose(found, given, rtol=CLOSE):
                text = f"{name} is a factor too many"
            else:
                continue
            return (
                text,
                f"analytic / numeric along axis {axis} is {_list(found)}",
                "what multiplies on the way there multiplies on the way back, once",
            )
        return (
            f"each index of axis {axis} has another factor",
            f"analytic / numeric along axis {axis} is {_list(found)}",
            "a scale that belongs to this axis is missing, or too many",
        )
    return None


def _list(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:.4g}" for v in values[:4])
    return f"{shown}, ..." if len(values) > 4 else shown


# ---- places ----


def _reordered(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    if got.ndim != right.ndim or got.ndim > 5:
        return None
    identity = tuple(range(right.ndim))
    for axes in itertools.permutations(identity):
        if axes != identity and _equal(got, right.transpose(axes)):
            return (
                "axes in another order" if right.ndim > 2 else "transposed",
                f"analytic = numeric.transpose{axes}",
                "compare the order of axes in every product and reshape",
            )
    for count in range(1, right.ndim + 1):
        for axes in itertools.combinations(identity, count):
            if _equal(got, np.flip(right, axes)):
                named = _axes(axes)
                return (
                    f"flipped along {named}",
                    f"analytic = np.flip(numeric, {axes})",
                    "the gradient of a correlation is a correlation with the flipped kernel: flip "
                    "once, not twice",
                )
    return None


def _shifted(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    """Moved by a few places along the last two axes."""
    if got.ndim < 2:
        return None
    reach = [range(-min(MOST_SHIFT, n - 2), min(MOST_SHIFT, n - 2) + 1) for n in got.shape[-2:]]
    for down, along in sorted(itertools.product(*reach), key=lambda s: abs(s[0]) + abs(s[1])):
        if (down, along) == (0, 0):
            continue
        a = got[..., _tail(down), _tail(along)]
        b = right[..., _tail(-down), _tail(-along)]
        if a.size >= 4 and _equal(a, b):
            return (
                f"moved by ({down}, {along})",
                f"analytic at (i, j) is numeric at (i - {down}, j - {along})",
                "the padding was added or cut off on one side only",
            )
    return None


def _tail(shift: int) -> slice:
    return slice(max(shift, 0), min(shift, 0) or None)


def _region(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    known = np.isfinite(got) & np.isfinite(right)
    size = np.abs(right[known]).max(initial=0.0)
    wrong = known & (np.abs(got - right) > CLOSE * size)
    if not wrong.any():
        return None
    for name, mask in hints.regions.items():
        mask = np.asarray(mask, dtype=bool)
        if mask.shape == wrong.shape and not wrong[~mask].any() and wrong[mask].mean() > 0.5:
            return (
                f"wrong only {name}",
                f"all {int(wrong.sum())} wrong elements are there",
                ("what do these elements have that others have not?"),
            )
    for axis, n in enumerate(got.shape):
        per_index = np.moveaxis(wrong, axis, 0).reshape(n, -1).any(1)
        if n > 1 and per_index.sum() == 1:
            where = int(per_index.argmax())
            return (
                f"wrong only at index {where} of axis {axis}",
                (f"the other {n - 1} are right"),
                f"does a loop or slice along axis {axis} leave out one end?",
            )
        if n > 2 and per_index.sum() == n - 1:
            where = int(per_index.argmin())
            others = np.delete(got, where, axis)
            kept = "the others are zero" if not others.any() else "the others are wrong"
            last = f"the last ({where})" if where == n - 1 else f"index {where}"
            return (
                f"right only at {last} of axis {axis}",
                kept,
                (
                    f"does a loop along axis {axis} overwrite its result, instead of storing or "
                    f"adding it?"
                ),
            )
    if got.ndim >= 2 and min(got.shape[-2:]) > 2:
        inner = wrong[..., 1:-1, 1:-1]
        if not inner.any():
            return (
                "wrong only at the border",
                "everything inside is right",
                ("look at padding, and at windows that hang over the edge"),
            )
    return None


def _constant(got: np.ndarray, right: np.ndarray, hints: Hints) -> Found:
    """A term is missing that is the same along some axes: a mean or a sum over them."""
    residual = got - right
    known = np.isfinite(residual)
    size = np.abs(residual[known]).max(initial=0.0)
    several = [axis for axis, n in enumerate(got.shape) if n > 1]
    for count in range(len(several), 0, -1):
        for axes in itertools.combinations(several, count):
            largest = np.where(known, residual, -np.inf).max(axes)
            smallest = np.where(known, residual, np.inf).min(axes)
            if (largest - smallest).max() <= 10 * CLOSE * size:
                return (
                    f"a term is missing that is the same along {_axes(axes)}",
                    f"analytic - numeric does not change along {_axes(axes)}; the largest is "
                    f"{size:.4g}",
                    "a mean or a sum over these axes depends on every element in them, and sends "
                    "the same gradient to each",
                )
    return None


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


WITHOUT_PLACES = [_zero, _factor, _factor_per_index]  # for a few elements here and there
PATTERNS = [*WITHOUT_PLACES, _reordered, _shifted, _region, _constant]
