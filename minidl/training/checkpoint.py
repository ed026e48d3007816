"""Checkpoints: tensors as safetensors, everything else as JSON in the file's header.

One file holds both, so that replacing it is one atomic step: a crash, a full disk or a cut cable
leaves either the old checkpoint or the new one. A copy of the JSON lies beside it to be read by
people; minidl does not read it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from ..errors import CheckpointError
from ..io.files import replace_file
from ..io.safetensors import RUN_KEY, evaluated_weights, read_safetensors, write_safetensors

FORMAT = 1

Plain = TypeVar("Plain")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds, and where it was read from."""

    path: Path
    tensors: dict[str, np.ndarray]
    state: dict[str, Any]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights and buffers that training goes on with."""
        return {name: array for name, array in self.tensors.items() if "/" not in name}

    @property
    def evaluated_weights(self) -> dict[str, np.ndarray]:
        """The weights and buffers that the run evaluates: moving averages where it has them."""
        return evaluated_weights(self.tensors)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin so, without that beginning."""
        return {
            name.removeprefix(prefix): array
            for name, array in self.tensors.items()
            if name.startswith(prefix)
        }


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
    text = json.dumps({"format": FORMAT} | dict(state), indent=1, allow_nan=False)
    try:
        replace_file(path, lambda p: write_safetensors(p, tensors, {RUN_KEY: text}))
        replace_file(path.with_suffix(".json"), lambda p: p.write_text(text + "\n"))
    except OSError as error:
        size = sum(array.nbytes for array in tensors.values())
        kept = "the previous checkpoint is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"{path}: cannot write the checkpoint of {size / 1e6:,.1f} MB ({error}); {kept}"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote; a folder stands for its `last.safetensors`.

    Raises:
        CheckpointError: the file is missing, incomplete or not a checkpoint of minidl.
    """
    if path.is_dir():
        path = path / "last.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    tensors, metadata = read_safetensors(path)
    try:
        state = json.loads(metadata[RUN_KEY])
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
