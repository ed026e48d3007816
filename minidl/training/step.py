"""One step of training: gradients of a batch, computed in parts, and the update they lead to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from ..autograd import no_grad
from ..dtypes import float32
from ..errors import DivergedError, MinidlError
from ..functional import cross_entropy, stack
from ..nn import Module
from ..nn.utils import clip_grads_with_norm_, get_total_norm
from ..optim import Optimizer
from ..precision import autocast
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor, from_numpy
from .averaging import WeightAverage
from .nonfinite import origin_in_backward, origin_in_forward
from .progress import Progress
from .reading import Reading
from .settings import Settings

# So many steps without an update, one after the other, are not an accident any more.
MAX_SKIPPED = 10


@dataclass(frozen=True)
class StepResult:
    """What a step did: the loss and the logits (N, classes) before it.

    `gradient_norm` is that before clipping, None where nobody asked. A step that was skipped has
    its reason in `skipped`.
    """

    loss: float
    logits: np.ndarray
    gradient_norm: float | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Losses:
    """Of a batch or a part of it: `own` of the main head, `total` with all that is minimised."""

    logits: Tensor
    own: Tensor
    total: Tensor


def compute_losses(settings: Settings, model: Module, images: Tensor, labels: np.ndarray) -> Losses:
    """The network's logits (N, classes) and its mean losses.

    Auxiliary heads and smoothed labels count in `total`, but not in `own`, which can therefore be
    compared with the loss of an evaluation.

    Raises:
        MinidlError: the network cannot take these images.
    """
    precision = None if settings.amp == "off" else settings.amp
    try:
        with autocast(precision):
            output = model(images)
    except ValueError as error:  # say, batch normalisation of one image's 1 x 1 features
        raise MinidlError(f"{settings.arch}: {error}") from error
    targets = from_numpy(labels)  # checked here, and then copied
    heads = output if isinstance(output, tuple) else (output,)
    logits, *auxiliary = (head.to(float32) for head in heads)
    smoothing = settings.label_smoothing if model.training else 0.0
    total = cross_entropy(logits, targets, label_smoothing=smoothing)
    own = cross_entropy(logits.detach(), targets) if smoothing else total.detach()
    for head in auxiliary:
        loss = cross_entropy(head, targets, label_smoothing=smoothing)
        total = total + settings.aux_weight * loss
    return Losses(logits.detach(), own, total)


class TrainingStep:
    """Computes gradients as the settings say, and lets the optimiser use them if they are finite.

    With `accumulate` a batch goes through the network in parts of at most batch_size / accumulate
    images. Each part's mean loss counts by its share of the images, so the gradient is that of the
    whole batch, whatever the sizes; only batch normalisation sees the parts.

    In a normal step the loss alone is watched, and a GPU computes the backward pass meanwhile. The
    norm of the gradients is computed, and waited for, where clipping or --on-nan skip needs it.
    """

    def __init__(
        self,
        settings: Settings,
        model: Module,
        optimizer: Optimizer,
        average: WeightAverage | None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.optimizer = optimizer
        self.average = average
        self.skips = settings.on_nan == "skip"
        self.largest_part = math.ceil(settings.batch_size / settings.accumulate)

    def run(self, images: Tensor, labels: np.ndarray, progress: Progress) -> StepResult:
        """One step on images (N, C, H, W) float32 and labels (N,); `progress` counts what it skips.

        Raises:
            DivergedError: the loss or a gradient is not finite, and is not to be skipped or was
                skipped too often.
        """
        fp16 = self.settings.amp == "fp16"
        random_state = get_rng_state()
        buffers = [(b, b.clone()) for b in self.model.buffers()] if self.skips else []
        scale = progress.loss_scale if fp16 else 1.0
        result, total = self._accumulate_gradients(images, labels, scale)
        norm, problem = None, ""
        if not math.isfinite(total):
            problem = f"the loss became {total}"
        elif fp16 and not self._gradients_in_range(progress):
            if progress.loss_scale >= 1:
                return result
            problem = "a gradient became infinite in fp16, although the loss is not scaled up,"
        else:
            norm = self._clip()
            if norm is not None and not math.isfinite(norm):
                problem = f"the norm of the gradients became {norm}"
        if not problem:
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            progress.skipped_in_a_row = 0
            return replace(result, gradient_norm=norm)

        set_rng_state(random_state)  # to see the same dropout again
        if math.isfinite(total):
            repeated = partial(self._accumulate_gradients, images, labels, scale)
            origin = origin_in_backward(self.model, repeated)
        else:
            parts = self._losses_of_parts(images, labels)
            origin = origin_in_forward(self.model, images, lambda: list(parts), progress.step)
        problem = (
            f"{problem} in step {progress.step + 1} (epoch {progress.epoch + 1}, learning rate "
            f"{progress.lr:.2g}), first in {origin}"
        )
        self._check_skipping(problem, progress)
        with no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return StepResult(math.nan, result.logits, skipped=problem)

    def _clip(self) -> float | None:
        """Clip the gradients if asked to; returns their norm before, if anybody needs it."""
        if not self.skips and self.settings.clip_norm is None:
            return None
        parameters = list(self.model.parameters())
        norm = get_total_norm(p.grad for p in parameters if p.grad is not None)
        if self.settings.clip_norm is not None:
            clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)
        return float(norm)

    def _check_skipping(self, problem: str, progress: Progress) -> None:
        """Count a step that is skipped.

        Raises:
            DivergedError: it is not to be skipped, or too many before it were.
        """
        if not self.skips:
            raise DivergedError(f"{problem}; try a smaller --lr")
        if progress.skipped_in_a_row == MAX_SKIPPED:
            raise DivergedError(f"{problem}; the {MAX_SKIPPED} steps before were skipped already")
        progress.skipped += 1
        progress.skipped_in_a_row += 1

    def _accumulate_gradients(
        self, images: Tensor, labels: np.ndarray, scale: float
    ) -> tuple[StepResult, float]:
        """Set the parameters' gradients, those of `scale` times the loss.

        Returns what a step without an update would, and the loss that was minimised.
        """
        self.optimizer.zero_grad()
        readings = []
        for share, losses in self._losses_of_parts(images, labels):
            readings.append((share, Reading(losses.own, losses.total, losses.logits)))
            factor = share * scale
            (losses.total if factor == 1 else losses.total * factor).backward()
        own, total, logits = 0.0, 0.0, []
        for share, reading in readings:
            own_part, total_part, logits_part = reading.wait()
            own += share * float(own_part)
            total += share * float(total_part)
            logits.append(logits_part)
        return StepResult(own, np.concatenate(logits)), total

    def _losses_of_parts(
        self, images: Tensor, labels: np.ndarray
    ) -> Iterator[tuple[float, Losses]]:
        """The parts' shares of the batch, and their losses; the parts are as equal as can be."""
        count = len(labels)
        parts = math.ceil(count / self.largest_part)
        edges = [count * part // parts for part in range(parts + 1)]
        for start, stop in pairwise(edges):
            part = images if parts == 1 else images[start:stop]
            losses = compute_losses(self.settings, self.model, part, labels[start:stop])
            yield (stop - start) / count, losses

    def _gradients_in_range(self, progress: Progress) -> bool:
        """Undo the scale of the loss; whether all gradients are finite. Adapts the scale."""
        with no_grad():
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            sums = [gradient.mul_(1 / progress.loss_scale).sum() for gradient in gradients]
            finite = bool(stack(sums).isfinite().all())
        progress.steps_in_range = progress.steps_in_range + 1 if finite else 0
        if not finite:
            progress.loss_scale /= 2
        elif progress.steps_in_range % 2000 == 0:
            progress.loss_scale *= 2
        return finite
