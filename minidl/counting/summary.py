"""A network layer by layer: shapes, parameters, multiply-accumulates, memory, receptive fields.

The network is applied, as it is, to an image that has a shape but no pixels (see
`minidl._kernels.shapes`); hooks on its modules write down what passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .._kernels.geometry import Pair
from .._kernels.shapes import ShapeArray, work
from ..autograd import no_grad
from ..models import create
from ..nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
)
from ..nn.parameter import parameters_without_values
from ..nn.trace import batch_explained, input_shape_of, parameter_dtype
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor
from .table import as_text, by

__all__ = ["LayerCount", "Summary", "summary", "summary_of"]


@dataclass(frozen=True)
class LayerCount:
    """One line of a summary: a layer, or a block of layers.

    Attributes:
        name: the module's dotted name in the network.
        layer: what it is, e.g. "conv 3x3/2 p1 g32" for window, stride, padding and groups.
        shape: of its output for one image, (C, H, W) or (features,).
        params: numbers it learns; those it shares with an earlier line count there.
        weights: those of them that are weights of convolutions and linear layers.
        macs: multiply-accumulates of its convolutions and matrix products, for one image.
        memory: numbers in its output; of a block, in the outputs of its layers.
        receptive_field: pixels (height, width) that one position of the output depends on, along
            the path that sees most. What all positions are told alike (by gates that pool the whole
            image) does not count, and what reaches beyond the image does.
        jump: distance in pixels of what neighbouring positions see; None where there are no
            neighbours.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    params: int
    weights: int
    macs: int
    memory: int
    receptive_field: Pair
    jump: Pair | None


@dataclass(frozen=True, repr=False)
class Summary:
    """What `summary` counts; it prints as a table.

    Attributes:
        model: the name of the network.
        input_shape: (C, H, W).
        layers: the lines of the table, in the order in which the layers are applied.
        modules: all modules that were called, blocks behind their parts, by the same measures.
        uncalled_params, uncalled_weights: what is in modules that were not called (heads for
            training only) and so in no line.
    """

    model: str
    input_shape: tuple[int, ...]
    layers: list[LayerCount]
    modules: list[LayerCount]
    uncalled_params: int
    uncalled_weights: int

    @property
    def params(self) -> int:
        """All numbers the network learns."""
        return sum(layer.params for layer in self.layers) + self.uncalled_params

    @property
    def weights(self) -> int:
        """The weights of convolutions and linear layers: no biases, no normalisation."""
        return sum(layer.weights for layer in self.layers) + self.uncalled_weights

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; FLOPs are twice as many."""
        return sum(layer.macs for layer in self.layers)

    @property
    def memory(self) -> int:
        """Numbers to keep for one image: the image and the outputs of all layers listed."""
        return math.prod(self.input_shape) + sum(layer.memory for layer in self.layers)

    def __repr__(self) -> str:
        return as_text(self)


def summary(
    model: Module,
    input_shape: Sequence[int] | None = None,
    depth: int | None = None,
    training: bool = False,
) -> Summary:
    """Count a network layer by layer, without computing anything.

    Shapes come from applying the network to an image without pixels, so the network may do in its
    `forward` what it likes. Neither the image nor any feature map takes memory, and the network,
    its running statistics and the random numbers are as before.

    Layers that can work in their input's memory (activations, dropout, flattening, pooling to the
    size there is) have no line of their own.

    Args:
        model: the network; it is applied to one Tensor (1, *input_shape).
        input_shape: (C, H, W), or what else the network takes. Networks of `md.models` know
            theirs.
        depth: show blocks that lie this deep as one line, e.g. 1 for the network's direct parts.
        training: count in training mode, with the heads that only training has.

    Returns a `Summary`. Raises ValueError if input_shape is missing or the network does not take
    it, TypeError if it is not integers or model is not a Module.

    >>> import minidl as md
    >>> model = md.nn.Sequential(md.nn.Conv2d(3, 16, 5), md.nn.ReLU(), md.nn.MaxPool2d(2))
    >>> counted = md.summary(model, (3, 32, 32))
    >>> counted.params, counted.weights, counted.macs, counted.memory
    (1216, 1200, 940800, 18752)
    >>> [(line.name, line.layer, line.shape, line.receptive_field) for line in counted.layers]
    [('0', 'conv 5x5/1', (16, 28, 28), (5, 5)), ('2', 'maxpool 2x2/2', (16, 14, 14), (6, 6))]
    >>> counted
    Sequential, input 32x32x3
    -----------------------------------------------------------------
    layer  operation      output    memory  params  MACs  field  jump
    -----------------------------------------------------------------
    input                 32x32x3     3072
    0      conv 5x5/1     28x28x16   12.5K   1,216  941K      5     1
    2      maxpool 2x2/2  14x14x16    3136       0     0      6     2
    -----------------------------------------------------------------
    1,216 parameters (1,200 without biases and normalisation)
    940,800 MACs (multiply-accumulates; FLOPs are twice as many)
    18,752 numbers x 4 bytes = 0.08 MB for one image, forward only
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"summary: model must be a Module, got {type(model).__name__}; "
            "for a name, md.models.create(name) makes one"
        )
    shape = input_shape_of("summary", model, input_shape)
    recorder = _Recorder(model)
    with batch_explained(shape), _undisturbed(model, training), recorder.listening(), no_grad():
        model(Tensor(ShapeArray((1, *shape), parameter_dtype(model))))
    root = recorder.root
    return Summary(
        model=getattr(model, "arch", type(model).__name__),
        input_shape=shape,
        layers=list(_lines(root, depth, 0)),
        modules=[record.total for record in recorder.finished],
        uncalled_params=sum(p.size for p in model.parameters()) - root.total.params,
        uncalled_weights=sum(map(_weight_size, model.parameters())) - root.total.weights,
    )


def summary_of(
    arch: str, depth: int | None = None, training: bool = False, **options: Any
) -> Summary:
    """`summary` of an architecture by name; its weights take no memory either.

    `options` are those of `md.models.create`. Raises what that raises.

    >>> summary_of("vgg16").macs
    15470264320
    """
    with parameters_without_values():
        model = create(arch, **options)
    return summary(model, depth=depth, training=training)


# ---- the pass ----


@dataclass
class _Record:
    """A module's call, while it runs and afterwards."""

    name: str
    module: Module
    macs_before: int
    parts: list[_Record] = field(default_factory=list)
    own_params: int = 0
    own_weights: int = 0
    own_macs: int = 0
    in_place: bool = False
    total: LayerCount = None  # type: ignore[assignment]  # when it has returned


class _Recorder:
    def __init__(self, model: Module) -> None:
        self.model = model
        self.names = {id(module): name for name, module in model.named_modules()}
        self.running: list[_Record] = []
        self.finished: list[_Record] = []
        self.counted: set[int] = set()  # parameters that an earlier record has

    @property
    def root(self) -> _Record:
        return self.finished[-1]

    @contextmanager
    def listening(self) -> Iterator[None]:
        handles = []
        for module in self.model.modules():
            handles.append(module.register_forward_pre_hook(self.enter))
            handles.append(module.register_forward_hook(self.leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def enter(self, module: Module, args: tuple) -> None:
        self.running.append(_Record(self.names[id(module)], module, work.macs))

    def leave(self, module: Module, args: tuple, output: Any) -> None:
        record = self.running.pop()
        if self.running:
            self.running[-1].parts.append(record)
        self.finished.append(record)
        parts = [part.total for part in record.parts]
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) not in self.counted:
                self.counted.add(id(parameter))
                record.own_params += parameter.size
                record.own_weights += _weight_size(parameter)
        macs = work.macs - record.macs_before
        record.own_macs = macs - sum(part.macs for part in parts)
        array = _first_array(output)
        given = _first_array(args)
        record.in_place = (
            not record.own_params
            and not record.own_macs
            and array.size == given.size
            and array.field == given.field
            and not isinstance(module, LocalResponseNorm)
        )
        memory = sum(part.memory for part in parts)
        if _has_line(record):
            memory += array.size
        record.total = LayerCount(
            name=record.name,
            layer=_describe(module),
            shape=array.shape[1:],
            params=record.own_params + sum(part.params for part in parts),
            weights=record.own_weights + sum(part.weights for part in parts),
            macs=macs,
            memory=memory,
            receptive_field=array.field.size,
            jump=array.field.jump if array.ndim == 4 and array.shape[2:] != (1, 1) else None,
        )


@contextmanager
def _undisturbed(model: Module, training: bool) -> Iterator[None]:
    """The network in the mode asked for; afterwards everything is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.data.copy()) for buffer in model.buffers()]
    random_numbers = get_rng_state()
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, before in buffers:
            buffer.data[...] = before
        set_rng_state(random_numbers)


def _lines(record: _Record, depth: int | None, level: int) -> Iterator[LayerCount]:
    """The lines of a module: its own, one for each of its layers, or one for all of it."""
    total = record.total
    if record.parts and level != depth:
        for part in record.parts:
            yield from _lines(part, depth, level + 1)
        if _has_line(record):
            yield LayerCount(
                total.name,
                total.layer,
                total.shape,
                record.own_params,
                record.own_weights,
                record.own_macs,
                math.prod(total.shape),
                total.receptive_field,
                total.jump,
            )
    elif total.memory or total.params or total.macs:
        yield total


def _has_line(record: _Record) -> bool:
    """Whether the module does something itself, besides calling its parts."""
    if record.parts:
        return bool(record.own_params or record.own_macs)
    return not record.in_place


def _weight_size(parameter: Tensor) -> int:
    """Biases and the parameters of normalisation have one axis; weights have two or four."""
    return parameter.size if parameter.ndim >= 2 else 0


def _first_array(value: Any) -> ShapeArray:
    """The array of the first Tensor among arguments or results."""
    if isinstance(value, Tensor):
        array = value.data
        return array if isinstance(array, ShapeArray) else ShapeArray(array.shape, array.dtype)
    entries = value.values() if isinstance(value, dict) else value
    if isinstance(entries, list | tuple) or isinstance(value, dict):
        for entry in entries:
            array = _first_array(entry)
            if array.size:
                return array
    return ShapeArray((0,))


# ---- what a layer is called ----


def _convolution(m: Conv2d) -> str:
    text = f"conv {by(m.kernel_size)}/{_number(m.stride)}{_padding(m.padding)}"
    text += f" d{_number(m.dilation)}" if m.dilation != (1, 1) else ""
    return text + (f" g{m.groups}" if m.groups > 1 else "")


def _pooling(m: Any) -> str:
    kind = "maxpool" if isinstance(m, MaxPool2d) else "avgpool"
    text = f"{kind} {by(m.kernel_size)}/{_number(m.stride)}{_padding(m.padding)}"
    return text + (" ceil" if m.ceil_mode else "")


def _padding(padding: str | Sequence[int]) -> str:
    if isinstance(padding, str):
        return f" {padding}"
    if not any(padding):
        return ""
    return f" p{padding[0]}" if len(set(padding)) == 1 else f" p{'x'.join(map(str, padding))}"


def _number(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else by(pair)


_DESCRIPTIONS: dict[type[Module], Callable[[Any], str]] = {
    Conv2d: _convolution,
    Linear: lambda m: "linear",
    MaxPool2d: _pooling,
    AvgPool2d: _pooling,
    AdaptiveAvgPool2d: lambda m: f"avgpool to {by(m.output_size)}",
    GlobalAvgPool2d: lambda m: "avgpool to 1x1",
    BatchNorm2d: lambda m: "batchnorm",
    LocalResponseNorm: lambda m: f"lrn {m.size}",
}


def _describe(module: Module) -> str:
    describe = _DESCRIPTIONS.get(type(module))
    return type(module).__name__ if describe is None else describe(module)
