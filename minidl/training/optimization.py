"""From the names in the settings to an optimiser and a learning-rate schedule."""

import math

from .. import optim
from ..nn import Module
from .settings import Settings

WARMUP_FRACTION = 0.05


def make_optimizer(settings: Settings, model: Module) -> optim.Optimizer:
    """The optimiser that `settings` asks for, over all parameters of `model`."""
    parameters = list(model.parameters())
    lr, momentum, weight_decay = settings.lr, settings.momentum, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return optim.SGD(parameters, lr, momentum, weight_decay=weight_decay)
        case "adam":
            return optim.Adam(parameters, lr, weight_decay=weight_decay)
        case "adamw":
            return optim.AdamW(parameters, lr, weight_decay=weight_decay)
        case "rmsprop":
            return optim.RMSprop(parameters, lr, momentum=momentum, weight_decay=weight_decay)
    raise ValueError(f"unknown optimizer {settings.optimizer!r}")


def make_schedule(
    settings: Settings, optimizer: optim.Optimizer, steps_per_epoch: int
) -> optim.Schedule | optim.ReduceLROnPlateau:
    """The learning rate over the run, in steps (plateau: in epochs).

    All but plateau rise linearly over the first 5 % of the steps. Then, over what is left: step
    divides by 10 after each third, multistep after 50 % and 75 %, exponential ends at 1 %,
    polynomial falls linearly to 0, cosine follows half a cosine to 0. Plateau divides by 10 when
    the test loss has not fallen for more than 2 epochs.
    """
    total = settings.epochs * steps_per_epoch
    warmup = max(1, round(total * WARMUP_FRACTION))
    rest = max(1, total - warmup)
    schedule: optim.Schedule
    match settings.schedule:
        case "plateau":
            return optim.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
        case "constant":
            schedule = optim.MultiStepLR(optimizer, [])
        case "step":
            schedule = optim.StepLR(optimizer, math.ceil(rest / 3))
        case "multistep":
            schedule = optim.MultiStepLR(optimizer, [round(rest * 0.5), round(rest * 0.75)])
        case "exponential":
            schedule = optim.ExponentialLR(optimizer, 0.01 ** (1 / rest))
        case "polynomial":
            schedule = optim.PolynomialLR(optimizer, rest)
        case "cosine":
            schedule = optim.CosineAnnealingLR(optimizer, rest)
        case _:
            raise ValueError(f"unknown schedule {settings.schedule!r}")
    return optim.LinearWarmup(schedule, warmup)
