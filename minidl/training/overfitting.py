"""Can the network learn a single batch by heart? If not, more data will not help either.

A network for images has parameters enough for one batch. Where its loss stays high all the same,
something is wrong that one batch shows as well as a thousand: a learning rate that is far off,
layers that get no gradient, initial weights that let signals vanish, images or labels that are not
what they should be.
"""

from collections.abc import Callable
from dataclasses import replace

from ..commands import plural
from ..data import DataLoader, DataSplits
from ..errors import MinidlError
from ..nn import Dropout, Module
from .batches_on_device import copied_ahead
from .settings import Settings
from .trainer import Trainer

__all__ = ["overfit_batch"]

STEPS = 500
LEARNED = 0.05  # a mean cross-entropy below this: the true classes have about 95 %
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def overfit_batch(
    settings: Settings,
    splits: DataSplits,
    model: Module,
    steps: int = STEPS,
    show: Callable[[str], None] = print,
) -> str:
    """Train on the first batch alone until its loss is below 0.05; returns a line that says so.

    The learning rate is that of the settings from the first step to the last. What hinders learning
    by heart is off: augmentation, weight decay, dropout, label smoothing.

    Args:
        settings, splits, model: as for training.
        steps: how many at most.
        show: is given a line now and then.

    Raises:
        DivergedError: the loss is not finite.
        MinidlError: the steps are over and the loss is not that low.
    """
    settings = replace(
        settings,
        schedule="constant",
        gamma=None,
        warmup=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        on_nan="stop",
    )
    trainer = Trainer(settings, splits, model)
    loader = DataLoader(
        splits.train, settings.batch_size, shuffle=True, seed=settings.seed, limit=settings.limit
    )
    images, labels = next(copied_ahead(loader.batches(0), settings.device))
    model.train()
    for module in model.modules():
        if isinstance(module, Dropout):
            module.eval()
    losses: list[float] = []
    for step in range(1, steps + 1):
        losses.append(trainer.step(images, labels))
        if step in SHOWN:
            show(f"step {step:3}  loss {losses[-1]:#.4g}")
        if losses[-1] < LEARNED:
            break
    text = (
        f"{plural(len(labels), 'image')} by heart in {len(losses)} steps: "
        f"loss {losses[0]:#.3g} -> {losses[-1]:#.3g}"
    )
    if losses[-1] < LEARNED:
        return f"{settings.arch} learned {text}"
    raise MinidlError(
        f"{settings.arch} did not learn {text}, lowest {min(losses):#.3g}, expected below "
        f"{LEARNED}; try other --lr (--find-lr helps), --optimizer or --init, "
        "and look at images and labels"
    )
