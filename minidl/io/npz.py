"""NumPy's `.npz`: a ZIP archive with a `.npy` for each array.

Arrays of Python objects, which `.npy` keeps as a pickle, are refused by name. Sizes are compared
before memory is asked for.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from ..errors import CheckpointError
from .files import ZIP_ERRORS, check_unpacked, open_for_reading, quoted, read_exactly


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Names and arrays of a `.npz`, compressed or not.

    Raises:
        CheckpointError: the file cannot be read or is damaged, or an entry is not an array of
            numbers, or unpacks to far more than a weights file would.
    """
    with open_for_reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                check_unpacked(size, sum(entry.file_size for entry in entries))
                return {
                    entry.filename.removesuffix(".npy"): _read_entry(archive, entry)
                    for entry in entries
                }
        except ZIP_ERRORS as error:
            raise CheckpointError(
                f"{path}: damaged or refused .npz file ({quoted(error)})"
            ) from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array. ZipFile checks its bytes against the checksum."""
    name = quoted(entry.filename)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"entry {name} is compressed in an unusual way")
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        try:
            shape, fortran, dtype = read_header(stream)
        except (SyntaxError, TokenError, TypeError) as error:  # the header is a Python literal
            raise ValueError(f"entry {name} has a damaged header") from error
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise ValueError(f"entry {name} holds {dtype}, expected integers, bool or floats")
        expected, left = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
        if expected != left or min(shape, default=0) < 0:
            raise ValueError(
                f"entry {name} of shape {shape} expects {expected:,} bytes, got {left:,}"
            )
        array = np.frombuffer(read_exactly(stream, left, f"entry {name}"), dtype)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape, order="F" if fortran else "C")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to `path`, uncompressed, as `numpy.savez` does.

    Raises:
        OSError: the file cannot be written.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)
