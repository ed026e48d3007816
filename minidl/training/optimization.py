"""From the settings to an optimiser and a learning-rate schedule."""

import math

from .. import optim
from ..nn import Module
from .settings import Settings
from .transfer_learning import parameter_groups, parse_rates

WARMUP_FRACTION = 0.05


def make_optimizer(settings: Settings, model: Module) -> optim.Optimizer:
    """The optimiser that `settings` asks for, over all parameters of `model` that learn.

    Raises:
        MinidlError: a pattern of `lr_scale` matches nothing that learns.
    """
    parameters = parameter_groups(model, settings.lr, parse_rates(settings.lr_scale))
    lr, momentum, weight_decay = settings.lr, settings.momentum, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return optim.SGD(
                parameters, lr, momentum, weight_decay=weight_decay, nesterov=settings.nesterov
            )
        case "adam":
            return optim.Adam(parameters, lr, eps=settings.eps, weight_decay=weight_decay)
        case "adamw":
            return optim.AdamW(parameters, lr, eps=settings.eps, weight_decay=weight_decay)
        case "rmsprop":
            return optim.RMSprop(
                parameters, lr, settings.alpha, settings.eps, weight_decay, momentum
            )
    raise ValueError(f"unknown optimizer {settings.optimizer!r}")


def make_schedule(
    settings: Settings, optimizer: optim.Optimizer, steps_per_epoch: int
) -> optim.Schedule | optim.ReduceLROnPlateau:
    """The learning rate over the run, in steps (plateau: in epochs).

    All but plateau begin with a linear warm-up. What the settings leave open: the warm-up takes 5 %
    of the steps; step divides by 10 after each third of what is left, multistep after 50 % and
    75 %, exponential ends at 1 %. Polynomial and cosine end with the run. Milestones count from the
    beginning of the run, the steps of step from the end of the warm-up.
    """

    def steps(epochs: float) -> int:
        return round(epochs * steps_per_epoch)

    total = settings.epochs * steps_per_epoch
    warmup = max(1, round(total * WARMUP_FRACTION))
    if settings.warmup is not None:
        warmup = steps(settings.warmup)
    rest = max(1, total - warmup)
    gamma = 0.1 if settings.gamma is None else settings.gamma[0]
    schedule: optim.Schedule
    match settings.schedule:
        case "plateau":
            return optim.ReduceLROnPlateau(
                optimizer, factor=gamma, patience=settings.patience, min_lr=settings.min_lr
            )
        case "constant":
            schedule = optim.MultiStepLR(optimizer, [])
        case "step":
            size = math.ceil(rest / 3) if settings.step_size is None else steps(settings.step_size)
            schedule = optim.StepLR(optimizer, max(1, size), gamma)
        case "multistep":
            milestones = [round(rest * 0.5), round(rest * 0.75)]
            if settings.milestones is not None:
                milestones = [steps(epochs) - warmup for epochs in settings.milestones]
            factors = settings.gamma or (gamma,)
            schedule = optim.MultiStepLR(
                optimizer, milestones, gamma if len(factors) == 1 else factors
            )
        case "exponential":
            a_step = 0.01 ** (1 / rest)
            if settings.gamma is not None:
                a_step = gamma ** (1 / steps_per_epoch)
            schedule = optim.ExponentialLR(optimizer, a_step)
        case "polynomial":
            schedule = optim.PolynomialLR(optimizer, rest, settings.power)
        case "cosine":
            schedule = optim.CosineAnnealingLR(optimizer, rest, settings.min_lr)
        case _:
            raise ValueError(f"unknown schedule {settings.schedule!r}")
    if warmup == 0:
        return schedule
    return optim.LinearWarmup(schedule, warmup, settings.warmup_from, settings.warmup_to)
