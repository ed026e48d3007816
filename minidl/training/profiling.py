"""Where a step of training spends its time, layer by layer."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..autograd import Function, is_grad_enabled, observe_operations
from ..commands import plural
from ..data import DataSplits
from ..device import namespace_on
from ..functional.conv import Conv2d
from ..functional.linear import Linear
from ..nn import Module
from ..tensor import Tensor
from .batches_on_device import copied_ahead
from .settings import Settings
from .tables import table
from .trainer import Trainer

__all__ = ["LayerTimes", "StepProfile", "as_text", "profile_step", "profile_training"]

MOST_LINES = 40  # of a table; what takes least time is summed up in one line
LONGEST_KIND = 13  # of a class's name


@dataclass
class LayerTimes:
    """What a module does in one step by itself, without the modules in it.

    Attributes:
        forward, backward: seconds.
        flops: of its convolutions and matrix products, both ways; a multiply-accumulate is two.
        memory: bytes of its outputs.
    """

    forward: float = 0.0
    backward: float = 0.0
    flops: int = 0
    memory: int = 0

    @property
    def seconds(self) -> float:
        """Both ways."""
        return self.forward + self.backward


@dataclass(frozen=True)
class StepProfile:
    """What `profile_step` measures.

    Attributes:
        layers: by name; medians of several steps.
        kinds: the modules' classes, by name.
        measured: seconds of a step whose layers are timed.
        undisturbed: seconds of a step as it is in training.
    """

    layers: dict[str, LayerTimes]
    kinds: dict[str, str]
    measured: float
    undisturbed: float

    @property
    def rest(self) -> float:
        """Seconds of a timed step outside the layers: loss, optimiser, sums of gradients."""
        return self.measured - sum(layer.seconds for layer in self.layers.values())


def profile_step(
    model: Module, step: Callable[[], Any], device: str = "cpu", repeats: int = 5
) -> StepProfile:
    """Time each module of `model` while `step` trains it; medians of `repeats` steps.

    One step to warm up comes first. A layer's forward time is that of its `forward` without the
    modules called in it; its backward time is that of the operations that it called, wherever they
    come in the backward pass. On a GPU every layer is waited for, so launches do not overlap with
    computation as they do in training.

    >>> import minidl as md
    >>> model = md.nn.Sequential(md.nn.Linear(64, 32), md.nn.ReLU(), md.nn.Linear(32, 10))
    >>> images = md.randn(8, 64)
    >>> profile = profile_step(model, lambda: model(images).sum().backward())
    >>> {name: layer.flops for name, layer in profile.layers.items()}
    {'0': 65536, '1': 0, '2': 15360}
    """
    clock = _clock(device)
    step()
    records, measured, undisturbed = [], [], []
    for _ in range(repeats):
        recorder = _Recorder(model, clock)
        begun = clock()
        with recorder.listening():
            step()
        measured.append(clock() - begun)
        records.append(recorder.layers)
        begun = clock()
        step()
        undisturbed.append(clock() - begun)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    # Layers that are dropped by chance are missing in some of the steps.
    called = [name for name in kinds if any(name in record for record in records)]
    layers = {name: _median([record[name] for record in records]) for name in called}
    return StepProfile(layers, kinds, median(measured), median(undisturbed))


def profile_training(settings: Settings, splits: DataSplits, model: Module) -> str:
    """Profile steps on the first training batch; returns a text for people."""
    trainer = Trainer(settings, splits, model)
    images, labels = next(copied_ahead(trainer.train_loader.batches(0), settings.device))
    model.train()
    profile = profile_step(model, lambda: trainer.step(images, labels), settings.device)
    return as_text(profile, len(labels))


def _median(times: list[LayerTimes]) -> LayerTimes:
    return LayerTimes(
        median(layer.forward for layer in times),
        median(layer.backward for layer in times),
        round(median(layer.flops for layer in times)),
        round(median(layer.memory for layer in times)),
    )


def _clock(device: str) -> Callable[[], float]:
    """Seconds, once all work that the device was given is done."""
    if device == "cpu":
        return time.perf_counter
    stream = namespace_on(device).cuda.get_current_stream()

    def clock() -> float:
        stream.synchronize()
        return time.perf_counter()

    return clock


@dataclass
class _Call:
    name: str
    begun: float
    inner: float = 0.0  # seconds in the modules that it called
    operations: int = 0  # that it called itself


@dataclass
class _Recorder:
    """Writes down what passes while a model is trained."""

    model: Module
    clock: Callable[[], float]
    layers: defaultdict[str, LayerTimes] = field(default_factory=lambda: defaultdict(LayerTimes))
    running: list[_Call] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[None]:
        names = {id(module): name for name, module in self.model.named_modules()}
        handles = []
        for module in self.model.modules():
            handles.append(
                module.register_forward_pre_hook(lambda module, args: self.enter(names[id(module)]))
            )
            handles.append(module.register_forward_hook(self.leave))
        try:
            with observe_operations(self.observe):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def enter(self, name: str) -> None:
        self.running.append(_Call(name, self.clock()))

    def leave(self, module: Module, args: tuple, output: Any) -> None:
        call = self.running.pop()
        elapsed = self.clock() - call.begun
        if call.operations:  # else it only passes on what its parts do
            layer = self.layers[call.name]
            layer.forward += elapsed - call.inner
            layer.memory += _bytes(output)
        if self.running:
            self.running[-1].inner += elapsed

    def observe(
        self, operation: Function, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> None:
        """Count an operation of the forward pass, and have its backward timed."""
        if not self.running or not is_grad_enabled():
            return
        call, backward = self.running[-1], operation.backward
        call.operations += 1
        layer = self.layers[call.name]
        if isinstance(operation, Conv2d | Linear):
            weight = inputs[1]
            macs = outputs[0].size * (weight.size // weight.shape[0])
            layer.flops += 2 * macs * (1 + sum(operation.needs[:2]))

        def timed(*gradients: Tensor) -> Any:
            begun = self.clock()
            result = backward(*gradients)
            layer.backward += self.clock() - begun
            return result

        operation.backward = timed  # type: ignore[method-assign]  # of this one application


def _bytes(output: Any) -> int:
    """The memory of a module's output: a Tensor, or several."""
    tensors = output if isinstance(output, tuple | list) else (output,)
    return sum(tensor.data.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def as_text(profile: StepProfile, images: int) -> str:
    """The profile of a step of so many images as a table of 80 columns, slowest layers first."""
    layers = sorted(profile.layers.items(), key=lambda item: item[1].seconds, reverse=True)
    lines = [(name, profile.kinds[name], times) for name, times in layers]
    if len(lines) > MOST_LINES:
        others = [times for _, _, times in lines[MOST_LINES - 1 :]]
        lines[MOST_LINES - 1 :] = [(f"({len(others)} others)", "", _sum(others))]
    lines.append(("all layers", "", _sum(list(profile.layers.values()))))
    rows: list[tuple[str, ...]] = [("layer", "type", "MB", "fwd ms", "bwd ms", "GFLOP/s", "share")]
    for name, kind, times in lines:
        rate = f"{times.flops / times.seconds / 1e9:.1f}" if times.flops else ""
        ways = (f"{1e3 * times.forward:.2f}", f"{1e3 * times.backward:.2f}")
        share = f"{times.seconds / profile.measured:.1%}"
        kind = kind if len(kind) <= LONGEST_KIND else f"{kind[: LONGEST_KIND - 3]}..."
        rows.append((name or "(itself)", kind, f"{times.memory / 1e6:.2f}", *ways, rate, share))
    rows.append(("(rest)", *[""] * 5, f"{profile.rest / profile.measured:.1%}"))
    shown = plural(images, "image")
    return (
        f"{table(rows)}\n"
        "MB: of outputs. GFLOP/s: of convolutions and linear layers, both ways, as the\n"
        "direct method counts them. Rest: loss, optimiser, sums of gradients.\n"
        f"one step of {shown} (median): {profile.measured:.3g} s with layers timed,\n"
        f"{profile.undisturbed:.3g} s as in training: "
        f"{images / profile.undisturbed:,.1f} images/s"
    )


def _sum(several: list[LayerTimes]) -> LayerTimes:
    return LayerTimes(
        sum(times.forward for times in several),
        sum(times.backward for times in several),
        sum(times.flops for times in several),
        sum(times.memory for times in several),
    )
