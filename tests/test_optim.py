"""Optimisers: 50 steps beside PyTorch, parameter groups, saving and restoring."""

import copy
import json

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import optim

STEPS = 50

CASES = {
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd-decay": ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "sgd-momentum": ("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    "sgd-dampening": ("SGD", {"lr": 0.02, "momentum": 0.8, "dampening": 0.3}),
    "sgd-nesterov": (
        "SGD",
        {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    ),
    "adam": ("Adam", {"lr": 0.03}),
    "adam-decay": (
        "Adam",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "adamw": ("AdamW", {"lr": 0.03}),
    "adamw-decay": ("AdamW", {"lr": 0.03, "betas": (0.7, 0.9), "eps": 1e-2, "weight_decay": 0.3}),
    "rmsprop": ("RMSprop", {"lr": 0.02}),
    "rmsprop-momentum": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.1},
    ),
}


class Problem:
    """A small regression with two layers; the loss is not quadratic, so steps depend on history."""

    def __init__(self, lib, dtype="float64"):
        rng = np.random.default_rng(0)
        arrays = {
            "w1": rng.normal(size=(4, 6)),
            "b1": rng.normal(size=6),
            "w2": rng.normal(size=(6, 2)),
        }
        self.tensor = lambda array: lib.tensor(array.astype(dtype))
        self.parameters = {}
        for name, array in arrays.items():
            parameter = self.tensor(array)
            parameter.requires_grad = True
            self.parameters[name] = parameter
        self.x = self.tensor(rng.normal(size=(8, 4)))
        self.y = self.tensor(rng.normal(size=(8, 2)))

    def backward(self):
        p = self.parameters
        hidden = (self.x @ p["w1"] + p["b1"]).tanh()
        error = hidden @ p["w2"] - self.y
        (error * error).mean().backward()

    def train(self, optimizer, steps=STEPS):
        trajectory = []
        for _ in range(steps):
            optimizer.zero_grad()
            self.backward()
            optimizer.step()
            trajectory.append(self.values())
        return trajectory

    def values(self):
        return np.concatenate(
            [p.detach().numpy().astype(np.float64).ravel() for p in self.parameters.values()]
        )


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_agree_with_pytorch(case):
    torch = oracle()
    name, options = CASES[case]
    mine, theirs = Problem(md), Problem(torch)
    start = mine.values()
    ours = mine.train(getattr(optim, name)(mine.parameters.values(), **options))
    expected = theirs.train(getattr(torch.optim, name)(theirs.parameters.values(), **options))
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(ours[-1] - start).max() > 0.05


@pytest.mark.parametrize("case", ["sgd-nesterov", "adam-decay", "adamw", "rmsprop-momentum"])
def test_float32_stays_near(case):
    torch = oracle()
    name, options = CASES[case]
    mine, theirs = Problem(md, "float32"), Problem(torch, "float32")
    ours = mine.train(getattr(optim, name)(mine.parameters.values(), **options))
    expected = theirs.train(getattr(torch.optim, name)(theirs.parameters.values(), **options))
    np.testing.assert_allclose(ours[-1], expected[-1], rtol=2e-3, atol=2e-4)
    assert mine.parameters["w1"].dtype == md.float32


@pytest.mark.parametrize(
    ("name", "common", "special"),
    [
        ("SGD", {"lr": 0.05, "momentum": 0.9}, {"lr": 0.01, "weight_decay": 0.2}),
        ("Adam", {"lr": 0.05}, {"betas": (0.5, 0.9), "lr": 0.01}),
        ("AdamW", {"lr": 0.05}, {"weight_decay": 0.0}),
        ("RMSprop", {"lr": 0.01}, {"momentum": 0.5, "alpha": 0.8}),
    ],
)
def test_parameter_groups_agree_with_pytorch(name, common, special):
    torch = oracle()

    def run(lib):
        problem = Problem(lib)
        p = problem.parameters
        groups = [{"params": [p["w1"], p["w2"]]}, {"params": p["b1"], **special}]
        return problem.train(getattr(lib.optim, name)(groups, **common))

    np.testing.assert_allclose(run(md), run(torch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_restoring_in_the_middle_continues_the_same_trajectory(case):
    name, options = CASES[case]
    whole = Problem(md)
    expected = whole.train(getattr(optim, name)(whole.parameters.values(), **options))

    first = Problem(md)
    optimizer = getattr(optim, name)(first.parameters.values(), **options)
    first.train(optimizer, 20)
    saved = through_json_and_arrays(optimizer.state_dict())
    values = {key: p.data.copy() for key, p in first.parameters.items()}
    first.train(optimizer, 3)  # what was saved must not follow

    second = Problem(md)
    for key, p in second.parameters.items():
        p.data[...] = values[key]
    resumed = getattr(optim, name)(second.parameters.values(), lr=123.0)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == options["lr"]
    np.testing.assert_array_equal(second.train(resumed, STEPS - 20), expected[20:])


def through_json_and_arrays(state_dict):
    """What a checkpoint does: numbers through JSON, arrays as copies."""
    arrays = {}

    def strip(value):
        if isinstance(value, np.ndarray):
            arrays[f"array{len(arrays)}"] = value.copy()
            return f"array{len(arrays) - 1}"
        if isinstance(value, dict):
            return {key: strip(entry) for key, entry in value.items()}
        return value

    def fill(value):
        if isinstance(value, dict):
            return {key: fill(entry) for key, entry in value.items()}
        return arrays[value] if isinstance(value, str) else value

    return fill(json.loads(json.dumps(strip(state_dict))))


def test_state_dict_is_plain():
    problem = Problem(md)
    optimizer = optim.Adam([{"params": [problem.parameters["w1"]]}, {"params": []}], lr=0.5)
    optimizer.add_param_group({"params": [problem.parameters["b1"]], "lr": 0.25})
    problem.train(optimizer, 2)
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0], [], [1]]
    assert [group["lr"] for group in state["param_groups"]] == [0.5, 0.5, 0.25]
    assert set(state["state"]) == {0, 1}
    assert state["state"][0]["step"] == 2
    assert type(state["state"][1]["exp_avg"]) is np.ndarray


def test_parameters_without_gradient_stay():
    problem = Problem(md)
    spare = md.ones(3, requires_grad=True)
    optimizer = optim.SGD([*problem.parameters.values(), spare], lr=0.1, weight_decay=0.5)
    problem.train(optimizer, 1)
    assert spare.data.tolist() == [1.0, 1.0, 1.0]
    optimizer.zero_grad()
    assert all(p.grad is None for p in problem.parameters.values())


def test_step_counts_as_an_in_place_change():
    problem = Problem(md)
    optimizer = optim.SGD(problem.parameters.values(), lr=0.1)
    hidden = problem.x @ problem.parameters["w1"]
    loss = (hidden @ problem.parameters["w2"]).sum()
    problem.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_deepcopied_state_can_be_loaded():
    problem = Problem(md)
    optimizer = optim.SGD(problem.parameters.values(), lr=0.1, momentum=0.9)
    problem.train(optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    velocity = state["state"][0]["velocity"]
    problem.train(optimizer, 2)
    assert np.any(optimizer.state_dict()["state"][0]["velocity"] != velocity)
    optimizer.load_state_dict(state)
    restored = optimizer.state_dict()["state"][0]["velocity"]
    np.testing.assert_array_equal(restored, velocity)
    assert not np.shares_memory(restored, velocity)


def test_repr_shows_groups():
    optimizer = optim.SGD([md.ones(2, requires_grad=True)], lr=0.1)
    assert repr(optimizer) == (
        "SGD(\n  group 0: 1 parameters, lr=0.1, momentum=0.0, weight_decay=0.0, dampening=0.0, "
        "nesterov=False\n)"
    )


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda p: optim.SGD([]), ValueError, "SGD: got an empty list of parameters"),
        (
            lambda p: optim.SGD([p, p]),
            ValueError,
            r"SGD: a parameter of shape \(2,\) appears twice",
        ),
        (
            lambda p: optim.Adam([{"params": [p]}, {"params": [p]}]),
            ValueError,
            r"Adam: a parameter of shape \(2,\) appears twice",
        ),
        (
            lambda p: optim.SGD([p.data]),
            TypeError,
            "SGD: parameters must be Tensors, got ndarray",
        ),
        (
            lambda p: optim.SGD([p * 2]),
            ValueError,
            r"SGD: cannot optimise a tensor that was computed from others \(shape \(2,\)\)",
        ),
        (lambda p: optim.SGD([p], lr=-0.1), ValueError, "SGD: lr must be >= 0, got -0.1"),
        (lambda p: optim.SGD([p], lr=float("nan")), ValueError, "SGD: lr must be >= 0, got nan"),
        (
            lambda p: optim.RMSprop([p], momentum=-1.0),
            ValueError,
            "RMSprop: momentum must be >= 0, got -1.0",
        ),
        (
            lambda p: optim.RMSprop([p], alpha=1.0),
            ValueError,
            r"alpha must be in \[0, 1\), got 1.0",
        ),
        (
            lambda p: optim.AdamW([p], betas=(0.9, 1.0)),
            ValueError,
            r"AdamW: betas must be two numbers in \[0, 1\), got \(0.9, 1.0\)",
        ),
        (
            lambda p: optim.SGD([p], nesterov=True),
            ValueError,
            "SGD: nesterov needs momentum > 0 and dampening 0, got momentum 0.0, dampening 0.0",
        ),
        (
            lambda p: optim.SGD([{"params": [p], "momentun": 0.9}]),
            TypeError,
            "SGD: unknown option 'momentun' in a parameter group",
        ),
        (
            lambda p: optim.SGD([{"lr": 0.9}]),
            TypeError,
            "SGD: a parameter group must be a dict with a 'params' entry",
        ),
        (
            lambda p: optim.Adam(md.nn.Linear(2, 3)),
            TypeError,
            r"^Adam: expected Tensors, got a Linear; give its parameters\(\)$",
        ),
        (
            lambda p: optim.SGD([{"params": md.nn.Sequential()}]),
            TypeError,
            r"^SGD: expected Tensors, got a Sequential; give its parameters\(\)$",
        ),
        (lambda p: optim.SGD(0.1), TypeError, "^SGD: expected Tensors, got float$"),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make(md.ones(2, requires_grad=True))


def test_load_state_dict_errors():
    p, q = md.ones(2, requires_grad=True), md.ones(3, requires_grad=True)
    optimizer = optim.SGD([p, q], lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"groups of sizes \[1\] expected, got \[2\]"):
        optim.SGD([p], lr=0.1).load_state_dict(state)
    wrong = {**state, "state": {0: {"velocity": np.ones(4)}}}
    with pytest.raises(
        ValueError, match=r"velocity of parameter 0 must have shape \(2,\), got \(4,\)"
    ):
        optimizer.load_state_dict(wrong)
    with pytest.raises(ValueError, match="state for parameter 7, but there are 2 parameters"):
        optimizer.load_state_dict({**state, "state": {"7": {}}})
