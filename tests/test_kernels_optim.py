"""CPU optimiser steps against the NumPy specification."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    LAYOUTS,
    assert_close,
    assert_same_bits_for_any_threads,
    dtypes,
    layouts,
    normal,
    read_only,
    seeds,
)

from minidl._kernels import cpu, reference

# For each step: how many state arrays it takes, and its numbers.
STEPS = {
    "plain sgd": ("sgd_step", 0, {"lr": 0.1, "weight_decay": 0.2}),
    "sgd": ("sgd_step", 1, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "dampening": 0.3}),
    "nesterov": ("sgd_step", 1, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": ("adam_step", 2, {"step": 3, "lr": 0.1, "weight_decay": 0.2}),
    "adamw": ("adam_step", 2, {"step": 1, "lr": 0.1, "weight_decay": 0.2, "decoupled": True}),
    "rmsprop": ("rmsprop_step", 1, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.2}),
    "rmsprop with momentum": ("rmsprop_step", 2, {"lr": 0.1, "eps": 0.1, "momentum": 0.9}),
}
OPTIONAL_VELOCITY = {"plain sgd", "rmsprop"}  # these take None as their last state

steps = pytest.mark.parametrize("name", list(STEPS))
shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)


def run(kernels, name, params, grads, states):
    """One step; `states` has a list of states for each parameter."""
    function, count, numbers = STEPS[name]
    arrays = [list(column) for column in zip(*states, strict=True)] if params else [[]] * count
    arrays += [None] if name in OPTIONAL_VELOCITY else []
    assert getattr(kernels, function)(params, grads, *arrays, **numbers) is None


def start(name, seed, shape, dtype):
    """A parameter, its gradient and non-negative states."""
    state = [np.abs(normal(seed + 2 + i, *shape, dtype=dtype)) for i in range(STEPS[name][1])]
    return normal(seed, *shape, dtype=dtype), normal(seed + 1, *shape, dtype=dtype), state


@steps
@given(
    shape=st.one_of(shapes, st.just((40_003,))),
    seed=seeds,
    dtype=dtypes,
    layout=layouts.filter(lambda layout: layout is not read_only),
    grad_layout=layouts,
)
def test_step(name, shape, seed, dtype, layout, grad_layout):
    param, grad, state = start(name, seed, shape, dtype)
    actual = layout(param.copy())
    actual_state = [layout(array.copy()) for array in state]
    given_grad = grad_layout(grad)
    run(cpu, name, [actual], [given_grad], [actual_state])
    np.testing.assert_array_equal(given_grad, grad)
    run(reference, name, [param], [grad], [state])
    assert_close(actual, param)
    for one, other in zip(actual_state, state, strict=True):
        assert_close(one, other)


@steps
def test_step_of_a_single_number(name):
    param, grad, state = start(name, 0, (), np.float64)
    param, grad, state = np.array(param), np.array(grad), [np.array(array) for array in state]
    expected, expected_state = param.copy(), [array.copy() for array in state]
    run(cpu, name, [param], [grad], [state])
    run(reference, name, [expected], [grad], [expected_state])
    assert_close(param, expected)


@steps
@pytest.mark.parametrize("shapes", [[], [(3, 4), (0,), (20_001,), (1,)]])
def test_step_of_several_parameters_is_that_of_each(name, shapes):
    together = [start(name, i, shape, np.float32) for i, shape in enumerate(shapes)]
    alone = [start(name, i, shape, np.float32) for i, shape in enumerate(shapes)]
    run(cpu, name, *([list(column) for column in zip(*together, strict=True)] or [[], [], []]))
    for (param, _, state), (other, grad, other_state) in zip(together, alone, strict=True):
        run(cpu, name, [other], [grad], [other_state])
        for one, expected in zip((param, *state), (other, *other_state), strict=True):
            np.testing.assert_array_equal(one, expected)


@steps
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(name, dtype):
    def step():
        param, grad, state = start(name, 0, (50_001,), dtype)
        run(cpu, name, [param], [grad], [state])
        return param, *state

    assert_same_bits_for_any_threads(step)


@steps
def test_read_only_parameters_are_refused(name):
    param, grad, state = start(name, 0, (3, 4), np.float32)
    with pytest.raises(ValueError, match="_step: params has a read-only array, but the step"):
        run(cpu, name, [LAYOUTS["read-only"](param)], [grad], [state])


def test_errors_say_what_is_wrong():
    x = np.ones(3)
    with pytest.raises(
        ValueError, match=r"sgd_step: velocities must have shape \(3,\), got \(2,\)"
    ):
        cpu.sgd_step([x], [x], [np.ones(2)], 0.1, 0.9)
    with pytest.raises(ValueError, match="sgd_step: got 1 grads, but 2 velocities"):
        cpu.sgd_step([x], [x], [x, x], 0.1, 0.9)
    with pytest.raises(TypeError, match="same dtype, got grads float32, params float64"):
        cpu.sgd_step([x], [x.astype(np.float32)], None, 0.1)
    with pytest.raises(TypeError, match="sgd_step: params must be float32 or float64, got int64"):
        cpu.sgd_step([np.ones(3, np.int64)], [x], None, 0.1)
    with pytest.raises(ValueError, match="adam_step: step counts from 1, got 0"):
        cpu.adam_step([x], [x], [x], [x], 0, 0.1)
