"""`python -m benchmarks.cpu`: minidl against PyTorch on the CPU, in one run, taking turns.

Whole networks (forward in evaluation mode, training step, peak memory of training) or, with
--layers, every distinct convolution of four networks. The frameworks take turns, so that a machine
that slows down slows all; quote the ratio. PyTorch comes with `pip install minidl[oracle]`.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import minidl as md
from minidl import installation

from .measure import (
    COMPILED,
    CONVOLUTION_WORKS,
    MINIDL,
    NETWORK_WORKS,
    PYTORCH,
    Convolution,
    Result,
    convolutions,
    measure_convolution,
    measure_network,
    memory_of_step,
    set_threads,
)

NETWORKS = (
    "vgg16",
    "alexnet_owt",
    "googlenet_tv",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "squeezenet1_1",
)
QUICK_NETWORKS = ("vgg16", "resnet18", "alexnet_owt")
CONVOLUTIONS_OF = ("vgg16", "resnet50", "googlenet", "alexnet")

LEGEND = """NCHW, NHWC: PyTorch in its default and in its channels_last memory format, ms{}.
ratio: the time of PyTorch's faster mode over minidl's, median of the rounds.
GFLOP/s: 10^9 operations a second, counted by the direct method{}."""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="NAME",
        choices=NETWORKS,
        help=f"of {', '.join(NETWORKS)}; all by default",
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help=f"convolutions of {', '.join(CONVOLUTIONS_OF)} instead of networks",
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{', '.join(QUICK_NETWORKS)}; 2 rounds"
    )
    parser.add_argument(
        "--compile", action="store_true", help="time PyTorch with torch.compile too"
    )
    parser.add_argument("--batch-size", type=_positive, default=8)
    parser.add_argument("--image-size", type=_positive, default=224)
    parser.add_argument("--threads", type=_positive, default=2)
    parser.add_argument("--rounds", type=_positive, help="5 by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them, e.g. as PNG or SVG")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def head(args: argparse.Namespace, facts: dict[str, Any]) -> str:
    """What was measured, where."""
    what = "convolutions" if args.layers else "networks"
    return (
        f"{what}, {args.image_size} x {args.image_size}, batch {args.batch_size}, "
        f"{args.threads} threads, median of {args.rounds} rounds\n"
        f"{facts['processor']}, {facts['instruction set']}\n"
    )


# ---- networks ----


def run_networks(args: argparse.Namespace, modes: Sequence[str]) -> dict[str, Any]:
    """Measure networks, printing a line when one is measured; what JSON is to hold."""
    columns = "".join(f"{mode:>8}" for mode in modes[1:])
    print(f"{'network':16}{'work':8}{'minidl':>8}{'GFLOP/s':>8}{columns}{'ratio':>7}")
    results: list[Result] = []
    for name in args.networks:
        for result in measure_network(name, modes, args.batch_size, args.image_size, args.rounds):
            print(_network_line(result, modes), flush=True)
            results.append(result)

    uncompiled = [mode for mode in modes if mode not in COMPILED]  # a compiler's peak says little
    columns = "".join(f"{mode:>8}" for mode in uncompiled)
    print(f"\n{'peak memory of training, MB':32}{columns}")
    memory: dict[str, dict[str, int]] = {}
    for name in args.networks:
        settings = (args.batch_size, args.image_size, args.threads)
        memory[name] = {mode: memory_of_step(name, mode, *settings) for mode in uncompiled}
        cells = "".join(f"{size / 1e6:8.0f}" for size in memory[name].values())
        print(f"{name:32}{cells}", flush=True)
    if len(modes) > 1:
        compiled = ";\n* with torch.compile" if args.compile else ""
        print("\n" + LEGEND.format(compiled, ", a\ntraining step as three forward passes"))
    if args.plot:
        draw(args.plot, results, NETWORK_WORKS)
    return {"results": [_record(result) for result in results], "peak_memory": memory}


def _network_line(result: Result, modes: Sequence[str]) -> str:
    times = "".join(f"{result.median(mode) * 1e3:8.1f}" for mode in modes[1:])
    ours = f"{result.median(MINIDL) * 1e3:8.1f}{result.gflops(MINIDL):8.0f}"
    return f"{result.name:16}{result.work:8}{ours}{times}{_ratio(result):>7}"


def _ratio(result: Result) -> str:
    return "-" if result.ratio is None else f"{result.ratio:.2f}"


def _record(result: Result) -> dict[str, Any]:
    return {**vars(result), "rival": result.rival, "ratio": result.ratio}


# ---- convolutions ----


def distinct(image_size: int) -> Iterator[tuple[str, Convolution, int]]:
    """Each convolution once, with the first network that has it and its multiply-accumulates."""
    seen: set[Convolution] = set()
    for name in CONVOLUTIONS_OF:
        for conv, macs in convolutions(name, image_size).items():
            if conv not in seen:
                yield name, conv, macs
            seen.add(conv)


def run_convolutions(args: argparse.Namespace, modes: Sequence[str]) -> dict[str, Any]:
    """Measure convolutions, printing a line when one is measured; what JSON is to hold."""
    print(f"{'':27}" + "".join(f"{work:>17}" for work in CONVOLUTION_WORKS))
    print(f"{'C x H x W > K window/stride':27}" + f"{'ms':>6}{'GF/s':>5}{'ratio':>6}" * 3)
    results: list[Result] = []
    network = None
    for name, conv, macs in distinct(args.image_size):
        if name != network:
            print(name)
            network = name
        measured = measure_convolution(conv, macs, modes, args.batch_size, args.rounds)
        cells = [
            f"{r.median(MINIDL) * 1e3:6.1f}{r.gflops(MINIDL):5.0f}{_ratio(r):>6}" for r in measured
        ]
        print(f"{conv!s:27}" + "".join(cells), flush=True)
        results += measured
    if len(modes) > 1:
        print(f"\nms, GFLOP/s are minidl's.\n{LEGEND.format('', '')}")
    if args.plot:
        draw(args.plot, results, CONVOLUTION_WORKS)
    return {"results": [_record(result) for result in results]}


def draw(path: Path, results: Sequence[Result], works: Sequence[str]) -> None:
    """The bar chart; matplotlib is needed only here."""
    from .plot import draw_bars

    draw_bars(path, results, works)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON and draw if asked; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.layers and (args.networks or args.quick or args.compile):
        parser.error("--layers goes without --networks, --quick and --compile")
    args.networks = args.networks or list(QUICK_NETWORKS if args.quick else NETWORKS)
    args.rounds = args.rounds or (2 if args.quick else 5)
    needed = CONVOLUTIONS_OF if args.layers else args.networks
    least = max(md.models.min_image_size(name) for name in needed)
    if args.image_size < least:
        parser.error(f"--image-size must be at least {least} for these networks")

    modes = [MINIDL]
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed (pip install minidl[oracle]): no rival", file=sys.stderr)
    else:
        modes += [*PYTORCH, *(COMPILED if args.compile else ())]
    set_threads(args.threads, torch_too=len(modes) > 1)
    facts = installation.collect_config()[0]
    print(head(args, facts))
    figures = (run_convolutions if args.layers else run_networks)(args, modes)
    if args.json:
        settings = {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}
        record = {"settings": settings, "machine": facts, **figures}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
