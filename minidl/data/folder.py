"""Image folders in ImageNet's layout: ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``)."""

import os
from pathlib import Path

import numpy as np

from ..errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")


def list_classes(folder: Path) -> tuple[str, ...]:
    """The class folders in ``folder``, sorted; hidden ones are skipped.

    Raises ``DataError`` when there is none.
    """
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    classes = tuple(sorted(name for name in names if not name.startswith(".")))
    if not classes:
        raise DataError(f"{folder}: expected one folder per class, found no folder")
    return classes


def list_images(folder: Path) -> list[Path]:
    """The image files below ``folder``, sorted by path; hidden files and folders are skipped.

    Raises ``DataError`` when there is none.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
    ...     (folder / name).touch()
    >>> [path.name for path in list_images(folder)]
    ['a.png', 'b.JPG']
    """

    def fail(error: OSError) -> None:  # os.walk would pass over a folder it may not read
        raise error

    paths = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS):
                paths.append(Path(parent, name))
    if not paths:
        raise DataError(f"{folder}: folder without images (looked for {' '.join(EXTENSIONS)})")
    return sorted(paths)


def read_folder(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    """Paths and labels (N,) int64 of one split; a label is a position in ``classes``.

    A class may be missing here, but raises ``DataError`` for a class folder that is not in
    ``classes`` or holds no image.
    """
    present = list_classes(folder)
    unknown = [name for name in present if name not in classes]
    if unknown:
        raise DataError(
            f"{folder}: {len(unknown)} of {len(present)} class folders are not among the "
            f"{len(classes)} of the training set: {_some(unknown)} (expected {_some(classes)})"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if name in present:
            images = list_images(folder / name)
            paths += images
            labels += [label] * len(images)
    return paths, np.array(labels, np.int64)


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
