"""From options to learning rates: what the settings say in epochs, beside PyTorch's schedules."""

import math

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import optim
from minidl.training import Settings
from minidl.training.optimization import make_optimizer, make_schedule

STEPS_PER_EPOCH = 10


def rates_of(settings, steps_per_epoch=STEPS_PER_EPOCH):
    """The learning rate of every step of a run, and the one after it."""
    parameter = md.nn.Parameter(md.ones(1))
    optimizer = optim.SGD([parameter], lr=settings.lr)
    schedule = make_schedule(settings, optimizer, steps_per_epoch)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(settings.epochs * steps_per_epoch):
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


def theirs(lr, steps, warmup, make, start=1 / 3, end=1.0):
    """The same from PyTorch: `make(schedulers, optimizer)` behind a warm-up of so many steps."""
    torch = oracle()
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=lr)
    schedule = make(schedulers, optimizer)
    if warmup:
        rise = schedulers.LinearLR(optimizer, start, end, total_iters=warmup)
        schedule = schedulers.SequentialLR(optimizer, [rise, schedule], milestones=[warmup])
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


# The options beside epochs and lr; the steps of the warm-up; PyTorch's schedule behind it.
CASES = {
    "constant": ({"warmup": 0}, 0, lambda s, o: s.ConstantLR(o, 1.0)),
    "step": (
        {"warmup": 0, "step_size": 2.5, "gamma": [0.5]}, 0, lambda s, o: s.StepLR(o, 25, 0.5)
    ),
    "step-of-thirds": ({}, 6, lambda s, o: s.StepLR(o, 38)),
    "multistep": (
        {"warmup": 1.5, "milestones": [2, 7.3], "gamma": [0.2]},
        15,
        lambda s, o: s.MultiStepLR(o, [5, 58], 0.2),
    ),
    "multistep-of-shares": ({}, 6, lambda s, o: s.MultiStepLR(o, [57, 86])),
    "exponential": ({"warmup": 1, "gamma": [0.7]}, 10, lambda s, o: s.ExponentialLR(o, 0.7**0.1)),
    "polynomial": ({"warmup": 0, "power": 0.5}, 0, lambda s, o: s.PolynomialLR(o, 120, 0.5)),
    "cosine": ({"warmup": 2, "min_lr": 0.01}, 20, lambda s, o: s.CosineAnnealingLR(o, 100, 0.01)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_options_in_epochs_are_pytorchs_in_steps(case):
    options, warmup, make = CASES[case]
    settings = Settings("lenet5", epochs=12, lr=0.3, schedule=case.partition("-")[0], **options)
    expected = theirs(0.3, 120, warmup, make)
    np.testing.assert_allclose(rates_of(settings), expected, rtol=1e-9, atol=1e-12)


def test_a_constant_warmup_ends_with_a_jump():
    settings = Settings(
        "lenet5", epochs=4, lr=0.1, schedule="constant", warmup=2, warmup_from=0.1, warmup_to=0.1
    )
    np.testing.assert_allclose(rates_of(settings), [0.01] * 20 + [0.1] * 21)


def test_one_factor_a_milestone():
    settings = Settings(
        "lenet5",
        epochs=6,
        lr=1,
        schedule="multistep",
        warmup=0,
        milestones=[1, 3],
        gamma=[0.5, 0.1],
    )
    np.testing.assert_allclose(rates_of(settings), [1.0] * 10 + [0.5] * 20 + [0.05] * 31)


def test_plateau_takes_its_numbers_from_the_options():
    settings = Settings(
        "lenet5", lr=1, schedule="plateau", gamma=[0.5], patience=1, min_lr=0.3
    )  # fmt: skip
    optimizer = optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    schedule = make_schedule(settings, optimizer, STEPS_PER_EPOCH)
    rates = []
    for loss in (2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        schedule.step(loss)
        rates += schedule.get_last_lr()
    assert rates == [1, 1, 0.5, 0.5, 0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"optimizer": "sgd", "nesterov": True, "weight_decay": 0.1},
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        ),
        (
            {"optimizer": "rmsprop", "alpha": 0.9, "eps": 1.0},
            {"alpha": 0.9, "eps": 1.0, "momentum": 0.9},
        ),
        ({"optimizer": "adam", "eps": 1e-3}, {"eps": 1e-3}),
        ({"optimizer": "adamw", "eps": 1e-3}, {"eps": 1e-3}),
    ],
)
def test_the_optimizer_takes_its_numbers_from_the_options(options, expected):
    optimizer = make_optimizer(Settings("lenet5", lr=0.7, **options), md.nn.Linear(2, 3))
    group = optimizer.param_groups[0]
    assert type(optimizer).__name__.lower() == options["optimizer"]
    assert {name: group[name] for name in ("lr", *expected)} == {"lr": 0.7} | expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"milestones": [2, 1]}, "milestones: expected rising numbers, got 2.0, 1.0"),
        ({"milestones": [0]}, "milestones: expected a number > 0 and <= 1e\\+06, got 0"),
        ({"milestones": [math.inf]}, "milestones: expected a number > 0"),
        ({"gamma": [0.5, 1]}, "gamma: expected factors below 1, got 0.5, 1.0"),
        ({"gamma": []}, "gamma: expected factors below 1, got none"),
        ({"gamma": [0.1, 0.1]}, "gamma: expected one factor for cosine, got 2"),
        (
            {"schedule": "multistep", "gamma": [0.1, 0.2, 0.3]},
            "gamma: expected one factor, or 2 as there are milestones, got 3",
        ),
        ({"step_size": 0}, "step_size: expected a number > 0"),
        ({"warmup": -1}, "warmup: expected a number >= 0"),
        ({"warmup_to": 1.1}, "warmup_to: expected a number > 0 and <= 1, got 1.1"),
        ({"optimizer": "sgd", "nesterov": True, "momentum": 0}, "nesterov: needs a momentum > 0"),
        ({"init": "he"}, "init: unknown initialiser 'he'; there are: model, he_normal"),
        ({"dropout": 1.5}, "dropout: expected a number >= 0 and <= 1, got 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Settings("lenet5", **options)
