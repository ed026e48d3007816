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
from .labels import check_labels

GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """The whole content of a file, with every failure turned into a ``DataError`` that names it.

    >>> read_bytes(Path("no/such/file"))
    Traceback (most recent call last):
    ...
    minidl.errors.DataError: no/such/file: cannot be read (No such file or directory)
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def read_idx(path: str | Path, ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes with ``ndim`` dimensions.

    Gzip is recognised by its first two bytes, not by the name. Returns a read-only uint8 array.
    Raises ``DataError`` when the file cannot be read, is not IDX, has another number of
    dimensions, or is shorter or longer than its header promises.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    11
    >>> read_idx(path, ndim=1)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    content = read_bytes(path)
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: truncated or damaged gzip file ({error})") from error

    header_size = 4 + 4 * ndim
    expected_magic = bytes([0, 0, 8, ndim])
    if not expected_magic.startswith(content[:4]):
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes with {ndim} dimension(s): expected it to "
            f"start with 0x{expected_magic.hex()}, got 0x{content[:4].hex()}"
        )
    if len(content) < header_size:
        raise DataError(
            f"{path}: truncated IDX file: its header takes {header_size} bytes, "
            f"the file has {len(content)}"
        )
    shape = struct.unpack(f">{ndim}I", content[4:header_size])
    expected_size = header_size + math.prod(shape)
    if len(content) != expected_size:
        fault = "truncated IDX file" if len(content) < expected_size else "IDX file is too long"
        raise DataError(
            f"{path}: {fault}: its header promises {' x '.join(map(str, shape))} values "
            f"({expected_size} bytes), the file has {len(content)} bytes"
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


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
    if images.size == 0:
        raise DataError(
            f"{images_path}: expected at least one image of at least one pixel, "
            f"got {' x '.join(map(str, images.shape))}"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: expected one label per image of {images_path.name} "
            f"({len(images)}), got {len(labels)}"
        )
    check_labels(labels_path, labels, num_classes)
    return images[:, None], labels.astype(np.int64)  # (N, 1, H, W), (N,)
