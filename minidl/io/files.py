"""What all formats share: replacing a file in one step, and checks of what a stranger wrote."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckpointError

# What `zipfile` raises for archives that are damaged or of a kind it does not know.
ZIP_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # encrypted, or (NotImplementedError) compressed in an unknown way
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

# What a file may hold unpacked: so many times its own size, and this much in any case.
MAX_RATIO = 100
MAX_UNPACKED = 256 << 20

LONGEST_NAME = 100  # characters of a name from a file that an error text repeats


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write(temporary)` produce a file beside `path`, then put it in `path`'s place.

    Whatever goes wrong, `path` is left as it was and the temporary file is removed. The new file
    has the permissions that the user's umask gives, also where `write` gives others.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "greeting"
    >>> replace_file(path, lambda temporary: temporary.write_text("hello"))
    >>> path.read_text()
    'hello'
    """
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)  # what a killed process left
    try:
        with open(temporary, "xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        write(temporary)
        flush_to_disk(temporary)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        flush_to_disk(path.parent)  # the new name is an entry there
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, would survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_for_reading(path: Path) -> BinaryIO:
    """Open an existing file. Raises CheckpointError, naming it, if it cannot be read.

    >>> open_for_reading(Path("no/such/file"))
    Traceback (most recent call last):
    ...
    minidl.errors.CheckpointError: no/such/file: cannot be read (No such file or directory)
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def read_exactly(stream: Any, size: int, what: str) -> bytearray:
    """`size` bytes, which the caller has compared with the file's size, of a stream.

    Raises:
        ValueError: there are fewer.

    >>> import io
    >>> read_exactly(io.BytesIO(b"abc"), 4, "storage '0'")
    Traceback (most recent call last):
    ...
    ValueError: storage '0' ends too soon: expected 4 bytes, got 3
    """
    content = bytearray(size)
    position = 0
    while position < size:
        piece = stream.read(min(size - position, 1 << 20))  # no second copy of a large array
        if not piece:
            raise ValueError(f"{what} ends too soon: expected {size:,} bytes, got {position:,}")
        content[position : position + len(piece)] = piece
        position += len(piece)
    return content


def check_unpacked(size: int, unpacked: int) -> None:
    """Refuse what a file of `size` bytes unpacks to, before it does.

    Raises:
        ValueError: it is far more than weights are ever compressed by.

    >>> check_unpacked(10, 10**9)
    Traceback (most recent call last):
    ...
    ValueError: 10 bytes that unpack to 1,000,000,000
    """
    if unpacked > MAX_RATIO * size + MAX_UNPACKED:
        raise ValueError(f"{size:,} bytes that unpack to {unpacked:,}")


def quoted(name: object) -> str:
    """A name that a file gave, fit to be printed: one line of ASCII, not too long.

    >>> quoted("fc.weight"), quoted("two\\nlines")
    ("'fc.weight'", "'two\\\\nlines'")
    """
    text = ascii(name if isinstance(name, str) else str(name))
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}...'"


def listed(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(quoted(name) for name in names[:most]) + more


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 numbers, given as uint16, as the float32 of the same values.

    NumPy has no bfloat16. It is the upper half of a float32, so nothing is lost.

    >>> widened(np.array([0x3F80, 0xC000], dtype=np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)
