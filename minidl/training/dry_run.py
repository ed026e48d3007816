"""One step of training, looked at from all sides."""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..data import DataSplits
from ..models import ImageClassifier
from ..nn import Module
from ..tensor import Tensor, randn
from .batches_on_device import copied_ahead
from .optimization import make_optimizer
from .settings import Settings
from .tables import table
from .trainer import Trainer


def dry_run(settings: Settings, splits: DataSplits, model: Module) -> str:
    """Do one step; returns a text for people.

    It lists each layer's output shape and parameters, then memory and the time of the step.
    """
    trainer = Trainer(settings, splits, model)
    images, labels = next(copied_ahead(trainer.train_loader.batches(0), settings.device))
    return _describe_step(model, images, lambda: trainer.step(images, labels))


def dry_run_part(settings: Settings, part: ImageClassifier) -> str:
    """The same for a part of a network: a step that draws its outputs for noise towards zero."""
    side = part.image_size
    maps = randn(settings.batch_size, part.in_channels, side, side, device=settings.device)
    optimizer = make_optimizer(settings, part)

    def step() -> float:
        loss = (part(maps) ** 2).mean()
        loss.backward()
        optimizer.step()
        return float(loss)

    return _describe_step(part, maps, step)


def _describe_step(model: Module, images: np.ndarray | Tensor, step: Callable[[], float]) -> str:
    """What happens in `model` while `step`, which returns a loss, shows it the images."""
    rows = [("layer", "type", "output", "parameters"), ("(input)", "", _shape(images), "")]
    output_bytes = 0

    def record(name: str, layer: Module, inputs: Any, output: Tensor) -> None:
        nonlocal output_bytes
        output_bytes += output.data.nbytes
        rows.append((name, type(layer).__name__, _shape(output), f"{_parameters(layer):,}"))

    handles = [
        layer.register_forward_hook(partial(record, name))
        for name, layer in model.named_modules()
        if next(iter(layer.children()), None) is None
    ]
    begun = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - begun
    for handle in handles:
        handle.remove()

    parameters = _parameters(model)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return (
        f"{table(rows)}\n"
        f"parameters {parameters:,} ({parameters * 4 / 1e6:,.1f} MB), "
        f"outputs of all layers {output_bytes / 1e6:,.1f} MB\n"
        f"peak memory of the process {peak_bytes / 1e6:,.1f} MB\n"
        f"one step of {len(images)} images: {seconds:.3f} s "
        f"({len(images) / seconds:.1f} images/s), loss {loss:#.4g}"
    )


def _shape(array: np.ndarray | Tensor) -> str:
    return "x".join(map(str, array.shape))


def _parameters(module: Module) -> int:
    return sum(parameter.size for parameter in module.parameters())
