"""PyTorch's checkpoints, `.pth` and `.pt`, read without PyTorch.

Both of its formats hold a pickle that describes tensors by shape, strides and storage, and the
storages as plain bytes:

- since 1.6 a ZIP archive, uncompressed: `NAME/data.pkl`, and `NAME/data/KEY` for each storage;
- before, five pickles one after the other (a magic number, the version of the format, facts about
  the machine, the object, the keys of the storages) and then each storage: its number of elements
  as a 64-bit integer and its bytes, little-endian.

The pickle is read by `unpickling.py`, which calls nothing. All sizes are compared with the file's
before memory is asked for.

Source: PyTorch's notes on serialization (https://docs.pytorch.org/docs/stable/notes/serialization).
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckpointError
from .files import ZIP_ERRORS, listed, open_for_reading, quoted, read_exactly, widened
from .unpickling import RefusedError, Storage, TensorRecord, unpickle

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

# A pickle takes about 150 bytes a tensor. A hostile one makes an object of 60 bytes of each byte.
MAX_PICKLE = 8 << 20

# Where training scripts put the state_dict, the most usual first.
USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net")

State = dict[str, TensorRecord]


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """Names and arrays of the state_dict in a file that `torch.save` wrote.

    A state_dict one level down, as in {"epoch": 90, "state_dict": {...}}, is found; of several,
    the one under the most usual name (`state_dict`, `model_state_dict`, `model`, `net`). Tensors
    that share a storage share it here too. bfloat16 becomes float32, with the same values.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds anything but tensors,
            containers, numbers and strings; the text names the file and what was refused.
    """
    with open_for_reading(path) as file:
        try:
            return (read_zip if file.read(2) == b"PK" else read_legacy)(file)
        except RefusedError as error:
            raise CheckpointError(f"{path}: refused as a PyTorch checkpoint: {error}") from error
        except ZIP_ERRORS as error:
            raise CheckpointError(
                f"{path}: damaged PyTorch checkpoint ({quoted(error)})"
            ) from error


# ---- the two formats ----


def read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    """The format since PyTorch 1.6."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1 or len(entries) != len(archive.infolist()):
            raise RefusedError(f"expected one NAME/data.pkl, found {listed(list(entries))}")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise RefusedError("a TorchScript archive, which is code; save its state_dict()")
        size = os.fstat(file.fileno()).st_size
        for entry in entries.values():
            packed = entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1
            if packed or entry.file_size > size:
                raise RefusedError(f"entry {quoted(entry.filename)} is compressed or encrypted")
        if entries[pickles[0]].file_size > MAX_PICKLE:
            raise RefusedError(f"{pickles[0]} is larger than {MAX_PICKLE:,} bytes")
        order = entries.get(f"{root}byteorder")
        big = order is not None and order.file_size == 3 and archive.read(order) == b"big"
        state = find_state(unpickle(io.BytesIO(archive.read(pickles[0]))).value)
        if sum(storage.nbytes for storage in storages_of(state)) > size:  # entries that overlap
            raise RefusedError(f"damaged: storages larger than the file of {size:,} bytes")
        arrays = {}
        for storage in storages_of(state):
            name = f"{root}data/{storage.key}"
            found = entries[name].file_size if name in entries else None
            if found != storage.nbytes:
                raise RefusedError(
                    f"damaged: storage {quoted(storage.key)} of {storage.nbytes:,} bytes expected, "
                    f"got {'none' if found is None else f'{found:,} bytes'}"
                )
            with archive.open(name) as stream:
                arrays[storage.key] = read_storage(stream, storage, big)
    return take_views(state, arrays)


def read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    """The format before PyTorch 1.6."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = io.BytesIO(file.read(MAX_PICKLE))
    if unpickle(head).value != MAGIC:
        raise RefusedError("a pickle that does not begin with PyTorch's magic number")
    if unpickle(head).value != LEGACY_VERSION:
        raise RefusedError(f"expected version {LEGACY_VERSION} of the format")
    unpickle(head)  # facts about the machine, which do not matter: storages are little-endian
    pickled = unpickle(head)
    keys = unpickle(head).value
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise RefusedError("damaged: the keys of the storages are not a list of strings")
    state = find_state(pickled.value)
    wanted = {storage.key for storage in storages_of(state)}
    if missing := sorted(wanted - set(keys)):
        raise RefusedError(f"damaged: storage {listed(missing)} is missing")
    arrays = {}
    file.seek(head.tell())
    for key in keys:
        storage = pickled.storages.get(key)
        if storage is None:
            raise RefusedError(f"damaged: storage {quoted(key)} belongs to no tensor")
        count = int.from_bytes(file.read(8), "little")
        left = size - file.tell()
        if count != storage.count or storage.nbytes > left:
            raise RefusedError(
                f"damaged: storage {quoted(key)} of {storage.count:,} elements "
                f"({storage.nbytes:,} bytes) expected, got {count:,} elements and {left:,} bytes"
            )
        if key in wanted:
            arrays[key] = read_storage(file, storage, big=False)
        else:
            file.seek(storage.nbytes, os.SEEK_CUR)
    return take_views(state, arrays)


# ---- from what the pickle said to arrays ----


def find_state(value: Any) -> State:
    """The state_dict: `value` itself, or one of the dicts directly in it."""
    if is_state(value):
        return value
    if not isinstance(value, dict):
        kind = "tensor" if isinstance(value, TensorRecord) else type(value).__name__
        raise RefusedError(f"expected a state_dict (names and tensors), got a {kind}")
    found = {key: inner for key, inner in value.items() if is_state(inner)}
    for key in USUAL_KEYS if len(found) > 1 else ():
        if key in found:
            return found[key]
    if len(found) == 1:
        return next(iter(found.values()))
    what = "found none" if not found else f"cannot choose among {listed(list(map(str, found)))}"
    others = [str(key) for key, inner in value.items() if not isinstance(inner, TensorRecord)]
    among = f" (entries that are not tensors: {listed(others)})" if others and not found else ""
    raise RefusedError(f"expected a state_dict (names and tensors), {what}{among}")


def is_state(value: Any) -> bool:
    """True for a dict of names and tensors that is not empty."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(
            type(key) is str and isinstance(entry, TensorRecord) for key, entry in value.items()
        )
    )


def storages_of(state: State) -> Iterator[Storage]:
    """Each storage that the tensors need, once."""
    yield from {record.storage.key: record.storage for record in state.values()}.values()


def read_storage(stream: Any, storage: Storage, big: bool) -> np.ndarray:
    """A storage's numbers, from a stream at its first byte. The caller has checked the size."""
    content = read_exactly(stream, storage.nbytes, f"storage {quoted(storage.key)}")
    stored = {"bfloat16": "uint16", "bool": "uint8"}.get(storage.dtype, storage.dtype)
    numbers = np.frombuffer(content, np.dtype(stored).newbyteorder(">" if big else "<"))
    if storage.dtype == "bfloat16":
        return widened(numbers)
    if storage.dtype == "bool":
        return numbers != 0
    return numbers.astype(stored, copy=False)


def take_views(state: State, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each tensor as a view of its storage; `unpickling.make_tensor` has checked the bounds."""
    views = {}
    for name, record in state.items():
        array = arrays[record.storage.key]
        views[name] = np.lib.stride_tricks.as_strided(
            array[record.offset :],
            record.shape,
            [step * array.itemsize for step in record.strides],
        )
    return views
