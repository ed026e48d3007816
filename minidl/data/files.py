"""Opening what a stranger wrote: every failure names the file."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError


@contextmanager
def reading(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """An open file and its size in bytes.

    Raises ``DataError`` when it cannot be opened, or when reading it fails inside the block.

    >>> with reading(Path("no/such/file")) as (file, size):
    ...     pass
    Traceback (most recent call last):
    ...
    minidl.errors.DataError: no/such/file: cannot be read (No such file or directory)
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for a writer
            raise OSError(0, "not a regular file")
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
