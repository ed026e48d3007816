"""Before any backward pass is written, we want something to hold it against.
The derivative of f at x is a limit, and a small step h comes close to it:

    df/dx  ~  ( f(x + h) - f(x - h) ) / (2 h)

This central difference errs by about h^2 f'''/6. The one-sided form
(f(x + h) - f(x)) / h errs by h f''/2, which is thousands of times more.

For an array x and a function f that returns one number, do this for one
element after the other: move that element alone, ask f twice, put it back.

A worked example: f(x) = x^3 at x = 2 with h = 0.1 gives
(2.1^3 - 1.9^3) / 0.2 = (9.261 - 6.859) / 0.2 = 12.01; exact is 12.
One-sided it would be (9.261 - 8) / 0.1 = 12.61.

Everything that follows is checked with this idea (minidl's own checker,
md.gradcheck, takes five points instead of two).
"""

import numpy as np

from ..format import CHAPTERS, Exercise, Mistake, distinct


def numerical_grad(f, x, h=1e-5):
    """Gradient of f at x by central differences.

    f: takes an array like x, returns one number
    x: array of any shape, of floats or of integers; it stays as it is
    h: the step

    Returns a float64 array of x's shape.

    >>> numerical_grad(lambda x: x[0] ** 3, np.array([2.0]), 0.1).round(6)
    array([12.01])
    """
    x = np.array(x, dtype=np.float64)
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + h
        above = f(x)
        x[index] = value - h
        below = f(x)
        x[index] = value
        grad[index] = (above - below) / (2 * h)
    return grad


def _in_place(f, x, h):
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        below = f(x)
        x[index] += h
        grad[index] = (above - below) / (2 * h)
    return grad


def _line(x):
    return 3.0 * x.sum()


def _cubes(x):
    return (x**3).sum()


def _coupled(x):
    """Each element's derivative depends on all of the others."""
    return np.exp(0.3 * x).sum() ** 2 + np.sin(x).sum()


SLOPES = {
    _line: lambda x: np.full(x.shape, 3.0),
    _cubes: lambda x: 3 * x**2,
    _coupled: lambda x: 0.6 * np.exp(0.3 * x).sum() * np.exp(0.3 * x) + np.cos(x),
}


def _make(rng, f, axes, integers=False):
    shape = tuple(distinct(rng, axes, 2, 4))
    x = rng.integers(2, 6, shape) if integers else rng.uniform(0.5, 2.0, shape)
    return {"f": f, "x": x, "h": 1e-4}


def _expected(f, x, h):
    return SLOPES[f](x.astype(np.float64))


def _pair(function, f, x, h):
    def numerical_grad(upstream, moved):
        return upstream * function(f, moved.astype(x.dtype, copy=False), h)

    return (f, numerical_grad), x.astype(np.float64)


EXERCISE = Exercise(
    number=1,
    title="gradients by finite differences",
    chapter=CHAPTERS[0],
    solution=numerical_grad,
    make=_make,
    cases={
        "a straight line": {"f": _line, "axes": 1},
        "a vector, f(x) = sum of x^3": {"f": _cubes, "axes": 1},
        "a matrix": {"f": _cubes, "axes": 2},
        "elements that depend on each other": {"f": _coupled, "axes": 2},
        "three axes": {"f": _coupled, "axes": 3},
        "x of integers": {"f": _cubes, "axes": 1, "integers": True},
    },
    expected=_expected,
    pair=_pair,
    outputs=("grad",),
    tolerance=1e-6,
    hints=(
        "Two calls of f for each element: once with the element a little larger, once with "
        "it a little smaller. Which element moves, and what must the others be meanwhile?",
        "Work on a float64 copy: x = np.array(x, dtype=np.float64). Loop with "
        "`for index in np.ndindex(x.shape)`; remember value = x[index] and write it back "
        "before you go on.",
        "In the loop: x[index] = value + h; above = f(x); x[index] = value - h; "
        "below = f(x); x[index] = value; grad[index] = (above - below) / (2 * h).",
    ),
    mistakes=(
        Mistake(
            "one-sided",
            "the difference is one-sided: it compares f(x + h) with f(x)",
            "A one-sided difference errs by h f''/2, a central one by h^2 f'''/6. Step down as "
            "well as up, and divide by 2 h.",
            edits=(("x[index] = value - h", "x[index] = value"), ("/ (2 * h)", "/ h")),
        ),
        Mistake(
            "half-the-step",
            "the result is twice too large: the difference spans 2 h but is divided by h",
            "From x - h to x + h is a distance of 2 h.",
            edits=(("/ (2 * h)", "/ h"),),
        ),
        Mistake(
            "not-restored",
            "elements that were moved are not put back before the next one is moved",
            "The derivative with respect to one element holds the others still. Without "
            "putting x[index] back, every later element is measured at a shifted point.",
            edits=(("        x[index] = value\n", ""),),
        ),
        Mistake(
            "integers",
            "with integers in x, the step is rounded away",
            "Writing 2 + 0.0001 into an array of integers stores 2. Make a float64 copy first.",
            edits=(("np.array(x, dtype=np.float64)", "np.array(x)"),),
        ),
        Mistake(
            "integers-in-place",
            "x is moved in place: its integers round the step away, and it does not come back",
            "Writing 2 - 0.0001 into an array of integers stores 1; adding 0.0001 again does not "
            "help. Make a float64 copy first and move the elements of that.",
            function=_in_place,
        ),
        Mistake(
            "single-precision",
            "x is held in float32, which has too few digits for so small a step",
            "float32 keeps 7 digits: f(x + h) and f(x - h) agree in nearly all of them, and "
            "their difference is mostly rounding. Use float64.",
            edits=(("np.array(x, dtype=np.float64)", "np.array(x, dtype=np.float32)"),),
        ),
        Mistake(
            "caller's-x",
            "the caller's x is changed",
            "The array belongs to the caller, who goes on using it. Move the elements of a copy.",
            edits=(
                ("np.array(x, dtype=np.float64)", "np.asarray(x, dtype=np.float64)"),
                ("        x[index] = value\n", ""),
            ),
        ),
    ),
    payoff="you can now check any gradient of any function: try it on your own formulas.",
)
