"""One step of training, looked at from all sides."""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..commands import plural
from ..data import ArraySplit, Augmentation, DataSplits
from ..models import ImageClassifier
from ..nn import Module
from ..tensor import Tensor, randn
from .batches_on_device import copied_ahead
from .optimization import make_optimizer
from .recipes import Data
from .settings import Settings
from .tables import table
from .trainer import Trainer

# So many of a paper's batch are enough to see all shapes, and take seconds also for VGG.
PART = 2


def random_data(settings: Settings, like: Data) -> tuple[Settings, DataSplits]:
    """A few random images of the size and with the classes of a paper's data; and the settings.

    There is nothing in them to be augmented or measured.
    """
    size, channels = settings.image_size or 224, settings.in_channels
    settings = settings.changed(
        image_size=size,
        num_classes=settings.num_classes or like.classes,
        augment="none",
        preprocess="standardise",
    )
    pixels = np.random.default_rng(settings.seed).integers(
        0, 256, (PART, channels, size, size), np.uint8
    )
    classes = [str(label) for label in range(settings.num_classes or like.classes)]
    split = ArraySplit(pixels, np.arange(PART), classes, channels, size)
    return settings, DataSplits(
        f"random images in place of {like.name}", split, split, Augmentation()
    )


def dry_run(settings: Settings, splits: DataSplits, model: Module, part: bool = False) -> str:
    """Do one step, or only a part of one; returns a text for people.

    It lists each layer's output shape and parameters, then memory and the time of the step.
    """
    said = ""
    few = min(PART, settings.batch_size)
    if part and few < settings.batch_size:
        said = f"of a batch of {settings.batch_size:,} images"
        if settings.accumulate > 1:
            said += f", computed in {settings.accumulate} parts"
        said += f", {few} are looked at here\n"
        settings = settings.changed(batch_size=few, accumulate=1)
    trainer = Trainer(settings, splits, model)
    images, labels = next(copied_ahead(trainer.train_loader.batches(0), settings.device))
    return said + _describe_step(model, images, lambda: trainer.step(images, labels))


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
        f"one step of {plural(len(images), 'image')}: {seconds:.3f} s "
        f"({len(images) / seconds:.1f} images/s), loss {loss:#.4g}"
    )


def _shape(array: np.ndarray | Tensor) -> str:
    return "x".join(map(str, array.shape))


def _parameters(module: Module) -> int:
    return sum(parameter.size for parameter in module.parameters())
