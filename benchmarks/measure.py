"""What the benchmarks measure: the same work in several modes that take turns, and peak memory."""

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md
from minidl._kernels import cpu
from minidl.counting import summary_of
from minidl.nn.parameter import parameters_without_values

MINIDL = "minidl"
PYTORCH = ("NCHW", "NHWC")  # its default memory format, and channels_last
COMPILED = ("NCHW*", "NHWC*")  # the same through torch.compile
NETWORK_WORKS = ("forward", "step")
CONVOLUTION_WORKS = ("forward", "input gradient", "weight gradient")
LR, MOMENTUM = 0.001, 0.9
SHORTEST = 0.02  # seconds of a turn; shorter work is repeated

Work = Callable[[], Any]


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
        """PyTorch's fastest mode, if PyTorch took part."""
        rivals = [mode for mode in self.seconds if mode != MINIDL]
        return min(rivals, key=self.median, default=None)

    @property
    def ratio(self) -> float | None:
        """The fastest rival's time over minidl's: the median of the rounds' ratios."""
        if self.rival is None:
            return None
        pairs = zip(self.seconds[self.rival], self.seconds[MINIDL], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


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


# ---- networks ----


def random_batch(batch_size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, H, W) and labels (N,)."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch_size, 3, image_size, image_size), dtype=np.float32)
    return images, generator.integers(0, 1000, batch_size)


def network_works(name: str, mode: str, images: np.ndarray, labels: np.ndarray) -> dict[str, Work]:
    """The forward pass in evaluation mode, and a training step, of a network in one mode.

    The step is forward, cross-entropy, backward, SGD with momentum.
    """
    md.manual_seed(0)
    model: Any = md.models.create(name, image_size=images.shape[-1])
    if mode == MINIDL:
        framework: Any = md
        cross_entropy = md.functional.cross_entropy
        x, y = md.from_numpy(images), md.from_numpy(labels)
    else:
        import torch

        from . import torch_networks

        framework, cross_entropy = torch, torch.nn.functional.cross_entropy
        weights = {key: tensor.data for key, tensor in model.state_dict().items()}
        model = torch_networks.create(name, images.shape[-1], weights)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        if mode.startswith("NHWC"):
            model = model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        if mode in COMPILED:
            model = torch.compile(model)
    optimizer = framework.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def forward() -> None:
        model.eval()
        with framework.no_grad():
            model(x)

    def step() -> None:
        model.train()
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"forward": forward, "step": step}


def measure_network(
    name: str, modes: Sequence[str], batch_size: int, image_size: int, rounds: int
) -> list[Result]:
    """Forward pass and training step of one network."""
    images, labels = random_batch(batch_size, image_size)
    works = {mode: network_works(name, mode, images, labels) for mode in modes}
    macs = batch_size * summary_of(name, image_size=image_size).macs
    return [
        Result(name, kind, 2 * passes * macs, take_turns(turns, rounds))
        for kind, passes in zip(NETWORK_WORKS, (1, 3), strict=True)
        for turns in [{mode: works[mode][kind] for mode in modes}]
    ]


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
    settings = [str(number) for number in (batch_size, image_size, threads)]
    command = [sys.executable, "-m", "benchmarks.measure", name, mode, *settings]
    return int(subprocess.check_output(command, text=True, cwd=Path(__file__).parents[1]))


def main(name: str, mode: str, batch_size: str, image_size: str, threads: str) -> None:
    """Train two steps and print their peak: the process that `memory_of_step` starts."""
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
