"""`python -m benchmarks.profile`: where the time of a network goes, kernel by kernel.

Every call of a kernel is timed, with its launch layer's checks; the rest of the time is spent
"outside kernels", in Python and NumPy. The numbers of threads take turns, so that a machine that
slows down slows all. The gain from one to the next tells kernels that compute from those that wait
for memory. The clock adds 1 to 2 µs a call, nearly all of it outside kernels.
"""

import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import minidl as md
from minidl import installation
from minidl._kernels import cpu, reference
from minidl._kernels.cpu import rows
from minidl.commands import Parser, exit_status
from minidl.functional import conv

from .commands import machine, output_file, positive, write_json
from .cpu import NETWORKS
from .measure import (
    MINIDL,
    NETWORK_WORKS,
    Convolution,
    Result,
    Work,
    ceiling,
    network_works,
    paired_ratio,
    random_batch,
)

OUTSIDE = "outside kernels"
PRODUCTS = ("conv2d_forward", "conv2d_input_grad", "conv2d_weight_grad", "matmul")

LEGEND = """gain: times faster than with the fewest threads, median of the rounds.
GF/s: 10^9 operations a second, counted by the direct method. %: of the ceiling,
which is minidl's innermost loop on data in the cache; Winograd's method does
fewer operations than are counted, and may pass it.
"""


def make_parser() -> Parser:
    """The options of the command."""
    parser = Parser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument(
        "network", choices=NETWORKS, metavar="NAME", help=f"one of {', '.join(NETWORKS)}"
    )
    parser.add_argument(
        "--work", choices=NETWORK_WORKS, default="step",
        help="step: training, the default; forward: in evaluation mode; inference: the same with "
        "batch normalisation folded",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="8")
    parser.add_argument("--image-size", type=positive, default=224, metavar="N", help="224")
    parser.add_argument(
        "--threads", type=positive, nargs="+", default=[1, 2], metavar="N",
        help="1 2; with up to two numbers the table has 80 columns",
    )  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="5")
    parser.add_argument(
        "--shapes", type=positive, default=0, metavar="N",
        help="show the N convolutions and products that take longest, below their kernels",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write all times to this file"
    )
    return parser


# ---- time ----


class Call(NamedTuple):
    """A call of a kernel; which convolution or product that is, and its operations, if it is."""

    kernel: str
    seconds: float
    product: str = ""
    operations: int = 0


Turns = dict[str, list[list[Call]]]  # by number of threads, then by round


@cache
def describe(kernel: str, shapes: tuple[Any, ...], window: tuple[Any, ...]) -> tuple[str, int]:
    """A convolution or product as the table names it, and its operations.

    `shapes` are those of the result and the arguments, `window` is stride, padding, groups.
    """
    if kernel == "matmul":
        y, a, b = shapes
        return " @ ".join("x".join(map(str, each)) for each in (a, b)), 2 * math.prod(y) * a[-1]
    if kernel == "conv2d_forward":
        y, x, weight, *_ = shapes
    elif kernel == "conv2d_input_grad":
        _, y, weight, x = shapes
    else:
        _, y, x, weight = shapes
    stride, padding, groups = window
    conv = Convolution(x[1:], weight, stride, padding[::2], groups)
    return str(conv), 2 * math.prod(y) * math.prod(weight[1:])


def timer(name: str, kernel: Callable[..., Any], calls: list[Call]) -> Callable[..., Any]:
    """The kernel, adding each of its calls to `calls`."""

    def timed(*args: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        result = kernel(*args, **options)
        seconds = time.perf_counter() - begun
        if name in PRODUCTS:
            shapes = tuple(getattr(each, "shape", each) for each in (result, *args))
            window = tuple(map(options.get, ("stride", "padding", "groups")))
            calls.append(Call(name, seconds, *describe(name, shapes, window)))
        else:
            calls.append(Call(name, seconds))
        return result

    return timed


def preparer(prepare: Callable[..., Any], calls: list[Call]) -> Callable[..., Any]:
    """`conv2d_prepared`, whose results add each of their calls to `calls`."""

    def prepare_timed(x: Any, weight: Any, *bias: Any, **options: Any) -> Callable[..., Any]:
        convolve = prepare(x, weight, *bias, **options)
        timed = timer(
            "conv2d_forward", lambda x, _, residual, /, **__: convolve(x, residual), calls
        )
        return lambda x, residual: timed(x, weight, residual, **options)

    return prepare_timed


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """The calls of kernels, in a list that grows with each."""
    calls: list[Call] = []
    contract, others = (
        {name: timer(name, getattr(module, name), calls) for name in names}
        for module, names in ((cpu, reference.__all__), (rows, rows.__all__))
    )
    prepare = preparer(conv.conv2d_prepared, calls)
    with (
        mock.patch.multiple(cpu, **contract),
        mock.patch.multiple(rows, **others),
        mock.patch.object(conv, "conv2d_prepared", prepare),
    ):
        yield calls


def take_profiles(work: Work, threads: Sequence[int], rounds: int) -> Turns:
    """The calls in each turn of the work, and as one more what is outside kernels.

    A turn begins with work that is not counted: it pays for what the turn before has left in the
    caches, and for its threads that still wait.
    """
    turns: Turns = {str(count): [] for count in threads}
    with recorded() as calls:
        for _ in range(rounds):
            for count in threads:
                md.set_num_threads(count)
                work()
                calls.clear()
                begun = time.perf_counter()
                work()
                whole = time.perf_counter() - begun
                outside = Call(OUTSIDE, whole - sum(call.seconds for call in calls))
                turns[str(count)].append([*calls, outside])
    return turns


# ---- table ----


@dataclass(frozen=True)
class Row(Result):
    """A line of the table: `seconds` by number of threads and round."""

    calls: int


def add_up(turns: Turns, name: Callable[[Call], tuple[str, str]]) -> list[Row]:
    """The calls of one name together, the slowest first."""
    ((first, *_), *_) = turns.values()  # all turns make the same calls

    def row(key: tuple[str, str]) -> Row:
        seconds = {
            count: [sum(call.seconds for call in turn if name(call) == key) for turn in taken]
            for count, taken in turns.items()
        }
        own = [call for call in first if name(call) == key and call.kernel != OUTSIDE]
        return Row(*key, sum(call.operations for call in own), seconds, len(own))

    found = map(row, dict.fromkeys(map(name, first)))
    return sorted(found, key=lambda row: -row.median(next(iter(turns))))


def make_rows(turns: Turns, shapes: int) -> list[Row]:
    """Kernels, each above its own among the slowest `shapes`, and the total."""
    products = [row for row in add_up(turns, lambda c: (c.kernel, c.product)) if row.work]
    found = []
    for kernel in add_up(turns, lambda call: (call.kernel, "")):
        found += [kernel, *(row for row in products[:shapes] if row.name == kernel.name)]
    return found + add_up(turns, lambda call: ("total", ""))


def titles(counts: Sequence[int]) -> str:
    """The two lines above the cells."""
    above, below = f"{'':34}", f"{'kernel':28}{'calls':>6}"
    for count in counts:
        cells = f"{'ms':>9}{'GF/s':>6}{'%':>5}" + (f"{'gain':>6}" if count != counts[0] else "")
        above += f"{f'threads: {count}':>{len(cells)}}"
        below += cells
    return f"{above}\n{below}"


def line(row: Row, ceilings: dict[int, float]) -> str:
    """Cells for each number of threads."""
    text = f"{f'  {row.work}' if row.work else row.name:28}{row.calls or '':6}"
    fewest, *_ = ceilings
    for count, top in ceilings.items():
        text += f"{row.median(str(count)) * 1e3:9.2f}"
        speed = row.gflops(str(count))
        text += f"{speed:6.0f}{100 * speed / top:5.0f}" if row.operations else " " * 11
        if count != fewest:
            text += f"{paired_ratio(row.seconds[str(fewest)], row.seconds[str(count)]):6.2f}"
    return text.rstrip()


def run(args: Namespace) -> None:
    """Measure, print the table, write JSON if asked."""
    facts = installation.collect_config()[0]
    args.ceilings = {count: ceiling(count) for count in args.threads}
    print(
        f"{args.network}, {args.work}, batch {args.batch_size}, {args.image_size} x "
        f"{args.image_size}, median of {args.rounds} rounds\n{machine(facts, args.ceilings)}"
    )
    batch = random_batch(args.batch_size, args.image_size)
    work = network_works(args.network, MINIDL, *batch)[args.work]
    found = make_rows(take_profiles(work, args.threads, args.rounds), args.shapes)
    print(titles(args.threads), *(line(row, args.ceilings) for row in found), sep="\n")
    print(f"\n{LEGEND}", end="")
    if args.json:
        write_json(args, facts, [vars(row) for row in found])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    args.threads = sorted(set(args.threads))
    least = md.models.min_image_size(args.network)
    if args.image_size < least:
        parser.error(f"--image-size must be at least {least} for {args.network}")
    try:
        md.set_num_threads(args.threads[-1])
    except ValueError as error:
        parser.error(f"--threads: {error}")
    return exit_status("python -m benchmarks.profile", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
