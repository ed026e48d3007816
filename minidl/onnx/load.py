"""`md.onnx.load`: an ONNX file as a Module.

An ONNX file is data, a protobuf message: nothing in it is ever executed but the operators in
`operators.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..io.files import listed, quoted
from ..nn import Module, Parameter
from ..tensor import Tensor, from_numpy
from .operators import DTYPES, OPERATORS, Node
from .package import OnnxError, onnx_package

OLDEST_OPSET = 7  # before it, operators broadcast in another way


class OnnxModel(Module):
    """The graph of an ONNX file: its nodes, run in order with differentiable functions.

    The floating-point initialisers are parameters, except for the running statistics of batch
    normalisation, which are buffers; names with dots become modules within modules, so that
    `state_dict` has the file's names (with "_" behind parts that Python or minidl needs itself).
    Training and evaluation are the same: the graph says what is computed.

    Attributes:
        input_names, output_names: in the order of `forward`.
    """

    def __init__(
        self,
        nodes: list[Node],
        inputs: dict[str, tuple[Any, tuple[int | None, ...] | None]],
        outputs: list[str],
        initialisers: dict[str, np.ndarray],
    ) -> None:
        super().__init__()
        self.nodes = nodes
        self.input_names, self.output_names = list(inputs), outputs
        self._declared = inputs
        statistics = {
            name for node in nodes if node.kind == "BatchNormalization" for name in node.inputs[3:]
        }
        self._initialisers = {
            name: self._keep(name, array, name in statistics)
            for name, array in initialisers.items()
        }
        last_use = {name: i for i, node in enumerate(nodes) for name in node.inputs}
        for name in outputs:
            last_use[name] = len(nodes)
        self._done_with: list[list[str]] = [[] for _ in range(len(nodes) + 1)]
        for name, i in last_use.items():
            if name and name not in initialisers:
                self._done_with[i].append(name)

    def _keep(self, name: str, array: np.ndarray, statistic: bool) -> Tensor:
        """Register an initialiser under its name, made fit for Python."""
        if array.dtype.kind != "f":
            return from_numpy(array)
        *path, last = name.split(".")
        module: Module = self
        for part in path:
            part = _usable(module, part, Module)
            if part not in module._modules:
                module.add_module(part, Module())
            module = module._modules[part]  # type: ignore[assignment]
        last = _usable(module, last, None)
        if statistic:
            buffer = from_numpy(array)
            module.register_buffer(last, buffer)
            return buffer
        parameter = Parameter(array)
        module.register_parameter(last, parameter)
        return parameter

    def forward(self, *inputs: Tensor) -> Any:
        """The inputs in the graph's order -> its output, or a tuple of them.

        Raises:
            ValueError: the number of inputs, or a shape, is not what the graph says.
            TypeError: an input is not a Tensor of the type that it says.
            OnnxError: an operator meets what it does not support.
        """
        if len(inputs) != len(self._declared):
            raise ValueError(
                f"OnnxModel: expected {len(self._declared)} inputs "
                f"({', '.join(self._declared)}), got {len(inputs)}"
            )
        values: dict[str, Tensor | None] = {"": None, **self._initialisers}
        for (name, declared), x in zip(self._declared.items(), inputs, strict=True):
            _check_input(name, *declared, x)
            values[name] = x
        for node, done_with in zip(self.nodes, self._done_with, strict=False):
            result = OPERATORS[node.kind].run(node, *(values[name] for name in node.inputs))
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip(node.outputs, results, strict=False))
            for name in done_with:
                del values[name]
        found = tuple(values[name] for name in self.output_names)
        return found if len(found) > 1 else found[0]

    def extra_repr(self) -> str:
        """Inputs and outputs, and how many nodes there are."""
        return (
            f"{', '.join(self.input_names)} -> {', '.join(self.output_names)}, "
            f"{len(self.nodes)} nodes"
        )


def _usable(module: Module, name: str, kind: type | None) -> str:
    """A name for a member of `module`: not empty, and nothing else's."""
    while (
        not name or hasattr(Module, name) or (name in vars(module)) or _is_taken(module, name, kind)
    ):
        name += "_"
    return name


def _is_taken(module: Module, name: str, kind: type | None) -> bool:
    if name in module._modules:
        return kind is None
    return name in module._parameters or name in module._buffers


def _check_input(name: str, dtype: Any, sizes: tuple[int | None, ...] | None, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"OnnxModel: input {name!r} must be a Tensor, got {type(x).__name__}")
    if x.dtype.kind != np.dtype(dtype).kind:
        raise TypeError(f"OnnxModel: input {name!r} must be {np.dtype(dtype)}, got {x.dtype}")
    if sizes is None:
        return
    fits = len(sizes) == x.ndim and all(
        n is None or n == m for n, m in zip(sizes, x.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if n is None else str(n) for n in sizes)
        raise ValueError(f"OnnxModel: input {name!r} must have shape ({shown}), got {x.shape}")


# ---- reading ----


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """Read an ONNX file; the Module runs its graph and can be trained.

    Operator sets from 7 on, and images in two dimensions. Weights of half precision become
    float32. Weights may lie in other files of the model's folder, but nowhere else.

    Raises:
        OnnxError: the package onnx is missing; the file cannot be read or is damaged; an operator,
            or one of its attributes, is not supported (the text names it); weights lie outside
            the folder.

    >>> import tempfile
    >>> import minidl as md
    >>> path = Path(tempfile.mkdtemp()) / "layer.onnx"
    >>> md.onnx.export(md.nn.Sequential(md.nn.Conv2d(1, 8, 3), md.nn.ReLU()), path, (1, 28, 28))
    >>> model = md.onnx.load(path)
    >>> model(md.zeros(2, 1, 28, 28)).shape
    (2, 8, 26, 26)
    >>> {name: parameter.shape for name, parameter in model.named_parameters()}
    {'0.weight': (8, 1, 3, 3), '0.bias': (8,)}
    """
    onnx = onnx_package()
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OnnxError(f"{path}: cannot be read ({error.strerror})") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf has several implementations with errors of their own
        raise OnnxError(f"{path}: damaged, or not an ONNX file ({quoted(error)})") from error
    if not model.graph.node and not model.graph.output:
        raise OnnxError(f"{path}: not an ONNX file: there is no graph")
    try:
        return _read_graph(onnx, model, path.parent)
    except (OnnxError, ValueError, TypeError, KeyError) as error:
        text = error if isinstance(error, OnnxError) else f"damaged ({quoted(error)})"
        raise OnnxError(f"{path}: {text}") from error


def _read_graph(onnx: Any, model: Any, folder: Path) -> OnnxModel:
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 1)
    if opset < OLDEST_OPSET:
        raise OnnxError(f"operator set {opset} is too old, expected {OLDEST_OPSET} or later")
    graph = model.graph
    if graph.sparse_initializer:
        raise OnnxError("sparse initialisers are not supported")
    _check_operators(onnx, graph.node, model.ir_version, opset)
    initialisers = {t.name: _array(onnx, t, folder) for t in graph.initializer}
    inputs = {v.name: _declared(v) for v in graph.input if v.name not in initialisers}
    nodes = [_read_node(onnx, node, opset, folder) for node in graph.node]
    outputs = [value.name for value in graph.output]
    if not outputs:
        raise OnnxError("the graph has no output")
    known = {"", *initialisers, *inputs}
    for name in _undefined(nodes, outputs, known):
        raise OnnxError(f"{quoted(name)} is read before anything makes it")
    return OnnxModel(nodes, inputs, outputs, initialisers)


def _check_operators(onnx: Any, nodes: Any, ir_version: int, opset: int) -> None:
    """Raise OnnxError if there are operators that are not supported, with all their names, or if
    a node lacks attributes or inputs."""
    missing = {
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in nodes
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS
    }
    if missing:
        raise OnnxError(f"no such operator in minidl: {listed(sorted(missing), most=10)}")
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = ir_version, {"": opset}
    for node in nodes:
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            reason = str(error).strip().splitlines()[0]
            raise OnnxError(f"{node.op_type} ({listed(list(node.output))}): {reason}") from error


def _read_node(onnx: Any, node: Any, opset: int, folder: Path) -> Node:
    attributes = {}
    for attribute in node.attribute:
        if attribute.name not in OPERATORS[node.op_type].attributes:
            raise OnnxError(
                f"{node.op_type} ({listed(list(node.output))}): attribute "
                f"{quoted(attribute.name)} is not supported"
            )
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = _array(onnx, value, folder)
        elif isinstance(value, bytes):
            value = value.decode()
        elif not isinstance(value, int | float):
            value = tuple(value)
        attributes[attribute.name] = value
    return Node(node.op_type, tuple(node.input), tuple(node.output), attributes, opset)


def _undefined(nodes: list[Node], outputs: list[str], known: set[str]) -> Iterator[str]:
    """Names that are read before they are made, and second results that minidl does not make."""
    for node in nodes:
        yield from (name for name in node.inputs if name not in known)
        known.update(node.outputs if node.kind == "Split" else node.outputs[:1])
    yield from (name for name in outputs if name not in known)


def _declared(value: Any) -> tuple[Any, tuple[int | None, ...] | None]:
    """Type and sizes of an input; None for sizes that may be any."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES:
        raise OnnxError(f"input {quoted(value.name)} is no tensor of a type that minidl has")
    if not tensor.HasField("shape"):
        return DTYPES[tensor.elem_type], None
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return DTYPES[tensor.elem_type], sizes


def _array(onnx: Any, tensor: Any, folder: Path) -> np.ndarray:
    """The numbers of a tensor of the file, in an array that can be written."""
    if tensor.data_type not in DTYPES:
        raise OnnxError(
            f"initialiser {quoted(tensor.name)} has type {tensor.data_type}, which minidl lacks"
        )
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor.raw_data = _external_data(tensor, folder)
        tensor.data_location = onnx.TensorProto.DEFAULT
    array = onnx.numpy_helper.to_array(tensor)
    return np.array(array, DTYPES[tensor.data_type])


def _external_data(tensor: Any, folder: Path) -> bytes:
    """The bytes of a tensor that lies in another file, which must be in the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = (folder / location).resolve()
    if not location or not file.is_relative_to(folder.resolve()):
        raise OnnxError(
            f"{quoted(tensor.name)} lies in {quoted(location)}, outside the model's folder"
        )
    try:
        with open(file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", size - offset))
            if not 0 <= offset <= offset + length <= size:
                raise OnnxError(f"{quoted(tensor.name)} lies beyond the end of {quoted(location)}")
            stream.seek(offset)
            return stream.read(length)
    except OSError as error:
        raise OnnxError(f"{quoted(location)} cannot be read ({error.strerror})") from error
