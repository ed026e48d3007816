"""`md.save` and `md.load`: weights by name, in files of several formats."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..nn import Module
from ..tensor import Tensor, from_numpy
from .caffe import STARTS, read_caffe
from .files import ZIP_ERRORS, listed, open_for_reading, quoted, replace_file
from .keras import SIGNATURE, read_keras
from .npz import read_npz, write_npz
from .pytorch import read_pytorch
from .safetensors import RUN_KEY, evaluated_weights, read_safetensors, write_safetensors

WRITERS = {".safetensors": write_safetensors, ".npz": write_npz}


def save(weights: Module | Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write weights to a file, replacing an older one in one step.

    Args:
        weights: a model, whose `state_dict()` is written, or names and Tensors or arrays.
        path: ends in `.safetensors`, or in `.npz` for NumPy.

    Raises:
        ValueError: the path ends in something else.
        TypeError: weights are neither, or hold something other than numbers.
        CheckpointError: the file cannot be written; an older one of that name is unchanged.

    >>> import tempfile
    >>> import minidl as md
    >>> path = Path(tempfile.mkdtemp()) / "linear.safetensors"
    >>> md.save(md.nn.Linear(2, 3), path)
    >>> {name: tensor.shape for name, tensor in md.load(path).items()}
    {'bias': (3,), 'weight': (3, 2)}
    """
    path = Path(path)
    write = WRITERS.get(path.suffix)
    if write is None:
        raise ValueError(f"save: the path must end in {' or '.join(WRITERS)}, got {str(path)!r}")
    state = weights.state_dict() if isinstance(weights, Module) else weights
    if not isinstance(state, Mapping):
        raise TypeError(f"save: expected a Module or a mapping, got {type(weights).__name__}")
    arrays = {name: _array(name, value) for name, value in state.items()}
    try:
        replace_file(path, lambda temporary: write(temporary, arrays))
    except OSError as error:
        size = sum(array.nbytes for array in arrays.values())
        kept = "the previous file is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"{path}: cannot write weights of {size / 1e6:,.1f} MB "
            f"({error.strerror or error}); {kept}"
        ) from None  # zipfile's own errors on top of the disk's say no more


def _array(name: Any, value: Any) -> np.ndarray:
    """The array to be written for one entry."""
    if not isinstance(name, str):
        raise TypeError(f"save: names must be strings, got {name!r}")
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    if not isinstance(array, np.ndarray | np.generic) or array.dtype.kind not in "biuf":
        kind = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(value).__name__
        raise TypeError(f"save: {name!r} must be a Tensor or an array of numbers, got {kind}")
    return np.asarray(array)


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read weights from a file; nothing in it is ever executed.

    The format is told by the file's content, not by its name: safetensors, `.npz`, PyTorch's
    checkpoints (`.pth`, `.pt`, of any age) without PyTorch, Keras's VGG in `.h5`, which needs h5py,
    and Caffe's AlexNet, GoogLeNet and ResNet in `.caffemodel`, which needs protobuf. Of
    a run's checkpoint these are the weights that it evaluates, without the optimiser's state; of a
    PyTorch checkpoint, those of the state_dict in it (see `minidl.io.pytorch.read_pytorch`);
    Keras's and Caffe's come under the names of minidl's networks (see `minidl.io.keras`,
    `minidl.io.caffe`).

    Returns names and Tensors of the file's types, on the CPU; bfloat16, which NumPy lacks, becomes
    float32 with the same values. `Module.load_state_dict` takes it;
    `md.models.create(name, weights=path)` does both.

    Raises:
        CheckpointError: the file cannot be read, is damaged or of none of these formats, or holds
            something other than tensors; the text names the file.
    """
    path = Path(path)
    arrays = _read(path)
    return {name: from_numpy(array) for name, array in arrays.items()}


def _read(path: Path) -> dict[str, np.ndarray]:
    """Names and arrays, by the reader that the first bytes call for."""
    with open_for_reading(path) as file:
        try:
            start = file.read(16)
            size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if start[8:9] == b"{":  # asked first: the length before it may begin as the others do
        arrays, metadata = read_safetensors(path)
        return evaluated_weights(arrays) if RUN_KEY in metadata else arrays
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(b"\x80"):  # a pickle
        return read_pytorch(path)
    if start.startswith(SIGNATURE):
        return read_keras(path)
    if start.startswith(STARTS):
        return read_caffe(path)
    raise CheckpointError(
        f"{path}: expected safetensors, .npz, .pth, .h5 or .caffemodel, got {size:,} bytes "
        f"beginning with {quoted(start.decode('latin-1'))}"
    )


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    """A ZIP archive: of NumPy or of PyTorch?"""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS as error:
        raise CheckpointError(
            f"{path}: damaged or truncated ZIP archive ({quoted(error)})"
        ) from error
    if all(name.endswith(".npy") for name in names):
        return read_npz(path)
    if any(name.endswith("/data.pkl") for name in names):
        return read_pytorch(path)
    raise CheckpointError(
        f"{path}: expected .npz or a PyTorch checkpoint, got a ZIP archive of {listed(names)}"
    )
