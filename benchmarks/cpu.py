"""`python -m benchmarks.cpu`: minidl against its rivals on the CPU, in one run, taking turns.

Whole networks (forward pass, inference with batch normalisation folded, training step, peak memory
of training) beside PyTorch and ONNX Runtime or, with --layers, every distinct convolution of four
networks beside PyTorch and JAX. The frameworks take turns, so that a machine that slows down slows
all; quote the ratio. PyTorch and ONNX Runtime come with `pip install minidl[oracle]`.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import minidl as md
from minidl import installation

from .commands import machine, output_file, positive, write_json
from .measure import (
    COMPILED,
    CONVOLUTION_WORKS,
    JAX,
    MINIDL,
    NETWORK_WORKS,
    ONNX,
    PYTORCH,
    Convolution,
    Result,
    ceiling,
    convolutions,
    measure_convolution,
    measure_network,
    measure_scaling,
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

SCALED = "vgg16"  # shows how much faster two threads are than one
# Each library is told in its own variable; others have none and do not take part.
AVX2 = {"MINIDL_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}

LEGEND = """NCHW, NHWC: PyTorch in its default and in its channels_last memory format{}, ms.
ratio: the time of the fastest rival over minidl's, median of the rounds.
GFLOP/s: 10^9 operations a second, counted by the direct method.
share, %: of the ceiling, which is minidl's innermost loop on data in the cache; Winograd's method
does fewer operations than are counted, and may pass it.
"""
WORKS = """forward: evaluation mode. step: training, counted as three forward passes.
inference: batch normalisation folded, by minidl, by torch.fx, and by ONNX Runtime (ONNX).
"""


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
        "--direct",
        action="store_true",
        help="convolutions by the direct method throughout, without Winograd's",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{', '.join(QUICK_NETWORKS)} (with --layers, {CONVOLUTIONS_OF[0]}); 2 rounds",
    )
    parser.add_argument(
        "--avx2",
        action="store_true",
        help=f"AVX2 only, in a new process: {' '.join(f'{k}={v}' for k, v in AVX2.items())}",
    )
    parser.add_argument(
        "--compile", action="store_true", help="time PyTorch with torch.compile too"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        nargs="+",
        default=[8],
        help="8 by default; one or several, e.g. 1 8 32, which takes five times as long",
    )
    parser.add_argument("--image-size", type=positive, default=224)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, help="5 by default")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write all times to this file"
    )
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="draw them, e.g. as PNG or SVG"
    )
    return parser


def head(args: argparse.Namespace, facts: dict[str, Any]) -> str:
    """What is measured, where."""
    what = "convolutions" if args.layers else "networks"
    what += " by the direct method" if args.direct else ""
    return (
        f"{what}, {args.image_size} x {args.image_size}, {args.threads} threads, "
        f"median of {args.rounds} rounds\n{machine(facts, args.ceilings)}"
    )


# ---- networks ----


def run_networks(args: argparse.Namespace, modes: Sequence[str], batch: int) -> dict[str, Any]:
    """Measure networks, printing a line when one is measured; what JSON is to hold."""
    columns = "".join(f"{mode:>8}" for mode in modes[1:])
    print(f"batch {batch:<10}{'work':11}{'ms':>8}{'GFLOP/s':>8}{'share':>7}{columns}{'ratio':>7}")
    results: list[Result] = []
    for name in args.networks:
        for result in measure_network(name, modes, batch, args.image_size, args.rounds):
            print(_network_line(result, modes, args.ceilings[args.threads]), flush=True)
            results.append(result)

    training = [mode for mode in modes if mode in (MINIDL, *PYTORCH)]  # a compiler's says little
    columns = "".join(f"{mode:>8}" for mode in training)
    print(f"\n{'peak memory of training, MB':32}{columns}")
    memory: dict[str, dict[str, int]] = {}
    for name in args.networks:
        settings = (batch, args.image_size, args.threads)
        memory[name] = {mode: memory_of_step(name, mode, *settings) for mode in training}
        cells = "".join(f"{size / 1e6:8.0f}" for size in memory[name].values())
        print(f"{name:32}{cells}", flush=True)
    print()
    figures: dict[str, Any] = {"batch_size": batch, "peak_memory": memory}
    if SCALED in args.networks and args.threads > 1 and not args.quick:
        scaling = measure_scaling(SCALED, args.threads, batch, args.image_size, args.rounds)
        gains = ", ".join(f"{kind} {gain:.2f}" for kind, gain in scaling.items())
        print(f"{SCALED}, times faster on {args.threads} threads than on one: {gains}\n")
        figures["scaling"] = scaling
    return figures | {"results": results}


def _network_line(result: Result, modes: Sequence[str], top: float) -> str:
    times = "".join(
        f"{result.median(mode) * 1e3:8.1f}" if mode in result.seconds else f"{'-':>8}"
        for mode in modes[1:]
    )
    ours, speed = result.median(MINIDL) * 1e3, result.gflops(MINIDL)
    return (
        f"{result.name:16}{result.work:11}{ours:8.1f}{speed:8.0f}{speed / top:7.0%}"
        f"{times}{_ratio(result):>7}"
    )


def _ratio(result: Result) -> str:
    return "-" if result.ratio is None else f"{result.ratio:.2f}"


def _record(result: Result) -> dict[str, Any]:
    return {**vars(result), "rival": result.rival, "ratio": result.ratio}


# ---- convolutions ----


def distinct(networks: Sequence[str], image_size: int) -> Iterator[tuple[str, Convolution, int]]:
    """Each convolution once, with the first network that has it and its multiply-accumulates."""
    seen: set[Convolution] = set()
    for name in networks:
        for conv, macs in convolutions(name, image_size).items():
            if conv not in seen:
                yield name, conv, macs
            seen.add(conv)


def run_convolutions(args: argparse.Namespace, modes: Sequence[str], batch: int) -> dict[str, Any]:
    """Measure convolutions, printing a line when one is measured; what JSON is to hold."""
    top = args.ceilings[args.threads]
    print(f"{f'batch {batch}':27}" + "".join(f"{work:>24}" for work in CONVOLUTION_WORKS))
    columns = f"{'ms':>7}{'GF/s':>6}{'%':>5}{'ratio':>6}"
    print(f"{'C x H x W > K window/stride':27}" + columns * len(CONVOLUTION_WORKS))
    results: list[Result] = []
    network = None
    networks = CONVOLUTIONS_OF[:1] if args.quick else CONVOLUTIONS_OF
    for name, conv, macs in distinct(networks, args.image_size):
        if name != network:
            print(name)
            network = name
        measured = measure_convolution(conv, macs, modes, batch, args.rounds)
        cells = [
            f"{r.median(MINIDL) * 1e3:7.2f}{r.gflops(MINIDL):6.0f}"
            f"{100 * r.gflops(MINIDL) / top:5.0f}{_ratio(r):>6}"
            for r in measured
        ]
        print(f"{conv!s:27}" + "".join(cells), flush=True)
        results += measured
    print()
    return {"batch_size": batch, "results": results}


def draw(path: Path, results: Sequence[Result], works: Sequence[str], top: float) -> None:
    """The bar chart; matplotlib is needed only here."""
    from .plot import draw_bars

    draw_bars(path, results, works, top)


def rivals(args: argparse.Namespace) -> list[str]:
    """The modes of other frameworks that are installed and can take part; says which are not."""
    candidates = {"torch": ("PyTorch", [*PYTORCH, *(COMPILED if args.compile else ())])}
    if args.layers:
        candidates["jax"] = ("JAX", [JAX])
    else:
        candidates["onnxruntime"] = ("ONNX Runtime", [ONNX])
    modes: list[str] = []
    for package, (name, its_modes) in candidates.items():
        if importlib.util.find_spec(package) is None:
            reason = f"is not installed (pip install {package})"
        elif package != "torch" and args.avx2:
            reason = "cannot be told to do without AVX-512"
        elif package == "jax" and args.threads != installation.available_cpus():
            reason = f"uses all processors, not {args.threads}"
        else:
            modes += its_modes
            continue
        print(f"{name} {reason}: not compared", file=sys.stderr)
    return modes


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON and draw if asked; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.layers and (args.networks or args.compile):
        parser.error("--layers goes without --networks and --compile")
    args.networks = args.networks or list(QUICK_NETWORKS if args.quick else NETWORKS)
    args.rounds = args.rounds or (2 if args.quick else 5)
    needed = CONVOLUTIONS_OF if args.layers else args.networks
    least = max(md.models.min_image_size(name) for name in needed)
    if args.image_size < least:
        parser.error(f"--image-size must be at least {least} for these networks")
    if args.avx2 and any(os.environ.get(name) != value for name, value in AVX2.items()):
        arguments = sys.argv[1:] if argv is None else argv
        command = [sys.executable, "-m", "benchmarks.cpu", *arguments]
        return subprocess.call(command, env=os.environ | AVX2)

    modes = [MINIDL, *rivals(args)]
    if args.direct:
        md.config.conv_algorithm = "direct"
    set_threads(args.threads, torch_too=PYTORCH[0] in modes)
    facts = installation.collect_config()[0]
    args.ceilings = {count: ceiling(count) for count in sorted({1, args.threads})}
    print(head(args, facts))
    run, works = (
        (run_convolutions, CONVOLUTION_WORKS) if args.layers else (run_networks, NETWORK_WORKS)
    )
    figures = [run(args, modes, batch) for batch in args.batch_size]
    if len(modes) > 1:
        print(LEGEND.format("; * with torch.compile" if args.compile else ""), end="")
        print("" if args.layers else WORKS, end="")
    if args.plot:  # of the first batch size
        draw(args.plot, figures[0]["results"], works, args.ceilings[args.threads])
    if args.json:
        for part in figures:
            part["results"] = [_record(result) for result in part["results"]]
        write_json(args, facts, figures)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when `| head` has seen enough
    sys.exit(main())
