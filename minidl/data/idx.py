"""The IDX files of MNIST and its relatives, plain or gzipped.

Format (http://yann.lecun.com/exdb/mnist): two zero bytes, one byte for the type (8: unsigned
bytes), one byte for the number of dimensions, each dimension as a big-endian 32-bit integer, and
then the values in row-major order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..io.files import check_unpacked
from .files import reading
from .labels import check_labels

GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | Path, ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes with ``ndim`` dimensions.

    Gzip is recognised by its first two bytes, not by the name. Returns a read-only uint8 array.
    Raises ``DataError`` when the file cannot be read, is not IDX, has another number of
    dimensions, holds no value, or is shorter or longer than its header promises; a file is never
    unpacked further than that, nor if that is 100 times its size and more than 256 MB.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    11
    >>> read_idx(path, ndim=1)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    header_size = 4 + 4 * ndim
    with reading(path) as (file, size):
        zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if zipped else file
        try:
            shape = _read_shape(path, stream.read(header_size), ndim)
            promised = math.prod(shape)
            if not promised:
                sizes = " x ".join(map(str, shape))
                raise DataError(f"{path}: expected at least one value, got {sizes}")
            if zipped:
                check_unpacked(size, header_size + promised)
            else:
                _check_size(path, shape, size)  # before anything is read
            content = stream.read(promised + 1)  # one more shows that there is more
        except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
            raise DataError(f"{path}: truncated or damaged gzip file ({error})") from error
    _check_size(path, shape, header_size + len(content), "at least " if zipped else "")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_shape(path: Path, header: bytes, ndim: int) -> tuple[int, ...]:
    expected_magic = bytes([0, 0, 8, ndim])
    if not expected_magic.startswith(header[:4]):
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes with {ndim} dimension(s): expected it to "
            f"start with 0x{expected_magic.hex()}, got 0x{header[:4].hex()}"
        )
    if len(header) < 4 + 4 * ndim:
        raise DataError(
            f"{path}: truncated IDX file: its header takes {4 + 4 * ndim} bytes, "
            f"the file has {len(header)}"
        )
    return struct.unpack(f">{ndim}I", header[4:])


def _check_size(path: Path, shape: tuple[int, ...], size: int, least: str = "") -> None:
    promised = 4 + 4 * len(shape) + math.prod(shape)
    if size != promised:
        fault = "truncated IDX file" if size < promised else "IDX file is too long"
        least = least if size > promised else ""
        raise DataError(
            f"{path}: {fault}: its header promises {' x '.join(map(str, shape))} values "
            f"({promised} bytes), the file has {least}{size} bytes"
        )


def find_idx(folder: Path, stem: str, ndim: int) -> Path | None:
    """The file of ``stem`` (say ``train-images``) in ``folder``: plain first, then gzipped.

    Both spellings in circulation are found: ``train-images-idx3-ubyte`` and
    ``train-images.idx3-ubyte``.

    >>> find_idx(Path("no/such/folder"), "train-images", 3) is None
    True
    """
    for suffix in ("", ".gz"):
        for separator in "-.":
            path = folder / f"{stem}{separator}idx{ndim}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def read_idx_pair(folder: Path, prefix: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split; ``prefix`` is ``train`` or ``t10k``.

    Returns uint8 images (N, 1, H, W) and int64 labels (N,). Raises ``DataError`` when a file is
    missing or damaged, when the two files disagree about N, when there is no image, or when a
    label is not below ``num_classes``.
    """
    paths = []
    for stem, ndim in ((f"{prefix}-images", 3), (f"{prefix}-labels", 1)):
        path = find_idx(folder, stem, ndim)
        if path is None:
            name = f"{stem}-idx{ndim}-ubyte"
            raise DataError(f"{folder}: expected a file {name} or {name}.gz, found neither")
        paths.append(path)
    images_path, labels_path = paths

    images = read_idx(images_path, ndim=3)  # (N, H, W)
    labels = read_idx(labels_path, ndim=1)  # (N,)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: expected one label per image of {images_path.name} "
            f"({len(images)}), got {len(labels)}"
        )
    check_labels(labels_path, labels, num_classes)
    return images[:, None], labels.astype(np.int64)  # (N, 1, H, W), (N,)
