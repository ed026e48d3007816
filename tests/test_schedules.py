"""Learning-rate schedules: 50 steps beside PyTorch's, saving and restoring."""

import json
import math

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import optim

STEPS = 50

CLOSED = {
    "step": ("StepLR", {"step_size": 7, "gamma": 0.5}),
    "step-default": ("StepLR", {"step_size": 20}),
    "multistep": ("MultiStepLR", {"milestones": [5, 17, 18, 40], "gamma": 0.3}),
    "multistep-repeated": ("MultiStepLR", {"milestones": [10, 10, 30]}),
    "exponential": ("ExponentialLR", {"gamma": 0.9}),
    "linear-decay": ("PolynomialLR", {"total_iters": 30}),
    "polynomial": ("PolynomialLR", {"total_iters": 45, "power": 2.5}),
    "cosine": ("CosineAnnealingLR", {"T_max": 50}),
    "cosine-twice": ("CosineAnnealingLR", {"T_max": 20, "eta_min": 0.02}),
}


def make_optimizer(lib):
    groups = [{"params": [lib.ones(1, requires_grad=True)], "lr": lr} for lr in (0.8, 0.1)]
    return lib.optim.SGD(groups, lr=0.5)


def lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def run(optimizer, schedule, steps=STEPS):
    rates = [lrs(optimizer)]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(lrs(optimizer))
    return np.array(rates)


@pytest.mark.parametrize("case", CLOSED)
def test_fifty_steps_agree_with_pytorch(case):
    torch = oracle()
    name, options = CLOSED[case]
    mine, theirs = make_optimizer(md), make_optimizer(torch)
    ours = run(mine, getattr(optim, name)(mine, **options))
    expected = run(theirs, getattr(torch.optim.lr_scheduler, name)(theirs, **options))
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
    assert len(np.unique(ours[:, 0])) > 2


@pytest.mark.parametrize("case", CLOSED)
def test_warmup_agrees_with_pytorchs_sequence(case):
    torch = oracle()
    name, options = CLOSED[case]
    mine, theirs = make_optimizer(md), make_optimizer(torch)
    wrapped = getattr(optim, name)(mine, **options)
    ours = run(mine, optim.LinearWarmup(wrapped, warmup_steps=6, start_factor=0.25))
    schedulers = torch.optim.lr_scheduler
    sequence = schedulers.SequentialLR(
        theirs,
        [
            schedulers.LinearLR(theirs, start_factor=0.25, total_iters=6),
            getattr(schedulers, name)(theirs, **options),
        ],
        milestones=[6],
    )
    expected = run(theirs, sequence)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours[[0, 6]], [[0.2, 0.025], [0.8, 0.1]])


def test_constant_warmup_agrees_with_pytorchs_sequence():
    torch = oracle()
    mine, theirs = make_optimizer(md), make_optimizer(torch)
    wrapped = optim.MultiStepLR(mine, [10, 20])
    ours = run(mine, optim.LinearWarmup(wrapped, 7, start_factor=0.1, end_factor=0.1))
    schedulers = torch.optim.lr_scheduler
    low = schedulers.LinearLR(theirs, start_factor=0.1, end_factor=0.1, total_iters=7)
    rest = schedulers.MultiStepLR(theirs, [10, 20])
    expected = run(theirs, schedulers.SequentialLR(theirs, [low, rest], milestones=[7]))
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    np.testing.assert_allclose(ours[[0, 6, 7, 17, 27], 0], [0.08, 0.08, 0.8, 0.08, 0.008])


def test_one_factor_a_milestone_agrees_with_pytorchs_lambda():
    torch = oracle()
    milestones, factors = [3, 8, 9, 30], [0.4, 0.5, 2.0, 0.1]
    mine, theirs = make_optimizer(md), make_optimizer(torch)
    ours = run(mine, optim.MultiStepLR(mine, milestones, gamma=factors))

    def factor(step):
        return math.prod(f for m, f in zip(milestones, factors, strict=True) if step >= m)

    expected = run(theirs, torch.optim.lr_scheduler.LambdaLR(theirs, factor))
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


PLATEAUS = {
    "default-rel": {"patience": 2},
    "abs": {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "factor": 0.5},
    "cooldown": {"patience": 0, "cooldown": 3, "factor": 0.5, "min_lr": 0.01},
    "rel-margin": {"patience": 1, "threshold": 0.2, "factor": 0.7},
    "small-changes": {"patience": 0, "factor": 0.5, "eps": 0.03},
}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("case", PLATEAUS)
def test_plateau_agrees_with_pytorch(case, mode):
    torch = oracle()
    mine, theirs = make_optimizer(md), make_optimizer(torch)
    ours = optim.ReduceLROnPlateau(mine, mode=mode, **PLATEAUS[case])
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode=mode, **PLATEAUS[case])
    rng = np.random.default_rng(1)
    trend = np.exp(-np.arange(STEPS) / 10) + 0.1 * rng.random(STEPS)
    metrics = trend if mode == "min" else 2 - trend
    metrics[20] = np.nan
    rates = []
    for metric in metrics:
        ours.step(metric)
        expected.step(metric)
        np.testing.assert_allclose(lrs(mine), lrs(theirs), rtol=1e-12)
        rates.append(lrs(mine)[0])
    assert len(set(rates)) > 1


def test_schedules_follow_their_formulas():
    optimizer = make_optimizer(md)
    cosine = optim.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.1)
    for t in range(25):
        expected = 0.1 + 0.7 * (1 + math.cos(math.pi * t / 10)) / 2
        assert cosine.get_last_lr()[0] == pytest.approx(expected, rel=1e-12)
        cosine.step()


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("case", CLOSED)
def test_restoring_in_the_middle(case, warm):
    name, options = CLOSED[case]

    def build(optimizer):
        schedule = getattr(optim, name)(optimizer, **options)
        return optim.LinearWarmup(schedule, 15) if warm else schedule

    whole = make_optimizer(md)
    expected = run(whole, build(whole))
    first = make_optimizer(md)
    schedule = build(first)
    run(first, schedule, 12)
    saved = json.loads(json.dumps(schedule.state_dict()))

    second = make_optimizer(md)
    second.param_groups[0]["lr"] = 77.0  # the saved base rates count
    resumed = build(second)
    resumed.load_state_dict(saved)
    np.testing.assert_array_equal(run(second, resumed, STEPS - 12), expected[12:])


def test_repr_shows_arguments_and_position():
    optimizer = optim.SGD([md.ones(1, requires_grad=True)], lr=0.5)
    schedule = optim.StepLR(optimizer, 30)
    schedule.step()
    assert repr(schedule) == "StepLR(step_size=30, gamma=0.1, base_lrs=[0.5], last_epoch=1)"
    warm = optim.LinearWarmup(schedule, 4)
    assert repr(warm).startswith("LinearWarmup(schedule=StepLR(step_size=30, ")
    plateau = repr(optim.ReduceLROnPlateau(optimizer, patience=3))
    assert plateau.startswith("ReduceLROnPlateau(mode='min', factor=0.1, patience=3, ")


def test_restoring_a_plateau_in_the_middle():
    metrics = np.random.default_rng(2).random(STEPS)

    def follow(schedule, values):
        rates = []
        for value in values:
            schedule.step(value)
            rates.append(schedule.get_last_lr())
        return rates

    def build():
        return optim.ReduceLROnPlateau(make_optimizer(md), patience=3, cooldown=2, factor=0.5)

    expected = follow(build(), metrics)
    first = build()
    follow(first, metrics[:21])
    resumed = build()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert follow(resumed, metrics[21:]) == expected[21:]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda o: optim.StepLR([0.1], 3),
            TypeError,
            "StepLR: expected an Optimizer, got list",
        ),
        (lambda o: optim.StepLR(o, 0), ValueError, "StepLR: step_size must be at least 1, got 0"),
        (lambda o: optim.PolynomialLR(o, 0), ValueError, "PolynomialLR: total_iters must be at"),
        (lambda o: optim.CosineAnnealingLR(o, -1), ValueError, "T_max must be at least 1, got -1"),
        (
            lambda o: optim.LinearWarmup(optim.ReduceLROnPlateau(o), 5),
            TypeError,
            "LinearWarmup: schedule must be a closed-form schedule, got ReduceLROnPlateau",
        ),
        (
            lambda o: optim.LinearWarmup(optim.StepLR(o, 3), 0),
            ValueError,
            "LinearWarmup: warmup_steps must be at least 1, got 0",
        ),
        (
            lambda o: optim.LinearWarmup(optim.StepLR(o, 3), 5, start_factor=0.0),
            ValueError,
            r"LinearWarmup: start_factor must be in \(0, 1\], got 0.0",
        ),
        (
            lambda o: optim.LinearWarmup(optim.StepLR(o, 3), 5, end_factor=1.5),
            ValueError,
            r"LinearWarmup: end_factor must be in \(0, 1\], got 1.5",
        ),
        (
            lambda o: optim.MultiStepLR(o, [3, 5], gamma=[0.1]),
            ValueError,
            "MultiStepLR: 2 milestones need one gamma or as many, got 1",
        ),
        (
            lambda o: optim.ReduceLROnPlateau(o, mode="lowest"),
            ValueError,
            "mode must be 'min' or 'max', got 'lowest'",
        ),
        (
            lambda o: optim.ReduceLROnPlateau(o, factor=1.0),
            ValueError,
            r"factor must be in \(0, 1\), got 1.0",
        ),
        (
            lambda o: optim.ReduceLROnPlateau(o, threshold_mode="both"),
            ValueError,
            "threshold_mode must be 'rel' or 'abs', got 'both'",
        ),
        (
            lambda o: optim.StepLR(o, 3).load_state_dict({"last_epoch": 1, "base_lrs": [0.1]}),
            ValueError,
            "StepLR.load_state_dict: 2 parameter groups expected, got 1",
        ),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make(make_optimizer(md))
