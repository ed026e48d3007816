"""Learning-rate schedules: each changes "lr" in an optimiser's parameter groups.

All but `ReduceLROnPlateau` are closed formulas of the number of steps so far, which a caller counts
in epochs or in batches by calling `step()` after each. They agree with PyTorch's schedules of the
same names.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from .optimizer import Optimizer


class Schedule:
    """Base class: a subclass defines `lr_at`.

    The learning rates of the groups at construction are the base rates.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: expected an Optimizer, got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch = 0
        self._set_lrs()

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """The learning rate after `epoch` steps for a group that started with `base_lr`."""
        raise NotImplementedError(f"{type(self).__name__} does not define lr_at()")

    def step(self) -> None:
        """Go one step further; call it after `optimizer.step()`."""
        self.last_epoch += 1
        self._set_lrs()

    def _set_lrs(self) -> None:
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr_at(self.last_epoch, base_lr)

    def get_last_lr(self) -> list[float]:
        """The current learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The position and the base rates, plain numbers; arguments are not part of it."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the position and set the learning rates that belong to it.

        Raises:
            ValueError: if the number of groups differs.
        """
        _check_groups(self, state_dict["base_lrs"])
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = list(state_dict["base_lrs"])
        self._set_lrs()

    def __repr__(self) -> str:
        return _described(self)


class StepLR(Schedule):
    """base * gamma^floor(t / step_size).

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> schedule = StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        _check_positive("StepLR", "step_size", step_size)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """See the class."""
        return base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(Schedule):
    """base times a factor for each milestone reached; no milestones give a constant rate.

    Args:
        milestones: numbers of steps.
        gamma: one factor for all milestones, or a list of one for each.

    Raises:
        ValueError: if a list of factors and the milestones differ in number.

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> schedule = MultiStepLR(optimizer, milestones=[30, 60])
    >>> schedule.lr_at(29, 1.0), schedule.lr_at(30, 1.0)
    (1.0, 0.1)
    >>> schedule = MultiStepLR(optimizer, milestones=[2, 5], gamma=[0.5, 0.2])
    >>> [schedule.lr_at(step, 1.0) for step in (1, 2, 5)]
    [1.0, 0.5, 0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float | Sequence[float] = 0.1,
    ) -> None:
        self.milestones = sorted(milestones)
        self.gammas = list(gamma) if isinstance(gamma, Sequence) else [gamma] * len(milestones)
        if len(self.gammas) != len(milestones):
            raise ValueError(
                f"MultiStepLR: {len(milestones)} milestones need one gamma or as many, "
                f"got {len(self.gammas)}"
            )
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """See the class."""
        return base_lr * math.prod(self.gammas[: bisect_right(self.milestones, epoch)])


class ExponentialLR(Schedule):
    """base * gamma^t.

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> ExponentialLR(optimizer, gamma=0.5).lr_at(3, 1.0)
    0.125
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """See the class."""
        return base_lr * self.gamma**epoch


class PolynomialLR(Schedule):
    """base * (1 - t / total_iters)^power, and 0 from total_iters on.

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> PolynomialLR(optimizer, total_iters=4, power=2.0).lr_at(2, 1.0)
    0.25
    """

    def __init__(self, optimizer: Optimizer, total_iters: int, power: float = 1.0) -> None:
        _check_positive("PolynomialLR", "total_iters", total_iters)
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """See the class."""
        return base_lr * (1.0 - min(epoch, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(Schedule):
    """eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2; it rises again after T_max.

    Source: Loshchilov, Hutter, "SGDR", ICLR 2017, equation 5 (without restarts).

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> round(CosineAnnealingLR(optimizer, T_max=10).lr_at(5, 1.0), 6)
    0.5
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        _check_positive("CosineAnnealingLR", "T_max", T_max)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """See the class."""
        cosine = math.cos(math.pi * epoch / self.T_max)
        return self.eta_min + (base_lr - self.eta_min) * (1.0 + cosine) / 2.0


class LinearWarmup(Schedule):
    """Rise linearly from start_factor * base to end_factor * base, then follow `schedule`.

    The wrapped schedule starts its own count when the warm-up ends, so that a cosine over T_max
    steps ends at warmup_steps + T_max. Only the outer schedule is stepped and saved. The same as
    PyTorch's SequentialLR of LinearLR and another.

    Args:
        schedule: any schedule but `ReduceLROnPlateau`; `MultiStepLR(optimizer, [])` is constant.
        warmup_steps: number of steps of the rise.
        start_factor: where the rise starts, in (0, 1].
        end_factor: where it ends, in (0, 1]. Where that is less than 1, the rate jumps to the base
            rate after the warm-up; the same as start_factor, it is constant until then.

    Raises:
        TypeError, ValueError: if the schedule is of another kind; for arguments out of range.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2; with equal factors He,
    Zhang, Ren, Sun, CVPR 2016, section 4.2 (ResNet-110).

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> schedule = LinearWarmup(StepLR(optimizer, 10), warmup_steps=4, start_factor=0.5)
    >>> [schedule.lr_at(t, 1.0) for t in (0, 2, 4, 13, 14)]
    [0.5, 0.75, 1.0, 1.0, 0.1]
    """

    def __init__(
        self,
        schedule: Schedule,
        warmup_steps: int,
        start_factor: float = 1.0 / 3.0,
        end_factor: float = 1.0,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise TypeError(
                "LinearWarmup: schedule must be a closed-form schedule, got "
                f"{type(schedule).__name__}"
            )
        _check_positive("LinearWarmup", "warmup_steps", warmup_steps)
        for name, factor in (("start_factor", start_factor), ("end_factor", end_factor)):
            if not 0.0 < factor <= 1.0:
                raise ValueError(f"LinearWarmup: {name} must be in (0, 1], got {factor}")
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.start_factor = start_factor
        self.end_factor = end_factor
        for group, base_lr in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
            group["lr"] = base_lr  # what the base class takes as base rates
        super().__init__(schedule.optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """See the class."""
        if epoch >= self.warmup_steps:
            return self.schedule.lr_at(epoch - self.warmup_steps, base_lr)
        share = epoch / self.warmup_steps
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * share)


class ReduceLROnPlateau:
    """Multiply the learning rates by `factor` when a metric has stopped improving.

    Args:
        optimizer: its groups' "lr" are changed.
        mode: "min" if a smaller metric is better, "max" if a larger one is.
        factor: in (0, 1).
        patience: number of steps without improvement that are borne; the next one reduces.
        threshold, threshold_mode: an improvement is a metric better than best (1 -/+ threshold) for
            "rel", or than best -/+ threshold for "abs".
        cooldown: steps after a reduction during which nothing is counted.
        min_lr: lower bound of the learning rates.
        eps: a change smaller than this is not made.

    Raises:
        ValueError: if mode, factor or threshold_mode is out of range.

    >>> import minidl as md
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> schedule = ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}"
            )
        if not 0.0 < factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must be in (0, 1), got {factor}")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.eps = eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metric: float) -> None:
        """Record the metric of one more epoch; NaN counts as no improvement."""
        metric = float(metric)
        self.last_epoch += 1
        if self._is_better(metric):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _is_better(self, metric: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        margin = self.threshold
        if self.threshold_mode == "rel":  # nothing seen yet: no margin, as inf - inf is NaN
            margin = self.threshold * self.best if math.isfinite(self.best) else 0.0
        return sign * metric < sign * self.best - margin

    def _reduce(self) -> None:
        for group in self.optimizer.param_groups:
            lr = max(group["lr"] * self.factor, self.min_lr)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The current learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What has been seen so far ("best" is None before that) and the current rates."""
        return {
            "best": self.best if math.isfinite(self.best) else None,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "last_epoch": self.last_epoch,
            "lrs": self.get_last_lr(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, the learning rates included.

        Raises:
            ValueError: if the number of groups differs.
        """
        _check_groups(self, state_dict["lrs"])
        nothing_yet = math.inf if self.mode == "min" else -math.inf
        self.best = nothing_yet if state_dict["best"] is None else float(state_dict["best"])
        self.num_bad_epochs = int(state_dict["num_bad_epochs"])
        self.cooldown_counter = int(state_dict["cooldown_counter"])
        self.last_epoch = int(state_dict["last_epoch"])
        for group, lr in zip(self.optimizer.param_groups, state_dict["lrs"], strict=True):
            group["lr"] = lr

    def __repr__(self) -> str:
        return _described(self)


def _described(schedule: Schedule | ReduceLROnPlateau) -> str:
    """Arguments and position, but for the optimiser, which prints itself."""
    facts = {name: value for name, value in vars(schedule).items() if name != "optimizer"}
    return f"{type(schedule).__name__}({', '.join(f'{n}={v!r}' for n, v in facts.items())})"


def _check_positive(schedule: str, argument: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{schedule}: {argument} must be at least 1, got {value}")


def _check_groups(schedule: Schedule | ReduceLROnPlateau, rates: Sequence[float]) -> None:
    expected = len(schedule.optimizer.param_groups)
    if len(rates) != expected:
        raise ValueError(
            f"{type(schedule).__name__}.load_state_dict: {expected} parameter groups expected, "
            f"got {len(rates)}"
        )
