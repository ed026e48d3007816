"""Make ``fashion_mnist_small.npz``: a small, class-balanced part of Fashion-MNIST.

    python -m minidl.data.embedded.make_fashion_mnist_small [DIR] [--check]

DIR holds the full set's four IDX files (default: where ``--data fashion-mnist`` looks). Of each
class, the first 500 training and the first 100 test images are taken, in the order of the full
set. The file is an ordinary .npz: ``train_images`` (5000, 28, 28), ``train_labels`` (5000,),
``test_images`` (1000, 28, 28), ``test_labels`` (1000,), all uint8. It carries no dates, so making
it again gives the same bytes (with the same zlib). ``--check`` compares the file's arrays with
the full set's and writes nothing.
"""

import argparse
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from ...errors import DataError, MinidlError
from ..idx import read_idx_pair
from ..sources import EMBEDDED_FILE, FASHION_CLASSES, find_fashion_mnist

TRAIN_PER_CLASS = 500
TEST_PER_CLASS = 100


def choose(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Positions of the first ``per_class`` labels of each class, ascending.

    >>> choose(np.array([1, 0, 1, 1, 0, 0]), per_class=2)
    array([0, 1, 2, 4])
    """
    firsts = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(firsts))


def select(folder: Path) -> dict[str, np.ndarray]:
    """The chosen images and labels of the full set in ``folder``, by their names in the file."""
    arrays = {}
    for split, prefix, per_class in (
        ("train", "train", TRAIN_PER_CLASS),
        ("test", "t10k", TEST_PER_CLASS),
    ):
        images, labels = read_idx_pair(folder, prefix, len(FASHION_CLASSES))
        chosen = choose(labels, per_class)
        if len(chosen) != per_class * len(FASHION_CLASSES):
            raise DataError(
                f"{folder}: expected at least {per_class} images of each class in {prefix}, "
                f"got {np.bincount(labels, minlength=len(FASHION_CLASSES)).tolist()}"
            )
        arrays[f"{split}_images"] = images[chosen, 0]  # (N, 28, 28)
        arrays[f"{split}_labels"] = labels[chosen].astype(np.uint8)
    return arrays


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an .npz file, deflated as far as it goes.

    >>> packed = pack({"x": np.arange(3)})
    >>> np.load(io.BytesIO(packed), allow_pickle=False)["x"]
    array([0, 1, 2])
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            # A ZipInfo made from a name alone is dated 1980: the same bytes every time.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.create_system = 3  # Unix, wherever this runs
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return file.getvalue()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minidl.data.embedded.make_fashion_mnist_small",
        description="Make the small part of Fashion-MNIST that minidl carries with it.",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="the full set's four IDX files")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args(arguments)
    try:
        arrays = select(options.folder or find_fashion_mnist())
    except MinidlError as error:
        print(error, file=sys.stderr)
        return 2

    if options.check:
        with np.load(EMBEDDED_FILE, allow_pickle=False) as file:
            same = set(file.files) == set(arrays) and all(
                np.array_equal(file[name], array) for name, array in arrays.items()
            )
        print(f"{EMBEDDED_FILE}: {'the same as' if same else 'DIFFERS from'} the full set's part")
        return 0 if same else 1

    content = pack(arrays)
    unfinished = EMBEDDED_FILE.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, EMBEDDED_FILE)
    print(f"{EMBEDDED_FILE}: {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
