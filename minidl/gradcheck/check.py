"""`gradcheck`: hold a backward pass against the slopes of the function it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .._kernels import array_namespace
from .compare import METHODS, Comparer, Comparison, Verdict
from .diagnosis import Mistake, diagnose
from .numeric import Line, direction, element, noise, typical_size
from .patterns import NOTHING, Hints
from .probes import Gradients, Problem, Unsteady, analytic_gradients, check_forward, probe
from .report import ArrayReport, GradReport
from .subject import Subject, host, make_subject

__all__ = ["as_seeds", "check_options", "gradcheck", "run"]

FULL_LIMIT = 2000  # elements in all, up to which every one is checked
DIRECTIONS = 8
SAMPLE = 128  # elements in all beyond the limit, spread over the arrays
CLOSER = (1e-7, 1e-8)  # steps for lines in many arrays: networks have kinks everywhere
LOW_PRECISION = 1e-7  # relative: with more noise in a function, slopes show nothing


def gradcheck(
    fn: Any,
    inputs: Any,
    *,
    params: Any = (),
    upstream: Any = "random",
    method: str = "richardson",
    mode: str = "auto",
    rtol: float = 1e-6,
    atol: float | None = None,
    seeds: int | Sequence[int] = 0,
    train: bool | None = None,
    only: tuple[str, tuple[int, ...]] | None = None,
    mistakes: Sequence[Mistake] = (),
    factors: Mapping[str, Any] | None = None,
    regions: Mapping[str, Any] | None = None,
) -> GradReport:
    """Compare the gradients of `fn` with slopes measured by evaluating it nearby.

    Everything is computed in float64, at copies of the inputs. Next to the values of the gradients
    it is checked that inputs and upstream gradients are left alone, that shapes and dtypes fit,
    that the backward pass can be repeated, is linear in the upstream gradient, and does not depend
    on calls in between.

    Args:
        fn: one of

            - a function of Tensors that returns a Tensor or a tuple of them;
            - a Module: its parameters are checked too, while running statistics and the masks of
              dropout are held still;
            - a pair (forward, backward) of functions of plain arrays. `forward(*inputs)` returns
              an array (or a number), or a tuple (array, cache). `backward(upstream, cache)`, or
              `backward(upstream, *inputs)` if forward returned no cache, returns the gradients: an
              array if there is one input, otherwise a tuple of one per input, or of one per
              floating-point input.
        inputs: Tensors or arrays, or a single one. Those of integers (labels) are passed on as they
            are, all others are differentiated by.
        params: further Tensors that the function uses: a Module, a dict from names, or a sequence
            of Tensors and Modules.
        upstream: the gradient of the output: "random", "ones", or an array (a sequence of arrays
            for several outputs). Ones do not find mistakes that cancel in a sum.
        method: "richardson" (five points), "central" (two), or "complex" (the complex step, for
            pairs that compute with complex numbers).
        mode: "full" for every element; "directional" for 8 random directions in all arrays at
            once, the only one to use for whole networks; "auto" for every element up to 2000 in
            all, beyond that 8 directions and a sample of every array.
        rtol, atol: how far the two may differ, relative to the larger and absolutely, beyond
            measured rounding errors. `atol` is 1e-8 of the largest gradient by default.
        seeds: of random upstream gradients and directions; several for several upstream gradients.
        train: for Modules: check in training (True) or evaluation mode; by default as it is.
        only: check one element, (name, index), as `reproduce` in a report says.
        mistakes: known mistakes to compare wrong gradients with, see `Mistake`; those of minidl's
            layers are in `minidl.gradcheck.bank`.
        factors: numbers by name, or arrays of one per channel, that a wrong gradient may have too
            many or too few of: {"1 - p": 0.8}.
        regions: masks by name of elements that may be wrong together: {"where windows overlap": m}.

    Returns a `GradReport`, which is true if all is well; print it. Where the function has a kink
    (ReLU at 0, a tie in max pooling) the gradient must lie between the slopes of both sides; a
    check that meets kinks in over 20 % of places is "inconclusive", not passed.

    Raises TypeError or ValueError for arguments that make no sense, such as no floating-point
    input, or a function that returns no Tensor. What `fn` itself raises passes through.

    >>> import minidl as md, numpy as np
    >>> def forward(x, w):
    ...     return x @ w, (x, w)
    >>> def backward(upstream, cache):
    ...     x, w = cache
    ...     return upstream @ w.T, x.T @ upstream
    >>> rng = np.random.default_rng(0)
    >>> arrays = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
    >>> print(gradcheck((forward, backward), arrays))
    gradcheck backward: PASSED
      richardson, every element, seed 0
    <BLANKLINE>
      x (4, 3): 12 of 12 right
    <BLANKLINE>
      w (3, 2): 6 of 6 right
    >>> gradcheck(md.nn.Conv2d(2, 3, 3), md.randn(2, 2, 5, 4)).ok
    True
    """
    check_options(method, mode, rtol, atol)
    if method == "complex" and not isinstance(fn, tuple):
        raise ValueError("gradcheck: method='complex' needs a pair: minidl's kernels are real")
    subject = make_subject(fn, inputs, params, train)
    hints = Hints(factors or {}, regions or {})
    numbers = as_seeds(seeds)
    return run(subject, upstream, method, mode, rtol, atol, numbers, only, mistakes, hints)


def run(
    subject: Subject,
    upstream: Any,
    method: str,
    mode: str,
    rtol: float,
    atol: float | None,
    seeds: tuple[int, ...],
    only: tuple[str, tuple[int, ...]] | None = None,
    mistakes: Sequence[Mistake] = (),
    hints: Hints = NOTHING,
) -> GradReport:
    """The work behind `gradcheck`, for any subject; arguments as there."""
    report = GradReport(subject.title, [], [], [], method, mode, seeds, "", held=subject.held)
    with subject.frozen(), np.errstate(all="ignore"):
        try:
            check = _Check(subject, report, upstream, rtol, atol)
            check.run(mode, only)
        except Unsteady as reason:
            report.mode = "full" if mode == "auto" else mode
            report.obstacle = reason.problem
            return report
        if report.wrong and only is None:
            known = [(mistake, check.mistaken(mistake)) for mistake in mistakes]
            first = tuple(subject.arrays[0].shape)
            report.diagnoses = diagnose(report, known, replace(hints, input_shape=first))
    return report


def as_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """One seed or several as a tuple. Raises ValueError if there are none."""
    numbers = (int(seeds),) if isinstance(seeds, int | np.integer) else tuple(map(int, seeds))
    if not numbers:
        raise ValueError("gradcheck: seeds is empty")
    return numbers


def check_options(method: str, mode: str, rtol: float, atol: float | None) -> None:
    """Raise ValueError for options that gradcheck does not have."""
    if method not in METHODS:
        raise ValueError(f"gradcheck: method must be one of {', '.join(METHODS)}, got {method!r}")
    if mode not in ("auto", "full", "directional"):
        raise ValueError(f"gradcheck: mode must be auto, full or directional, got {mode!r}")
    if rtol < 0 or (atol is not None and atol < 0):
        raise ValueError(f"gradcheck: tolerances must not be negative, got {rtol} and {atol}")


class _Check:
    """One run: the subject, its analytic gradients, and the report they go into."""

    def __init__(
        self, subject: Subject, report: GradReport, upstream: Any, rtol: float, atol: float | None
    ) -> None:
        self.subject, self.report = subject, report
        self.rng = np.random.default_rng([*report.seeds, 1])
        outputs, backward, problems = check_forward(subject)
        report.problems += problems
        self.upstream = [
            _upstream(upstream, outputs, np.random.default_rng(seed)) for seed in report.seeds
        ]
        self.gradients: list[Gradients] = []  # per upstream gradient, per array
        for weights in self.upstream:
            found, problems = analytic_gradients(subject, subject.record()[1], weights, last=True)
            report.problems += [p for p in problems if p not in report.problems]
            self.gradients.append(found)
        report.problems += probe(subject, backward, self.upstream[0], self.gradients[0])
        self.sizes = [typical_size(array) for array in subject.arrays]
        every = direction(subject, self.rng, range(len(subject.arrays)))
        self.noise = noise(every, self.upstream)
        squares = [
            sum(float(((v * y) ** 2).sum()) for v, y in zip(weights, values, strict=True))
            for weights in self.upstream
            for values in (outputs, every.at(1e-2))
        ]
        self.size = max(squares) ** 0.5  # of <upstream, f>
        self.comparer = Comparer(
            report.method, self.upstream, rtol, atol, self.noise, subject.knows_branches
        )
        self.scales = [
            max((float(abs(g[k]).max(initial=0.0)) for g in self.gradients if g[k] is not None),
                default=0.0)
            for k in range(len(subject.arrays))
        ]  # fmt: skip

    def run(self, mode: str, only: tuple[str, tuple[int, ...]] | None) -> None:
        """Fill in the report."""
        report, subject = self.report, self.subject
        sizes = [array.size for array in subject.arrays]
        full = mode == "full" or (mode == "auto" and sum(sizes) <= FULL_LIMIT)
        report.mode = "full" if full else "directional" if mode == "directional" else "sampled"
        report.arrays = [self._empty(k) for k in range(len(subject.arrays))]
        if only is not None:
            report.mode = "one element"
            k, index = self._place(only)
            self._compare_elements(k, [index])
        elif full:
            for k, size in enumerate(sizes):
                self._compare_elements(k, range(size))
                if report.arrays[k].kinks:
                    self._compare_shift(k)
        else:
            self._compare_directions()
            if mode == "auto":
                share = max(2, SAMPLE // len(sizes))
                for k in range(len(sizes)):
                    self._compare_elements(k, self._sample(k, share))
            if any(d.verdict == Verdict.WRONG for d in report.directions):
                self._locate()
        self._judge_precision()
        report.reproduce = self._reproduction()

    def _empty(self, k: int) -> ArrayReport:
        shape = tuple(self.subject.arrays[k].shape)
        first = self.gradients[0][k]
        return ArrayReport(
            self.subject.names[k],
            shape,
            None if first is None else host(first).copy(),
            np.full(shape, np.nan),
            np.zeros(shape, dtype=np.int8),
            self.noise / (1e-2 * self.sizes[k]),
        )

    def _place(self, only: tuple[str, tuple[int, ...]]) -> tuple[int, int]:
        name, index = only
        if name not in self.subject.names:
            raise ValueError(f"gradcheck: only: no {name!r} among {self.subject.names}")
        k = self.subject.names.index(name)
        shape = self.subject.arrays[k].shape
        if len(index) != len(shape) or not all(
            0 <= i < n for i, n in zip(index, shape, strict=True)
        ):
            raise ValueError(f"gradcheck: only: {name} has shape {shape}, no element {index}")
        return k, int(np.ravel_multi_index(index, shape))

    # ---- elements ----

    def _compare_elements(self, k: int, indices: Sequence[int]) -> None:
        """Check these elements of the k-th array and note what came out."""
        array_report, size = self.report.arrays[k], self.sizes[k]
        numeric, verdicts = array_report.numeric.reshape(-1), array_report.verdicts.reshape(-1)
        if not self._has_gradient(k):
            return
        known = [gradients[k].reshape(-1) for gradients in self.gradients]
        for index in indices:
            line = element(self.subject, k, index, size)
            analytic = [float(gradient[index]) for gradient in known]
            found = self.comparer.compare(line, analytic, size, self.scales[k])
            verdicts[index] = found.verdict
            numeric[index] = found.numeric
            array_report.analytic.reshape(-1)[index] = found.analytic  # type: ignore[union-attr]

    def _sample(self, k: int, count: int) -> list[int]:
        """One random element from each of `count` equal parts, and both corners."""
        size = self.subject.arrays[k].size
        bounds = np.linspace(0, size, min(count, size) + 1).astype(int)
        chosen = {int(self.rng.integers(a, b)) for a, b in pairwise(bounds)}
        return sorted(chosen | ({0, size - 1} if size else set()))

    # ---- directions ----

    def _compare_directions(self) -> None:
        every = [k for k in range(len(self.subject.arrays)) if self._has_gradient(k)]
        if every:
            self.report.directions = [self._compare_direction(every) for _ in range(DIRECTIONS)]

    def _compare_direction(self, arrays: Sequence[int]) -> Comparison:
        line = direction(self.subject, self.rng, arrays)
        return replace(self._compare_line(line), along="a random direction")

    def _compare_shift(self, k: int) -> None:
        """Move a whole array by the same: where it has ties, as in max pooling, there is no kink
        in this direction, and a gradient given twice shows."""
        array = self.subject.arrays[k]
        line = Line(self.subject, {k: array_namespace(array).full_like(array, self.sizes[k])})
        found = self._compare_line(line)
        if found.verdict != Verdict.KINK:
            self.report.directions.append(replace(found, along=f"all of {self.subject.names[k]}"))

    def _compare_line(self, line: Line) -> Comparison:
        analytic, scale = [], 0.0
        for gradients in self.gradients:
            terms = [gradients[k] * d for k, d in line.directions.items()]
            analytic.append(sum(float(term.sum()) for term in terms))
            scale = max(scale, sum(float((term * term).sum()) for term in terms) ** 0.5)
        return self.comparer.compare(line, analytic, 1.0, scale, CLOSER)

    def _locate(self) -> None:
        """Find the arrays, and in them elements, that make directions wrong."""
        for k in range(len(self.subject.arrays)):
            if not self._has_gradient(k):
                continue
            tries = [self._compare_direction([k]) for _ in range(2)]
            if any(d.verdict == Verdict.WRONG for d in tries):
                self._compare_elements(k, self._sample(k, SAMPLE))
                if not self.report.arrays[k].wrong:
                    self._compare_elements(k, [self._halve(k)])

    def _halve(self, k: int) -> int:
        """The element on which a wrong direction depends, found by halving the array."""
        low, high = 0, self.subject.arrays[k].size
        while high - low > 1:
            middle = (low + high) // 2
            line = direction(self.subject, self.rng, [k])
            flat = line.directions[k].reshape(-1)
            flat[:low] = flat[middle:] = 0.0
            if self._compare_line(line).verdict == Verdict.WRONG:
                high = middle
            else:
                low = middle
        return low

    def _has_gradient(self, k: int) -> bool:
        return all(g[k] is not None for g in self.gradients) and self.subject.arrays[k].size > 0

    # ---- the report ----

    def mistaken(self, mistake: Mistake) -> Gradients:
        """The gradients that a known mistake gives for the first upstream gradient."""
        return self.subject.gradients_by(mistake.backward, self.upstream[0])

    def _judge_precision(self) -> None:
        """Say that nothing can be said if rounding errors hide mistakes."""
        if self.noise > LOW_PRECISION * self.size:
            self.report.obstacle = Problem(
                "low precision",
                f"the function's rounding errors, {self.noise / self.size:.0e} of its values, hide "
                f"mistakes in its gradients",
                "does it compute in float32 or float16 inside? The check needs float64 all the way",
            )

    def _reproduction(self) -> str:
        wrong = [a for a in self.report.arrays if a.worst is not None]
        if not wrong:
            return ""
        worst = max(wrong, key=lambda a: a.wrong / a.checked)
        seeds = self.report.seeds[0] if len(self.report.seeds) == 1 else list(self.report.seeds)
        options = "" if seeds == 0 else f", seeds={seeds}"
        if self.report.method != "richardson":
            options += f", method={self.report.method!r}"
        return f"md.gradcheck(fn, inputs, only=({worst.name!r}, {worst.worst}){options})"


def _upstream(given: Any, outputs: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Upstream gradients for the outputs, in float64."""
    if isinstance(given, str):
        if given not in ("random", "ones"):
            raise ValueError(
                f"gradcheck: upstream must be 'random', 'ones' or arrays, got {given!r}"
            )
        made: list[Any] = []
        for y in outputs:
            values = rng.standard_normal(y.shape) if given == "random" else np.ones(y.shape)
            made.append(array_namespace(y).asarray(values))
        return made
    several = list(given) if isinstance(given, tuple | list) else [given]
    arrays = [getattr(v, "data", v) if hasattr(v, "grad_fn") else v for v in several]
    if [tuple(v.shape) for v in arrays] != [tuple(y.shape) for y in outputs]:
        raise ValueError(
            f"gradcheck: upstream has shapes {[tuple(v.shape) for v in arrays]}, the outputs have "
            f"{[tuple(y.shape) for y in outputs]}"
        )
    return [v.astype(np.float64) for v in arrays]
