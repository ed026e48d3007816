"""The profile of a step: which layer gets which time, operations and memory."""

import numpy as np
import pytest

import minidl as md
from minidl.autograd import Function
from minidl.training import profiling
from minidl.training.profiling import as_text, profile_step
from minidl.training.transfer_learning import freeze


class Slow(Function):
    """The identity, which takes `forward_time` and `backward_time` of a clock made for the test."""

    def __init__(self, clock, forward_time, backward_time):
        self.clock, self.times = clock, (forward_time, backward_time)

    def forward(self, x):
        self.clock.now += self.times[0]
        return x.copy()

    def backward(self, dy):
        self.clock.now += self.times[1]
        return dy


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Waiting(md.nn.Module):
    def __init__(self, clock, *times):
        super().__init__()
        self.clock, self.times = clock, times

    def forward(self, x):
        return Slow(self.clock, *self.times).apply(x)


class Branches(md.nn.Module):
    """Two layers side by side, and a sum and an operation of the block itself behind them."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.left = md.nn.Sequential(Waiting(clock, 1, 10), Waiting(clock, 2, 20))
        self.right = Waiting(clock, 3, 30)

    def forward(self, x):
        return Slow(self.clock, 4, 40).apply(self.left(x) + self.right(x))


def test_each_layer_gets_its_own_time_in_both_directions(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(profiling, "_clock", lambda device: clock)
    model = Branches(clock)
    x = md.ones(2, 3, requires_grad=True)

    def step():
        loss = model(x).sum()
        clock.now += 100
        loss.backward()

    profile = profile_step(model, step, repeats=2)
    times = {name: (layer.forward, layer.backward) for name, layer in profile.layers.items()}
    assert times == {"": (4, 40), "left.0": (1, 10), "left.1": (2, 20), "right": (3, 30)}
    assert profile.measured == profile.undisturbed == 210
    assert profile.rest == 100
    assert {layer.memory for layer in profile.layers.values()} == {2 * 3 * 4}
    lines = as_text(profile, images=2).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["(itself)", "right", "left.1", "left.0"]
    assert lines[1].split() == ["(itself)", "Branches", "0.00", "4000.00", "40000.00", "21.0%"]
    assert lines[5].split() == ["all", "layers", "0.00", "10000.00", "100000.00", "52.4%"]
    assert lines[6].split() == ["(rest)", "47.6%"]


@pytest.mark.parametrize(
    ("arch", "first"), [("lenet5", "features.conv1"), ("resnet20_cifar", "conv1")]
)
def test_operations_are_those_that_are_counted(arch, first):
    """Three products a layer, but for the images no gradient, and for a frozen layer none."""
    model = md.models.create(arch, num_classes=10)
    counted = md.summary(model, training=True)
    macs = {layer.name: layer.macs for layer in counted.modules}
    images = md.randn(2, *counted.input_shape)
    labels = md.tensor(np.array([1, 2]))

    def step():
        md.functional.cross_entropy(model(images), labels).backward()

    def flops(layers):
        return {name: layer.flops for name, layer in layers.items() if layer.flops}

    profile = profile_step(model, step, repeats=1)
    leaves = {n for n, m in model.named_modules() if isinstance(m, md.nn.Conv2d | md.nn.Linear)}
    assert flops(profile.layers) == {
        name: 2 * 2 * macs[name] * (2 if name == first else 3) for name in leaves
    }
    text = as_text(profile, images=2)
    assert max(map(len, text.splitlines())) <= 80

    last = [name for name in macs if name in leaves][-1]
    freeze(model, [name for name, _ in model.named_parameters() if not name.startswith(last)])
    profile = profile_step(model, step, repeats=1)
    assert [name for name, layer in profile.layers.items() if layer.backward] == [last]
    assert flops(profile.layers) == {
        name: 2 * 2 * macs[name] * (2 if name == last else 1) for name in leaves
    }


def test_many_layers_are_summed_up_in_one_line(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(profiling, "_clock", lambda device: clock)
    model = md.nn.Sequential(*(Waiting(clock, 1, number) for number in range(50)))
    x = md.ones(1, requires_grad=True)
    profile = profile_step(model, lambda: model(x).sum().backward(), repeats=1)
    lines = as_text(profile, images=1).splitlines()
    assert lines[39].split()[0] == "11"
    slowest = 11 + sum(range(11))
    assert lines[40].split()[:2] == ["(11", "others)"]
    assert lines[40].split()[-1] == f"{slowest / profile.measured:.1%}"
