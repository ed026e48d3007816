"""Checkpoints: tensors as safetensors, everything else as JSON in the file's header.

One file holds both, so that replacing it is one atomic step: a crash, a full disk or a cut cable
leaves either the old checkpoint or the new one. A copy of the JSON lies beside it to be read by
people; minidl does not read it.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from ..errors import CheckpointError

METADATA_KEY = "minidl"
FORMAT = 1

Plain = TypeVar("Plain")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds, and where it was read from."""

    path: Path
    tensors: dict[str, np.ndarray]
    state: dict[str, Any]


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write(temporary)` produce a file beside `path`, then put it in `path`'s place.

    Whatever goes wrong, `path` is left as it was and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode  # safetensors replaces the file by one of its own
        write(temporary)
        temporary.chmod(permissions)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(
    path: Path, tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]
) -> None:
    """Write `tensors` and `state` (anything JSON can hold) to `path`, all or nothing.

    Raises:
        CheckpointError: the file cannot be written; an older file of that name is unchanged.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.safetensors"
    >>> save_checkpoint(path, {"weight": np.zeros((2, 3))}, {"step": 7})
    >>> checkpoint = load_checkpoint(path)
    >>> checkpoint.tensors["weight"].shape, checkpoint.state["step"]
    ((2, 3), 7)
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    text = json.dumps({"format": FORMAT} | dict(state), indent=1, allow_nan=False)
    # Not np.ascontiguousarray, which gives arrays without axes (batch normalisation's counts) one.
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        replace_file(path, lambda p: save_file(arrays, p, metadata={METADATA_KEY: text}))
        replace_file(path.with_suffix(".json"), lambda p: p.write_text(text + "\n"))
    except (OSError, SafetensorError) as error:
        size = sum(array.nbytes for array in arrays.values())
        kept = "the previous checkpoint is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"{path}: cannot write the checkpoint of {size / 1e6:,.1f} MB ({error}); {kept}"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote; a folder stands for its `last.safetensors`.

    Raises:
        CheckpointError: the file is missing, incomplete or not a checkpoint of minidl.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        path = path / "last.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # TypeError: a type of number that NumPy does not have
    except (OSError, SafetensorError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({path.stat().st_size:,} bytes; {error})"
        ) from error
    try:
        state = json.loads(metadata[METADATA_KEY])
        version = state["format"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: a safetensors file without the state of a minidl run in its header"
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path}: a checkpoint of format {version}, this version of minidl reads {FORMAT}"
        )
    return Checkpoint(path, tensors, state)


def from_plain(cls: type[Plain], values: Any) -> Plain:
    """A dataclass from what `dataclasses.asdict` and JSON made of it.

    Names that the class does not know are left out, so that it can read its successors' files.

    Raises:
        ValueError: a value is missing or of another type than the field.

    >>> from_plain(Checkpoint, {"path": "last.safetensors"})
    Traceback (most recent call last):
    ...
    ValueError: path is 'last.safetensors', expected Path
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected the fields of {cls.__name__}, got {values!r}")
    kinds = get_type_hints(cls)
    known = {}
    for field in fields(cls):  # type: ignore[arg-type]  # a dataclass, which TypeVar cannot say
        if field.name not in values:
            continue
        value, kind = values[field.name], kinds[field.name]
        if is_dataclass(kind):
            value = from_plain(kind, value)  # type: ignore[arg-type]
        elif not isinstance(value, kind | int if kind is float else kind):
            name = getattr(kind, "__name__", str(kind))
            raise ValueError(f"{field.name} is {value!r}, expected {name}")
        known[field.name] = value
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(str(error)) from error
