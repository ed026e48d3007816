"""`python -m benchmarks.gpu`: minidl against PyTorch and cuDNN on a GPU, in one run, taking turns.

Every distinct convolution of VGG16 and ResNet-50 (forward pass and both gradients) and training
steps of whole networks at their papers' batch sizes, in float32, in float32 rounded to TF32 on both
sides, and in bfloat16 (for networks: mixed precision on both sides). PyTorch runs eagerly in both
memory formats and through torch.compile, with cuDNN free to choose by measurement; quote the ratio
to the fastest. Times are those between two CUDA events. The roofline is what the same GPU does in
one large product and one large copy.
"""

import argparse
import datetime
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md
from minidl import device
from minidl.counting import summary_of

from .commands import output_file
from .measure import (
    CONVOLUTION_WORKS,
    LR,
    MINIDL,
    MOMENTUM,
    Convolution,
    Result,
    Work,
    convolutions,
    random_batch,
    take_turns,
)

GPU = "cuda"
RESULTS = Path(__file__).parent / "results"
PYTORCH = ("NCHW", "NHWC")  # its default memory format, and channels_last
COMPILED = "NHWC*"  # the latter through torch.compile
PRECISIONS = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16"}
CONVOLUTIONS_OF = ("vgg16", "resnet50")
# Images in a batch of the papers.
NETWORKS = {"alexnet_owt": 128, "vgg16": 256, "resnet50": 256, "densenet121": 256}
SIDE = 224  # of their images

LEGEND = """NCHW, NHWC: PyTorch in its default and in its channels_last memory format, ms;
* with torch.compile. ratio: the time of PyTorch's fastest mode over minidl's.
roof: the least time that this GPU's products and copies allow, over minidl's.
-: does not fit the GPU's memory."""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    names = ", ".join(NETWORKS)
    parser.add_argument(
        "--networks", nargs="*", choices=list(NETWORKS), metavar="NAME", default=list(NETWORKS),
        help=f"training steps of these, of {names}; all by default, none if no name follows",
    )  # fmt: skip
    parser.add_argument(
        "--layers", nargs="*", choices=CONVOLUTIONS_OF, metavar="NAME",
        default=list(CONVOLUTIONS_OF), help="convolutions of these; likewise",
    )  # fmt: skip
    parser.add_argument(
        "--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS),
        metavar="NAME", help=f"of {', '.join(PRECISIONS)}; all by default",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, help="instead of the papers' (layers: 64)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="by default in benchmarks/results"
    )
    return parser


# ---- time and roofline ----


def gpu_seconds(work: Work, calls: int = 1) -> float:
    """Seconds on the GPU that a call takes, beside one that is not counted.

    That one takes the memory that the others' turns have given back: together they may need more
    than there is.
    """
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    work()
    begin.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    cupy.get_default_memory_pool().free_all_blocks()
    if has_torch():
        import torch

        torch.cuda.empty_cache()
    return cupy.cuda.get_elapsed_time(begin, end) / calls / 1e3


def turns(makers: dict[str, Callable[[], Work]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each mode in each round; modes that do not fit the memory are left out."""
    works = {}
    for mode, make in makers.items():
        try:
            works[mode] = make()
            works[mode]()
        except (MemoryError, RuntimeError) as error:
            if "out of memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            works.pop(mode, None)
    return take_turns(works, rounds, gpu_seconds)


def rates(precision: str, size: int = 8192) -> tuple[float, float]:
    """Operations and bytes a second: of a product of `size` squared matrices, and of a copy."""
    set_precision(precision)
    a = on_gpu(np.random.default_rng(0).standard_normal((size, size), np.float32), precision)
    product = min(gpu_seconds(lambda: kernels().matmul(a, a), calls=5) for _ in range(3))
    copied = namespace().empty_like(a)
    copy = min(gpu_seconds(lambda: namespace().copyto(copied, a), calls=20) for _ in range(3))
    return 2 * size**3 / product, 2 * a.nbytes / copy


def set_precision(precision: str) -> None:
    """TF32 on or off, on both sides."""
    allowed = precision == "tf32"
    md.config.allow_tf32 = allowed
    if has_torch():
        import torch

        name = "tf32" if allowed else "ieee"
        torch.backends.cuda.matmul.fp32_precision = name
        torch.backends.cudnn.conv.fp32_precision = name
        torch.backends.cudnn.benchmark = True


def has_torch() -> bool:
    """Whether there is a PyTorch that sees the GPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return GPU == "cpu" or torch.cuda.is_available()


def namespace() -> Any:
    """CuPy."""
    return device.namespace_on("cuda")


def kernels() -> Any:
    """minidl's kernels for GPUs, which import CuPy."""
    from minidl._kernels import cuda

    return cuda


def on_gpu(array: np.ndarray, precision: str) -> Any:
    """A CuPy array of this precision."""
    if precision == "bf16":
        import ml_dtypes

        array = array.astype(ml_dtypes.bfloat16)
    return namespace().asarray(array)


# ---- convolutions ----


def convolution_makers(
    conv: Convolution, arrays: Sequence[np.ndarray], precision: str, modes: Sequence[str]
) -> dict[str, dict[str, Callable[[], Work]]]:
    """By work and mode, what makes the work ready; arrays are x, weight and dy."""
    (top, left), stride = conv.padding, conv.stride

    def minidl(kind: str) -> Work:
        x, weight, dy = (on_gpu(array, precision) for array in arrays)
        options: Any = {"stride": stride, "padding": (top, top, left, left), "groups": conv.groups}
        cuda = kernels()
        return {
            "forward": lambda: cuda.conv2d_forward(x, weight, **options),
            "input gradient": lambda: cuda.conv2d_input_grad(dy, weight, x.shape, **options),
            "weight gradient": lambda: cuda.conv2d_weight_grad(dy, x, weight.shape, **options),
        }[kind]

    def pytorch(kind: str, mode: str) -> Work:
        import torch

        layout = torch.channels_last if mode.startswith("NHWC") else torch.contiguous_format
        dtype = getattr(torch, PRECISIONS[precision])
        x, weight, dy = (
            torch.from_numpy(array).to(GPU, dtype).contiguous(memory_format=layout)
            for array in arrays
        )
        if kind == "forward":
            conv2d = torch.nn.functional.conv2d
            return lambda: conv2d(x, weight, None, stride, conv.padding, 1, conv.groups)
        wanted = (kind == "input gradient", kind == "weight gradient", False)
        window = (stride, conv.padding, (1, 1), False, (0, 0), conv.groups)
        return lambda: torch.ops.aten.convolution_backward(dy, x, weight, None, *window, wanted)

    return {
        kind: {
            mode: (lambda kind=kind: minidl(kind))
            if mode == MINIDL
            else (lambda kind=kind, mode=mode: pytorch(kind, mode))
            for mode in modes
        }
        for kind in CONVOLUTION_WORKS
    }


def random_arrays(conv: Convolution, batch_size: int) -> list[np.ndarray]:
    """x, weight and dy of a convolution."""
    generator = np.random.default_rng(0)
    (k, _, r, s), (_, h, w) = conv.weight_shape, conv.input_shape
    output = [
        (n + 2 * pad - window) // step + 1
        for n, pad, window, step in zip((h, w), conv.padding, (r, s), conv.stride, strict=True)
    ]
    shapes = ((batch_size, *conv.input_shape), conv.weight_shape, (batch_size, k, *output))
    return [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]


def run_convolutions(args: argparse.Namespace, precision: str, modes: Sequence[str]) -> list[Any]:
    """Measure convolutions, printing a line when one is measured; what JSON is to hold."""
    modes = [mode for mode in modes if mode != COMPILED]  # nothing to fuse
    batch_size = args.batch_size or 64
    per_second, bytes_a_second = rates(precision)
    print(f"\nconvolutions in {precision}, batch {batch_size}")
    print(f"{'':26}" + "".join(f"{work:>18}" for work in CONVOLUTION_WORKS))
    print(f"{'CxHxW > K window/stride':26}" + f"{'ms':>7}{'ratio':>6}{'roof':>5}" * 3)
    records = []
    distinct = {
        conv: macs for name in args.layers for conv, macs in convolutions(name, SIDE).items()
    }
    for conv, macs in distinct.items():
        arrays = random_arrays(conv, batch_size)
        itemsize = 2 if precision == "bf16" else 4
        roof = max(
            2 * batch_size * macs / per_second,
            itemsize * sum(array.size for array in arrays) / bytes_a_second,
        )
        set_precision(precision)
        cells = ""
        for kind, makers in convolution_makers(conv, arrays, precision, modes).items():
            times = turns(makers, args.rounds)
            result = Result(str(conv), kind, 2 * batch_size * macs, times)
            cells += _cells(result, roof)
            records.append(_record(result, precision, batch_size, roof))
        print(f"{conv!s:26}{cells}", flush=True)
    return records


def _cells(result: Result, roof: float) -> str:
    if MINIDL not in result.seconds:
        return f"{'-':>7}{'':11}"
    ratio = "-" if result.ratio is None else f"{result.ratio:.2f}"
    ours = result.median(MINIDL)
    return f"{ours * 1e3:7.2f}{ratio:>6}{100 * roof / ours:4.0f}%"


def _record(result: Result, precision: str, batch_size: int, roof: float) -> dict[str, Any]:
    measured = MINIDL in result.seconds
    return {
        **vars(result),
        "precision": precision,
        "batch_size": batch_size,
        "rival": result.rival,
        "ratio": result.ratio if measured else None,
        "roof": roof,
    }


# ---- networks ----


def network_maker(name: str, mode: str, precision: str, batch_size: int) -> Callable[[], Work]:
    """What makes a training step: forward, cross-entropy, backward, SGD with momentum."""

    def minidl() -> Work:
        images, labels = random_batch(batch_size, SIDE)
        md.manual_seed(0)
        model: Any = md.models.create(name, image_size=SIDE).to("cuda")
        x, y = md.from_numpy(images).to("cuda"), md.from_numpy(labels).to("cuda")
        optimizer: Any = md.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

        def step() -> None:
            with md.autocast("bf16" if precision == "bf16" else None):
                loss = md.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    def pytorch() -> Work:
        import torch

        from . import torch_networks

        images, labels = random_batch(batch_size, SIDE)
        md.manual_seed(0)
        state = md.models.create(name, image_size=SIDE).state_dict()
        weights = {key: tensor.data for key, tensor in state.items()}
        layout = torch.contiguous_format if mode == "NCHW" else torch.channels_last
        model: Any = torch_networks.create(name, SIDE, weights).to(GPU, memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        if mode == COMPILED:
            model = torch.compile(model)
        x = torch.from_numpy(images).to(GPU, memory_format=layout)
        y = torch.from_numpy(labels).to(GPU)

        def step() -> None:
            with torch.autocast(GPU, torch.bfloat16, enabled=precision == "bf16"):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return minidl if mode == MINIDL else pytorch


def run_networks(args: argparse.Namespace, precision: str, modes: Sequence[str]) -> list[Any]:
    """Measure training steps, printing a line when one is measured; what JSON is to hold."""
    per_second, _ = rates(precision)
    columns = "".join(f"{mode:>9}" for mode in modes)
    print(f"\ntraining steps in {precision}, ms\n{'network':16}{'batch':>6}{columns}  ratio roof")
    records = []
    for name in args.networks:
        batch_size = args.batch_size or NETWORKS[name]
        set_precision(precision)
        makers = {mode: network_maker(name, mode, precision, batch_size) for mode in modes}
        macs = summary_of(name, image_size=SIDE).macs
        operations = 3 * 2 * batch_size * macs
        result = Result(name, "step", operations, turns(makers, args.rounds))
        roof = operations / per_second
        times = "".join(
            f"{result.median(mode) * 1e3:9.1f}" if mode in result.seconds else f"{'-':>9}"
            for mode in modes
        )
        print(f"{name:16}{batch_size:6}{times}{_cells(result, roof)[7:]:>12}", flush=True)
        records.append(_record(result, precision, batch_size, roof))
    return records


# ---- the command ----


def collect_facts() -> dict[str, str]:
    """What was measured with, and when."""
    import cupy

    version = cupy.cuda.runtime.driverGetVersion()
    facts = {
        "GPU": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        "driver": f"CUDA {version // 1000}.{version % 1000 // 10}",
        "CuPy": cupy.__version__,
        "PyTorch": "none that sees the GPU",
        "date": datetime.date.today().isoformat(),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] += f", {subprocess.check_output(query, text=True).split()[0]}"
    if has_torch():
        import torch

        facts["PyTorch"] = f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables and write JSON; returns the exit status, 2 without a GPU."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.rounds < 1 or (args.batch_size is not None and args.batch_size < 1):
        parser.error("--rounds and --batch-size must be at least 1")
    try:
        namespace()
    except RuntimeError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    facts = collect_facts()
    modes = [MINIDL, *((*PYTORCH, COMPILED) if has_torch() else ())]
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    results = []
    for precision in args.precisions:
        if args.layers:
            results += run_convolutions(args, precision, modes)
        if args.networks:
            results += run_networks(args, precision, modes)
    print(f"\n{LEGEND}")
    name = f"gpu-{facts['GPU'].replace(' ', '-')}-{facts['date']}.json"
    path = args.json or RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": facts, "results": results}, indent=1) + "\n")
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
