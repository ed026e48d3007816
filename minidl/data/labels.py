"""The one check that every labelled file goes through."""

from pathlib import Path

import numpy as np

from ..errors import DataError


def check_labels(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """Raise ``DataError`` for the first of ``labels`` (N,) that is not below ``num_classes``.

    >>> check_labels(Path("labels"), np.array([3, 9, 10], np.uint8), 10)
    Traceback (most recent call last):
    ...
    minidl.errors.DataError: labels: label 10 of image 2 is out of range, expected 0 to 9
    """
    wrong = np.flatnonzero(labels >= num_classes)
    if len(wrong):
        raise DataError(
            f"{path}: label {labels[wrong[0]]} of image {wrong[0]} is out of range, "
            f"expected 0 to {num_classes - 1}"
        )
