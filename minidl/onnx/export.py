"""`md.onnx.export`: a network's operations, written down in ONNX.

The network is traced twice, with different numbers of images, so that sizes that follow the number
of images can be told from those that do not. Each operation is then translated by the table in
`translations.py`.

Source: https://onnx.ai/onnx/operators, operator set 17.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._kernels.shapes import ShapeArray
from ..io.files import replace_file
from ..nn import Module
from ..nn.trace import Step, batch_explained, input_shape_of
from ..tensor import Tensor
from .package import OnnxError, onnx_package
from .trace import Trace, trace
from .translations import TRANSLATIONS

OPSET = 17
IR_VERSION = 8  # the file format that belongs to it
MAX_BYTES = 2**31 - 2**20  # what protobuf can hold, less some room for the graph itself
BATCHES = 2, 7  # numbers of images of the two runs


def export(
    model: Module, path: str | os.PathLike[str], input_shape: Sequence[int] | None = None
) -> None:
    """Write a network as an ONNX file, replacing an older one in one step.

    The file holds what the network computes in evaluation mode, for any number of images of one
    size. Its input is called "input", its output "output" ("output0", "output1", ... if the
    network returns several), its weights have their `state_dict` names. Nothing is computed: the
    network is applied to images without pixels.

    Args:
        model: the network; it takes one Tensor (N, *input_shape), of its parameters' dtype.
        path: the file.
        input_shape: (C, H, W), or what else the network takes, without the number of images.
            Networks of `md.models` know theirs.

    Raises:
        OnnxError: the package onnx is missing; an operation has no counterpart in ONNX, or a value
            is computed by other means than minidl's operations; the file cannot be written.
        TypeError: model is not a Module, path not a file's name, input_shape not integers.
        ValueError: input_shape is missing, or the network does not take it.

    >>> import tempfile
    >>> import minidl as md
    >>> model = md.models.create("lenet5").eval()
    >>> path = Path(tempfile.mkdtemp()) / "lenet5.onnx"
    >>> md.onnx.export(model, path)
    >>> images = md.randn(5, 1, 32, 32)
    >>> bool((abs(md.onnx.load(path)(images) - model(images)) < 1e-5).all())
    True
    """
    if not isinstance(model, Module):
        raise TypeError(f"export: model must be a Module, got {type(model).__name__}")
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"export: path must be a file's name, got {type(path).__name__}; "
            "the order is export(model, path, input_shape)"
        )
    shape = input_shape_of("export", model, input_shape)
    onnx = onnx_package()
    state = dict((*model.named_parameters(), *model.named_buffers()))
    size = sum(tensor.data.nbytes for tensor in state.values())
    if size > MAX_BYTES:
        raise OnnxError(f"export: {size:,} bytes of weights; one ONNX file holds {MAX_BYTES:,}")
    with batch_explained(shape):
        few, many = (trace(model, (n, *shape)) for n in BATCHES)
    graph = _Graph(onnx, state, few, many)
    _check_batch(graph.nodes, _Graph(onnx, state, many, few).nodes)
    proto = graph.model(type(model).__name__)
    onnx.checker.check_model(proto)
    path = Path(path)
    try:
        replace_file(path, lambda temporary: temporary.write_bytes(proto.SerializeToString()))
    except OSError as error:
        raise OnnxError(f"{path}: cannot be written ({error})") from error


def _check_batch(few: list[Any], many: list[Any]) -> None:
    """Both runs must give one graph: it is then one for any number of images.

    Raises:
        OnnxError: they differ; the text names the operation.
    """
    for a, b in zip(few, many, strict=False):
        if a != b:
            raise OnnxError(
                f"export: {a.op_type} ({', '.join(a.output)}) depends on the number of images in a "
                "way that ONNX cannot express"
            )
    if len(few) != len(many):
        raise OnnxError("export: which operations there are depends on the number of images")


class _Graph:
    """The graph of a run; the translations of single operations call its public methods."""

    def __init__(self, onnx: Any, state: dict[str, Tensor], run: Trace, other: Trace) -> None:
        self.onnx = onnx
        self._state = state
        self._weights = {id(tensor): name for name, tensor in state.items()}
        self._names: dict[int, str] = {}  # id of a tensor -> its name; the runs keep them alive
        self._taken = {"input", *(self._output_names(run)), *state}
        self._used: dict[str, None] = {}  # weights, in the order of their use
        self.nodes: list[Any] = []
        self._twins: dict[int, Tensor] = {id(run.input): other.input}
        self._run = run
        if [type(s.operation) for s in run.steps] != [type(s.operation) for s in other.steps]:
            raise OnnxError("export: which operations there are depends on the number of images")
        for step, twin in zip(run.steps, other.steps, strict=True):
            pairs = zip(step.inputs + step.outputs, twin.inputs + twin.outputs, strict=True)
            self._twins.update((id(a), b) for a, b in pairs)
        for a, b in zip(run.outputs, other.outputs, strict=True):
            self._twins[id(a)] = b
        self._names[id(run.input)] = "input"
        for step in run.steps:
            self._translate(step)
        self._outputs = [
            self._name_output(tensor, name)
            for tensor, name in zip(run.outputs, self._output_names(run), strict=True)
        ]

    @staticmethod
    def _output_names(run: Trace) -> list[str]:
        count = len(run.outputs)
        return ["output"] if count == 1 else [f"output{i}" for i in range(count)]

    # ---- for translations ----

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node of the operator `kind`; returns its output's name, or a list of several."""
        names = [self._fresh(kind) for _ in range(outputs)]
        self.nodes.append(
            self.onnx.helper.make_node(kind, inputs, names, name=names[0], **attributes)
        )
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Add numbers that belong to an operation; returns their name."""
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        tensor = self.onnx.numpy_helper.from_array(array)
        return self.node("Constant", value=tensor)

    def name(self, tensor: Tensor) -> str:
        """The name of a tensor that an operation reads."""
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        if id(tensor) in self._weights:
            name = self._weights[id(tensor)]
            self._used[name] = None
        elif isinstance(tensor.data, ShapeArray):
            raise OnnxError(
                f"export: a value of shape {tensor.shape} and type {tensor.dtype} depends on the "
                "input, but was not computed by a differentiable operation of minidl (a "
                "comparison, argmax or detach(), for example)"
            )
        else:
            name = self.constant(tensor.data, tensor.dtype)
        self._names[id(tensor)] = name
        return name

    def sizes(self, tensor: Tensor) -> list[int | None]:
        """The shape of a tensor, with None for sizes that follow the number of images."""
        other = self._twins[id(tensor)]
        if other.ndim != tensor.ndim:
            raise OnnxError("export: the number of axes depends on the number of images")
        pairs = zip(tensor.shape, other.shape, strict=True)
        return [a if a == b else None for a, b in pairs]

    # ---- the whole ----

    def model(self, name: str) -> Any:
        """The ONNX model."""
        weights = [self._weight(weight) for weight in self._used]
        graph = self.onnx.helper.make_graph(
            self.nodes, name, [self._value(self._run.input, "input")], self._outputs, weights
        )
        return self.onnx.helper.make_model(
            graph,
            producer_name="minidl",
            ir_version=IR_VERSION,
            opset_imports=[self.onnx.helper.make_opsetid("", OPSET)],
        )

    def _translate(self, step: Step) -> None:
        translation = TRANSLATIONS.get(type(step.operation))
        if translation is None:
            raise OnnxError(f"export: the operation {step.operation.name!r} has no counterpart")
        names = translation(self, step)
        for tensor, name in zip(
            step.outputs, [names] if isinstance(names, str) else names, strict=True
        ):
            self._names[id(tensor)] = name

    def _name_output(self, tensor: Tensor, name: str) -> Any:
        """Call a result by its name as an output."""
        inner = self.name(tensor)
        self.nodes.append(self.onnx.helper.make_node("Identity", [inner], [name], name=name))
        makers = [i for i, node in enumerate(self.nodes) if inner in node.output]
        readers = [i for i, node in enumerate(self.nodes) if inner in node.input]
        outputs = self._output_names(self._run)
        if makers and len(readers) == 1 and inner not in outputs:  # nobody else reads it
            del self.nodes[-1]
            node = self.nodes[makers[0]]
            node.output[list(node.output).index(inner)] = name
            self._names[id(tensor)] = name
        return self._value(tensor, name)

    def _weight(self, name: str) -> Any:
        return self.onnx.numpy_helper.from_array(np.ascontiguousarray(self._state[name].data), name)

    def _value(self, tensor: Tensor, name: str) -> Any:
        """What a graph says about its inputs and outputs: name, type and shape."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
        sizes = self.sizes(tensor)
        batch = self._run.input.shape[0]
        shape = [
            n if n is not None else "N" if tensor.shape[i] == batch else f"{name}_{i}"
            for i, n in enumerate(sizes)
        ]
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def _fresh(self, kind: str) -> str:
        number = len(self.nodes)
        name = f"{kind}_{number}"
        while name in self._taken:
            number += 1
            name = f"{kind}_{number}"
        self._taken.add(name)
        return name
