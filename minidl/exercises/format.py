"""What one exercise is made of; README.md in this folder says how to write one."""

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CHAPTERS = (
    "Numerical gradients and the graph",
    "Convolution",
    "Pooling and normalisation",
    "Assembling and training LeNet",
)


@dataclass(frozen=True)
class Mistake:
    """A mistake that learners make: how to plant it in the solution, and what to tell them.

    ``edits`` are pairs (old, new) of source text; each old text stands exactly once in the
    solution. Where a mistake is not a small edit, ``function`` is the whole wrong answer.
    ``verdict`` is one sentence that says what is wrong, ``why`` says why it is, ``output`` names
    the result that shows it best (nothing: all of them).
    """

    name: str
    verdict: str
    why: str
    edits: tuple[tuple[str, str], ...] = ()
    function: Callable[..., Any] | None = None


def call_plainly(function: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    """The usual way to ask a learner's function: the arguments in their order."""
    return function(*args.values())


@dataclass(frozen=True)
class Exercise:
    """One function to fill in, and everything needed to teach and to check it.

    ``make(rng, **settings)`` draws the arguments of a case; ``cases`` maps the label of each rung
    of the ladder, simplest first, to its settings. ``expected(**args)`` computes the right results
    with other means than the solution. ``call`` runs the learner's function on the arguments and
    returns what is compared: one array for each name in ``outputs``. ``extra(function, rng)``
    checks what no comparison shows and returns a sentence, or None. ``pair(function, **args)`` is
    for gradients: what md.gradcheck takes, a (forward, backward) pair of array functions and the
    inputs, with the learner's function as the backward pass.
    """

    number: int
    title: str
    chapter: str
    solution: Callable[..., Any]
    make: Callable[..., dict[str, Any]]
    cases: Mapping[str, Mapping[str, Any]]
    expected: Callable[..., Any]
    outputs: tuple[str, ...]
    hints: tuple[str, str, str]
    mistakes: tuple[Mistake, ...]
    payoff: str
    given: tuple[Callable[..., Any], ...] = ()
    uses: tuple[str, ...] = ()
    call: Callable[[Callable[..., Any], Mapping[str, Any]], Any] = call_plainly
    extra: Callable[[Callable[..., Any], np.random.Generator], str | None] | None = None
    pair: Callable[..., tuple[tuple[Callable[..., Any], Callable[..., Any]], Any]] | None = None
    tolerance: float = 1e-8
    module: types.ModuleType = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", sys.modules[self.solution.__module__])

    @property
    def name(self) -> str:
        """The function's name, which is the exercise's: ``linear_backward``."""
        return self.solution.__name__

    @property
    def file(self) -> str:
        """Name of the learner's file: ``e04_linear_backward.py``."""
        return f"e{self.number:02d}_{self.name}.py"

    @property
    def task(self) -> str:
        """The text that teaches: the docstring of the exercise's module."""
        return (self.module.__doc__ or "").strip()

    def arguments(self, label: str, seed: int) -> dict[str, Any]:
        """The arguments of one case; the same seed draws the same numbers and shapes."""
        index = list(self.cases).index(label)
        rng = np.random.default_rng([seed, self.number, index])
        return self.make(rng, **self.cases[label])


def distinct(rng: np.random.Generator, count: int, low: int = 2, high: int = 7) -> list[int]:
    """Different sizes for different axes, so that no mix-up of axes goes unseen.

    >>> len(set(distinct(np.random.default_rng(0), 4)))
    4
    """
    return [int(size) for size in rng.permutation(np.arange(low, high + 1))[:count]]
