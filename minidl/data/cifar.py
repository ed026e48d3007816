"""The binary version of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html).

A record is one label byte (CIFAR-100: a coarse and a fine one) and 3072 pixel bytes, the red,
green and blue plane of 32 x 32 each in row-major order. No pickle is read.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import reading
from .labels import check_labels

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE
LONGEST_NAMES = 1 << 20  # bytes of the file of class names that are looked at


@dataclass(frozen=True)
class CifarLayout:
    """What tells the two sets apart."""

    num_classes: int
    label_bytes: int  # the last of them is the label used
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    names_file: str
    archive_folder: str  # the folder that the published archive unpacks to


CIFAR10 = CifarLayout(
    num_classes=10,
    label_bytes=1,
    train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test_files=("test_batch.bin",),
    names_file="batches.meta.txt",
    archive_folder="cifar-10-batches-bin",
)
CIFAR100 = CifarLayout(
    num_classes=100,
    label_bytes=2,
    train_files=("train.bin",),
    test_files=("test.bin",),
    names_file="fine_label_names.txt",
    archive_folder="cifar-100-binary",
)


def read_cifar_file(path: Path, layout: CifarLayout) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of one file.

    Raises ``DataError`` when the file cannot be read, is empty, does not hold a whole number of
    records, or holds a label out of range.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "test_batch.bin"
    >>> path.write_bytes(bytes([7]) + bytes(3072))
    3073
    >>> images, labels = read_cifar_file(path, CIFAR10)
    >>> images.shape, labels
    ((1, 3, 32, 32), array([7]))
    """
    record = layout.label_bytes + PIXEL_BYTES
    with reading(path) as (file, size):
        if size and size % record == 0:  # otherwise it is not worth reading
            content = file.read(size)
            size = len(content)
    if not size or size % record:
        raise DataError(
            f"{path}: expected a whole number of records of {record} bytes, got {size} bytes "
            f"({size // record} records and {size % record} bytes)"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)  # (N, record)
    labels = records[:, layout.label_bytes - 1]  # (N,)
    check_labels(path, labels, layout.num_classes)
    images = records[:, layout.label_bytes :].reshape(-1, 3, SIDE, SIDE)  # (N, 3, 32, 32)
    return images, labels.astype(np.int64)


def read_cifar(
    folder: Path, file_names: tuple[str, ...], layout: CifarLayout
) -> tuple[np.ndarray, np.ndarray]:
    """The files of one split, one after the other: images (N, 3, 32, 32), labels (N,)."""
    parts = [read_cifar_file(folder / name, layout) for name in file_names]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def read_class_names(folder: Path, layout: CifarLayout) -> tuple[str, ...]:
    """The names that the archive ships beside the images; the numbers where it is missing.

    >>> read_class_names(Path("no/such/folder"), CIFAR10)
    ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    path = folder / layout.names_file
    if not path.is_file():
        return tuple(map(str, range(layout.num_classes)))
    with reading(path) as (file, _):
        text = file.read(LONGEST_NAMES).decode("utf-8", errors="replace")
    names = tuple(text.split())
    if len(names) != layout.num_classes:
        raise DataError(f"{path}: expected {layout.num_classes} class names, got {len(names)}")
    return names
