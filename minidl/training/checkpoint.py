"""Checkpoints: tensors as safetensors, everything else as JSON in the file's header.

One file holds both, so that replacing it is one atomic step: a crash, a full disk or a cut cable
leaves either the old checkpoint or the new one. A copy of the JSON lies beside it to be read by
people; minidl does not read it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError

METADATA_KEY = "minidl"


def replace_file(path: Path, write: Any) -> None:
    """Let `write(temporary)` produce a file beside `path`, then put it in `path`'s place.

    Whatever goes wrong, `path` is left as it was and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
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
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    text = json.dumps(state, indent=1)
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    try:
        replace_file(path, lambda p: save_file(arrays, p, metadata={METADATA_KEY: text}))
        replace_file(path.with_suffix(".json"), lambda p: p.write_text(text + "\n"))
    except (OSError, SafetensorError) as error:
        size = sum(array.nbytes for array in arrays.values())
        kept = "the previous checkpoint is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"{path}: cannot write the checkpoint of {size / 1e6:,.1f} MB ({error}); {kept}"
        ) from error


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
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
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({path.stat().st_size:,} bytes; {error})"
        ) from error
    try:
        state = json.loads(metadata[METADATA_KEY])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: a safetensors file without the state of a minidl run in its header"
        ) from error
    return tensors, state
