"""Safetensors: a JSON header that says what lies where, then the numbers.

Read and written by the `safetensors` library, which checks headers and sizes. NumPy has no
bfloat16, so these tensors are read here and widened to float32.

Source: https://github.com/huggingface/safetensors, section Format of its README.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from .files import open_for_reading, quoted, widened

# The header of a run's checkpoint has the state of the run under this word. Weights have names with
# dots; those of all other arrays begin with what they belong to, and a slash.
RUN_KEY = "minidl"
OPTIMIZER_PREFIX = "optimizer/"
AVERAGE_PREFIX = "average/"

NUMPY_TYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def evaluated_weights(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the arrays in a run's checkpoint the weights; their moving averages where there are any.

    >>> a = {"fc.bias": np.zeros(1), "average/fc.bias": np.ones(1), "optimizer/0/v": np.ones(1)}
    >>> evaluated_weights(a)
    {'fc.bias': array([1.])}
    """
    return {
        name: arrays.get(AVERAGE_PREFIX + name, array)
        for name, array in arrays.items()
        if "/" not in name
    }


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Names and arrays, and the text that the header holds besides.

    Raises:
        CheckpointError: the file cannot be read, is incomplete, or has a tensor of a type that
            NumPy lacks (other than bfloat16).
    """
    from safetensors import SafetensorError, safe_open

    arrays = {}
    with open_for_reading(path) as file:
        try:
            with safe_open(path, framework="numpy") as tensors:
                metadata = tensors.metadata() or {}
                start = 8 + int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(start - 8))
                for name in tensors.keys():  # noqa: SIM118  not a dict
                    kind, shape = header[name]["dtype"], header[name]["shape"]
                    if kind == "BF16":
                        file.seek(start + header[name]["data_offsets"][0])
                        content = file.read(2 * int(np.prod(shape, dtype=np.int64)))
                        arrays[name] = widened(np.frombuffer(content, "<u2")).reshape(shape)
                    elif kind not in NUMPY_TYPES:
                        raise CheckpointError(
                            f"{path}: tensor {quoted(name)} has numbers of type {quoted(kind)}; "
                            "expected integers, bool, or floats of 16, 32 or 64 bits"
                        )
                    else:
                        arrays[name] = tensors.get_tensor(name)
        except (OSError, SafetensorError) as error:
            size = path.stat().st_size
            raise CheckpointError(
                f"{path}: not a complete safetensors file ({size:,} bytes; {quoted(error)})"
            ) from error
    return arrays, metadata


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays, and texts for the header, to `path`.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # Not np.ascontiguousarray, which gives arrays without axes one.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        save_file(arrays, path, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from error
