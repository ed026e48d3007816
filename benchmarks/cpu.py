"""`python -m benchmarks.cpu`: a VGG16 step on the CPU, minidl against PyTorch, in one run.

Both do the same work on the same random images: forward pass, cross-entropy, backward pass, SGD
with momentum. The two take turns, so that a machine that slows down slows both; quote the ratio.
PyTorch comes with `pip install minidl[oracle]`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md
from minidl import installation

LR, MOMENTUM = 0.01, 0.9
VGG16_MACS = 15_470_264_320  # one 224 x 224 image, forward


def minidl_steps(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], None]]:
    """minidl's forward pass (evaluation mode) and training step."""
    md.manual_seed(0)
    model = md.models.create("vgg16", image_size=images.shape[-1])
    optimizer = md.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    x, y = md.from_numpy(images), md.from_numpy(labels)

    def forward() -> None:
        model.eval()
        with md.no_grad():
            model(x)

    def step() -> None:
        model.train()
        loss = md.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"forward": forward, "training step": step}


def torch_steps(
    images: np.ndarray, labels: np.ndarray, threads: int, channels_last: bool
) -> dict[str, Callable[[], None]]:
    """The same network and work in PyTorch, in its default or its channels_last memory format."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    layers: list[nn.Module] = []
    channels = images.shape[1]
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    grid = images.shape[-1] // 32
    layers += [nn.Flatten(), nn.Linear(512 * grid * grid, 4096), nn.ReLU(inplace=True)]
    layers += [nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    model = nn.Sequential(*layers, nn.Linear(4096, 1000))
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            model(x)

    def step() -> None:
        model.train()
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"forward": forward, "training step": step}


def seconds(work: Callable[[], None]) -> float:
    """How long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, taking turns, after one round of warming up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            elapsed = seconds(work)
            if number > 0:
                times[name].append(elapsed)
    return times


def main() -> int:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="benchmarks.cpu", description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224, help="a multiple of 32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()

    md.set_num_threads(args.threads)
    generator = np.random.default_rng(0)
    shape = (args.batch_size, 3, args.image_size, args.image_size)
    images = generator.standard_normal(shape, dtype=np.float32)
    labels = generator.integers(0, 1000, args.batch_size)
    frameworks = {"minidl": minidl_steps(images, labels)}
    try:
        frameworks["PyTorch"] = torch_steps(images, labels, args.threads, channels_last=False)
        frameworks["PyTorch channels_last"] = torch_steps(images, labels, args.threads, True)
    except ImportError:
        print(
            "PyTorch is not installed (pip install minidl[oracle]): no comparison", file=sys.stderr
        )

    facts = installation.collect_config()[0]
    print(
        f"VGG16, {args.image_size} x {args.image_size}, batch {args.batch_size}, "
        f"{args.threads} threads, median of {args.rounds} rounds\n"
        f"{facts['processor']}, {facts['instruction set']}\n\n"
        f"{'':14} {'framework':22} {'ms':>8} {'GFLOP/s':>8} {'its time / minidl':>18}"
    )
    scale = (args.image_size / 224) ** 2
    results: list[dict[str, Any]] = []
    for kind, passes in (("forward", 1), ("training step", 3)):
        times = measure({name: works[kind] for name, works in frameworks.items()}, args.rounds)
        operations = 2 * VGG16_MACS * scale * passes * args.batch_size
        for name, values in times.items():
            ratios = [t / ours for t, ours in zip(values, times["minidl"], strict=True)]
            median = statistics.median(values)
            print(
                f"{kind:14} {name:22} {median * 1e3:8.0f} {operations / median / 1e9:8.0f} "
                f"{statistics.median(ratios):18.2f}"
            )
            results.append(
                {"work": kind, "framework": name, "seconds": values, "ratio_to_minidl": ratios}
            )
    if args.json:
        record = {"settings": vars(args) | {"json": None}, "machine": facts, "results": results}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
