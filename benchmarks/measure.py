"""What the benchmarks measure: the same work in several modes that take turns, and peak memory."""

import functools
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md
from minidl._kernels import cpu
from minidl._kernels.cpu import gemm
from minidl.counting import summary_of
from minidl.nn.parameter import parameters_without_values

MINIDL = "minidl"
PYTORCH = ("NCHW", "NHWC")  # its default memory format, and channels_last
COMPILED = ("NCHW*", "NHWC*")  # the same through torch.compile
ONNX = "ONNX"  # ONNX Runtime, for inference
JAX = "JAX"  # compiled by XLA, in NHWC, for convolutions
NETWORK_WORKS = ("forward", "inference", "step")
CONVOLUTION_WORKS = ("forward", "input gradient", "weight gradient")
LR, MOMENTUM = 0.001, 0.9
SHORTEST = 0.02  # seconds of a turn; shorter work is repeated

Work = Callable[[], Any]


def paired_ratio(dividends: Sequence[float], divisors: Sequence[float]) -> float:
    """The median of the ratios within each round: a slow round is slow for both."""
    return statistics.median(a / b for a, b in zip(dividends, divisors, strict=True))


@dataclass(frozen=True)
class Result:
    """Seconds of one piece of work, by mode and round.

    `operations` are those of the direct method (2 a multiply-accumulate), whatever method is used.
    """

    name: str
    work: str
    operations: float
    seconds: dict[str, list[float]]

    def median(self, mode: str) -> float:
        """Seconds of a mode."""
        return statistics.median(self.seconds[mode])

    def gflops(self, mode: str) -> float:
        """10^9 operations a second."""
        return self.operations / self.median(mode) / 1e9

    @property
    def rival(self) -> str | None:
        """The fastest of the others, if there are any."""
        rivals = [mode for mode in self.seconds if mode != MINIDL]
        return min(rivals, key=self.median, default=None)

    @property
    def ratio(self) -> float | None:
        """The fastest rival's time over minidl's: the median of the rounds' ratios."""
        if self.rival is None:
            return None
        return paired_ratio(self.seconds[self.rival], self.seconds[MINIDL])


# ---- time ----


def seconds(work: Work, calls: int = 1) -> float:
    """How long a call takes.

    Where there are several, the first is not counted: it pays for what the others' turn has left
    in the caches, and for their threads that still wait in a loop.
    """
    if calls > 1:
        work()
    begun = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - begun) / calls


def take_turns(
    works: dict[str, Work], rounds: int, clock: Callable[..., float] = seconds
) -> dict[str, list[float]]:
    """Seconds of each mode in each round, by `clock`, after a round of warming up."""
    times: dict[str, list[float]] = {mode: [] for mode in works}
    calls = {}
    for mode, work in works.items():
        work()
        calls[mode] = max(1, math.ceil(SHORTEST / clock(work)))
    for _ in range(rounds):
        for mode, work in works.items():
            times[mode].append(clock(work, calls[mode]))
    return times


def ceiling(threads: int) -> float:
    """GFLOP/s of the product's micro-kernel on strips that stay in each thread's cache.

    The best of several turns: what the machine can do when nothing disturbs it.
    """
    calls = 1 + int(3e9 / gemm.multiply_in_cache(256, 1, 1))  # a few hundredths of a second
    best = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        operations = gemm.multiply_in_cache(256, calls, threads)
        best = max(best, operations / (time.perf_counter() - begun) / 1e9)
    return best


# ---- networks ----


def random_batch(batch_size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, H, W) and labels (N,)."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch_size, 3, image_size, image_size), dtype=np.float32)
    return images, generator.integers(0, 1000, batch_size)


def network_works(name: str, mode: str, images: np.ndarray, labels: np.ndarray) -> dict[str, Work]:
    """What a network does in one mode, by NETWORK_WORKS.

    forward: in evaluation mode, the network as it is trained. inference: the same with batch
    normalisation folded into convolutions, by `md.nn.fuse` and repeated by `md.nn.Replay`, by
    PyTorch's torch.fx, by ONNX Runtime itself. step: forward, cross-entropy, backward, SGD with
    momentum.
    """
    md.manual_seed(0)
    model: Any = md.models.create(name, image_size=images.shape[-1])
    if mode == ONNX:
        return {"inference": onnx_inference(model, images)}
    if mode == MINIDL:
        framework: Any = md
        cross_entropy = md.functional.cross_entropy
        x, y = md.from_numpy(images), md.from_numpy(labels)

        def fuse(network: Any) -> Any:
            return md.nn.Replay(md.nn.fuse(network))

    else:
        import torch
        from torch.fx.experimental.optimization import fuse

        from . import torch_networks

        framework, cross_entropy = torch, torch.nn.functional.cross_entropy
        weights = {key: tensor.data for key, tensor in model.state_dict().items()}
        model = torch_networks.create(name, images.shape[-1], weights)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        if mode.startswith("NHWC"):
            model = model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)

    # PyTorch's fuse asks for evaluation mode; the copies are made when they are first needed.
    prepare = torch.compile if mode in COMPILED else lambda network: network
    trained, folded = prepare(model), functools.cache(lambda: prepare(fuse(model.eval())))
    optimizer = framework.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def forward() -> Any:
        model.eval()
        with framework.no_grad():
            return trained(x)

    def inference() -> Any:
        with framework.no_grad():
            return folded()(x)

    def step() -> None:
        model.train()
        loss = cross_entropy(trained(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"forward": forward, "inference": inference, "step": step}


def onnx_inference(model: md.nn.Module, images: np.ndarray) -> Work:
    """ONNX Runtime on the network that minidl exports, with as many threads as minidl."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = md.get_num_threads()
    options.log_severity_level = 3  # errors only
    # Between its turns its threads must not wait in a loop that takes the others' processors.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        md.onnx.export(model.eval(), path)
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    return lambda: session.run(None, {"input": images})


def measure_network(
    name: str, modes: Sequence[str], batch_size: int, image_size: int, rounds: int
) -> list[Result]:
    """All works of one network; a training step is counted as three forward passes."""
    images, labels = random_batch(batch_size, image_size)
    works = {mode: network_works(name, mode, images, labels) for mode in modes}
    macs = batch_size * summary_of(name, image_size=image_size).macs
    return [
        Result(name, kind, 2 * passes * macs, take_turns(turns, rounds))
        for kind, passes in zip(NETWORK_WORKS, (1, 1, 3), strict=True)
        for turns in [{mode: works[mode][kind] for mode in modes if kind in works[mode]}]
    ]


def measure_scaling(
    name: str, threads: int, batch_size: int, image_size: int, rounds: int
) -> dict[str, float]:
    """How many times faster minidl is with so many threads than with one, by kind of work."""
    works = network_works(name, MINIDL, *random_batch(batch_size, image_size))

    def with_threads(count: int, work: Work) -> Work:
        def run() -> None:
            md.set_num_threads(count)
            work()

        return run

    found = {}
    for kind in ("forward", "step"):
        turns = {str(count): with_threads(count, works[kind]) for count in (1, threads)}
        times = take_turns(turns, rounds)
        found[kind] = paired_ratio(times["1"], times[str(threads)])
    md.set_num_threads(threads)
    return found


# ---- convolutions ----


@dataclass(frozen=True)
class Convolution:
    """What tells one convolution from another."""

    input_shape: tuple[int, int, int]
    weight_shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int

    def __str__(self) -> str:
        c, h, w = self.input_shape
        k, _, r, s = self.weight_shape
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{c}x{h}x{w} > {k} {r}x{s}/{self.stride[0]}{groups}"


def convolutions(name: str, image_size: int) -> dict[Convolution, int]:
    """The distinct convolutions of a network and their multiply-accumulates for one image."""
    with parameters_without_values():
        model = md.models.create(name, image_size=image_size)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, md.nn.Conv2d)}
    shapes: dict[md.nn.Module, tuple[int, int, int]] = {}
    for layer in layers.values():
        layer.register_forward_hook(lambda m, args, y: shapes.update({m: args[0].shape[1:]}))
    counted = {module.name: module.macs for module in md.summary(model).modules}
    return {
        Convolution(shapes[m], m.weight.shape, m.stride, m.padding, m.groups): counted[n]
        for n, m in layers.items()
    }


def convolution_works(
    conv: Convolution, mode: str, x: np.ndarray, weight: np.ndarray, dy: np.ndarray
) -> dict[str, Work]:
    """The convolution and its two gradients in one mode."""
    if mode == MINIDL:
        (top, left), stride = conv.padding, conv.stride
        options: Any = {"stride": stride, "padding": (top, top, left, left), "groups": conv.groups}
        return {
            "forward": lambda: cpu.conv2d_forward(x, weight, **options),
            "input gradient": lambda: cpu.conv2d_input_grad(dy, weight, x.shape, **options),
            "weight gradient": lambda: cpu.conv2d_weight_grad(dy, x, weight.shape, **options),
        }
    if mode == JAX:
        return jax_convolution_works(conv, x, weight, dy)
    import torch

    layout = torch.channels_last if mode == "NHWC" else torch.contiguous_format
    a, b, c = (torch.from_numpy(z).contiguous(memory_format=layout) for z in (x, weight, dy))

    def gradient(of_input: bool) -> Work:
        window = (conv.stride, conv.padding, (1, 1), False, (0, 0), conv.groups)
        wanted = (of_input, not of_input, False)
        return lambda: torch.ops.aten.convolution_backward(c, a, b, None, *window, wanted)

    conv2d = torch.nn.functional.conv2d
    return {
        "forward": lambda: conv2d(a, b, None, conv.stride, conv.padding, 1, conv.groups),
        "input gradient": gradient(of_input=True),
        "weight gradient": gradient(of_input=False),
    }


def jax_convolution_works(
    conv: Convolution, x: np.ndarray, weight: np.ndarray, dy: np.ndarray
) -> dict[str, Work]:
    """The same compiled by XLA, in the layout that it prefers: NHWC, weights (R, S, C, K)."""
    import jax

    def convolve(a: Any, b: Any) -> Any:
        return jax.lax.conv_general_dilated(
            a,
            b,
            conv.stride,
            [(pad, pad) for pad in conv.padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=conv.groups,
        )

    a, c = (jax.numpy.asarray(z.transpose(0, 2, 3, 1)) for z in (x, dy))
    b = jax.numpy.asarray(weight.transpose(2, 3, 1, 0))
    forward = jax.jit(convolve)
    input_gradient = jax.jit(lambda b, c: jax.vjp(lambda a: convolve(a, b), a)[1](c)[0])
    weight_gradient = jax.jit(lambda a, c: jax.vjp(lambda b: convolve(a, b), b)[1](c)[0])
    return {
        "forward": lambda: forward(a, b).block_until_ready(),
        "input gradient": lambda: input_gradient(b, c).block_until_ready(),
        "weight gradient": lambda: weight_gradient(a, c).block_until_ready(),
    }


def measure_convolution(
    conv: Convolution, macs: int, modes: Sequence[str], batch_size: int, rounds: int
) -> list[Result]:
    """The forward pass and the two gradients of one convolution."""
    generator = np.random.default_rng(0)
    (k, _, r, s), (_, h, w) = conv.weight_shape, conv.input_shape
    output = [
        (n + 2 * pad - window) // step + 1
        for n, pad, window, step in zip((h, w), conv.padding, (r, s), conv.stride, strict=True)
    ]
    x, weight, dy = (
        generator.standard_normal(shape, dtype=np.float32)
        for shape in ((batch_size, *conv.input_shape), conv.weight_shape, (batch_size, k, *output))
    )
    works = {mode: convolution_works(conv, mode, x, weight, dy) for mode in modes}
    return [
        Result(str(conv), kind, 2 * batch_size * macs, take_turns(turns, rounds))
        for kind in CONVOLUTION_WORKS
        for turns in [{mode: works[mode][kind] for mode in modes}]
    ]


# ---- memory ----


def set_threads(count: int, torch_too: bool) -> None:
    """Give both frameworks as many threads."""
    md.set_num_threads(count)
    if torch_too:
        import torch

        torch.set_num_threads(count)


def peak_memory() -> int:
    """Bytes: the largest resident set of this process so far.

    Linux's getrusage would count the process that started this one as well.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def memory_of_step(name: str, mode: str, batch_size: int, image_size: int, threads: int) -> int:
    """Bytes that a fresh process needs for training steps, beyond what the libraries take."""
    settings = [*map(str, (batch_size, image_size, threads)), md.config.conv_algorithm]
    command = [sys.executable, "-m", "benchmarks.measure", name, mode, *settings]
    return int(subprocess.check_output(command, text=True, cwd=Path(__file__).parents[1]))


def main(
    name: str, mode: str, batch_size: str, image_size: str, threads: str, algorithm: str
) -> None:
    """Train two steps and print their peak: the process that `memory_of_step` starts."""
    md.config.conv_algorithm = algorithm
    set_threads(int(threads), torch_too=mode != MINIDL)
    network_works("squeezenet1_1", mode, *random_batch(1, 32))["step"]()  # loads all libraries
    libraries = peak_memory()
    images, labels = random_batch(int(batch_size), int(image_size))
    step = network_works(name, mode, images, labels)["step"]
    for _ in range(2):  # from the second on there is a velocity
        step()
    print(peak_memory() - libraries)


if __name__ == "__main__":
    main(*sys.argv[1:])
