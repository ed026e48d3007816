"""A user's own arrays: what :class:`~minidl.data.ArraySplit` takes, and what is wrong otherwise."""

from typing import Any

import numpy as np

MOST_CLASSES = 100_000  # where nobody says how many there are; more are numbers of another kind


def checked_images(images: Any) -> np.ndarray:
    """Images (N, C, H, W), uint8 as they are or floats as float32; (N, H, W) get one channel.

    Raises ``TypeError`` for other dtypes and ``ValueError`` for other shapes, NaN and infinity.

    >>> checked_images(np.zeros((5, 28, 28))).shape
    (5, 1, 28, 28)
    """
    given = type(images).__name__
    try:
        images = np.asarray(images)
    except ValueError:
        raise ValueError("ArraySplit: the images differ in shape, expected one size") from None
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        if images.dtype.kind not in "biu":  # None, generators, names of files
            raise TypeError(
                f"ArraySplit: images are of type {given}, dtype {images.dtype}, expected an array "
                f"(N, C, H, W) of uint8 or floats"
            )
        raise TypeError(
            f"ArraySplit: images are {images.dtype}, expected uint8 (0 to 255) or floats: "
            f"np.array(images, np.uint8) or np.array(images, np.float32)"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"ArraySplit: images have the shape {images.shape}, "
            f"expected (N, C, H, W), or (N, H, W) for grey ones"
        )
    if images.ndim == 3:
        images = images[:, None]  # (N, 1, H, W)
    if images.shape[3] < min(images.shape[1:3]):  # few channels last, not the images' width
        raise ValueError(
            f"ArraySplit: images have the shape {images.shape}, which looks like channels last, "
            f"expected (N, C, H, W): images.transpose(0, 3, 1, 2)"
        )
    if images.dtype == np.uint8:
        return images
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        images = images.astype(np.float32, copy=False)
    wrong = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(wrong):
        raise ValueError(f"ArraySplit: image {wrong[0]} holds NaN or values beyond float32")
    return images


def checked_labels(labels: Any, count: int, num_classes: int | None = None) -> np.ndarray:
    """Labels (count,) of any integer dtype as int64, from 0 to ``num_classes`` - 1.

    None is any number of classes up to 100,000.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for another shape or a label out of range.

    >>> checked_labels([3, 0, 1], 3)
    array([3, 0, 1])
    """
    given = type(labels).__name__
    labels = np.asarray(labels)
    if labels.ndim == 0:
        raise TypeError(
            f"ArraySplit: labels are of type {given}, expected an array of {count} integers"
        )
    if labels.shape != (count,):
        one_hot = labels.ndim == 2 and labels.shape[0] == count and labels.shape[1] > 1
        raise ValueError(
            f"ArraySplit: labels have the shape {labels.shape}, expected one for each of the "
            f"{count} images, ({count},)" + ": labels.argmax(axis=1)" * one_hot
        )
    if labels.dtype.kind not in "iu":
        numbers = labels.dtype.kind in "fb"
        way = "labels.astype(np.int64)" if numbers else "np.unique(labels, return_inverse=True)[1]"
        raise TypeError(f"ArraySplit: labels are {labels.dtype}, expected integers: {way}")
    most = MOST_CLASSES if num_classes is None else num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= most))
    if len(wrong):
        expected = f"0 to {most - 1}"
        if num_classes is None:
            expected = f"{expected} at most: np.unique(labels, return_inverse=True)[1]"
        raise ValueError(
            f"ArraySplit: label {labels[wrong[0]]} of image {wrong[0]} is out of range, "
            f"expected {expected}"
        )
    return labels.astype(np.int64, copy=False)
