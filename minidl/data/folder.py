"""Image folders in ImageNet's layout: ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``).

Listing 1.28 million files takes seconds at best. The names found in a large folder are therefore
kept in an index (:mod:`minidl.data.index`), and later only the folders are asked whether they have
changed.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from ..errors import DataError
from .index import Listing, read_index, signature, write_index

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")
LARGE = 20_000  # images; fewer are listed faster than anybody notices


class ImagePaths(Sequence[Path]):
    """The paths of a split's images, without an object for each: 1.28 million would take 500 MB.

    A folder's own images, sorted by name, come before those of its subfolders.

    >>> listings = [Listing("cat", None, b"1.png\\0b.png\\0"),
    ...             Listing("cat/more", None, b"c.png\\0")]
    >>> paths = ImagePaths(Path("train"), listings)
    >>> len(paths), paths[2].as_posix(), [path.name for path in paths[:2]]
    (3, 'train/cat/more/c.png', ['1.png', 'b.png'])
    """

    def __init__(self, folder: Path, listings: Sequence[Listing]) -> None:
        self.folder = folder
        self._folders = [listing.folder for listing in listings]
        self._names = b"".join(listing.names for listing in listings)
        # Of each name: where it ends. Of each folder: the number of its first image.
        self._ends = np.flatnonzero(np.frombuffer(self._names, np.uint8) == 0)
        counts = [listing.names.count(b"\0") for listing in listings]
        self._starts = np.cumsum([0, *counts[:-1]]).tolist()

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, item: int) -> Path: ...
    @overload
    def __getitem__(self, item: slice) -> list[Path]: ...
    def __getitem__(self, item: int | slice) -> Path | list[Path]:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        number = range(len(self))[item]
        begin = self._ends[number - 1] + 1 if number else 0
        name = os.fsdecode(self._names[begin : self._ends[number]])
        return Path(self.folder, self._folders[bisect_right(self._starts, number) - 1], name)


def list_classes(folder: Path) -> tuple[str, ...]:
    """The class folders in ``folder``, sorted; hidden ones are skipped.

    Raises ``DataError`` when there is none.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    classes = tuple(sorted(name for name in names if not name.startswith(".")))
    if not classes:
        raise DataError(f"{folder}: expected one folder per class, found no folder")
    return classes


def read_folder(folder: Path, classes: tuple[str, ...]) -> tuple[ImagePaths, np.ndarray]:
    """Paths and labels (N,) int64 of one split; a label is a position in ``classes``.

    Hidden files and folders are skipped. From ``LARGE`` images on, an index is kept beside
    ``folder``, or in the user's cache where that cannot be written.

    A class may be missing here, but raises ``DataError`` for a class folder that is not in
    ``classes`` or holds no image.
    """
    present = list_classes(folder)
    unknown = sorted(set(present).difference(classes))
    if unknown:
        raise DataError(
            f"{folder}: {len(unknown)} of {len(present)} class folders are not among the "
            f"{len(classes)} of the training set: {_some(unknown)} (expected {_some(classes)})"
        )
    known = read_index(folder)
    listings: list[Listing] = []
    labels = []
    for label in sorted(map({name: i for i, name in enumerate(classes)}.__getitem__, present)):
        found = list_images(folder, classes[label], known)
        listings += found
        labels.append(np.full(sum(part.names.count(b"\0") for part in found), label, np.int64))
    paths = ImagePaths(folder, listings)
    if len(paths) >= LARGE and listings != list(known.values()):
        write_index(folder, listings)
    return paths, np.concatenate(labels)


def list_images(folder: Path, class_name: str, known: dict[str, Listing]) -> list[Listing]:
    """What a class folder and those below it hold, in their order.

    Folders that have not changed since they were listed in ``known`` are not read. Raises
    ``DataError`` when there is no image.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "cat").mkdir()
    >>> for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
    ...     (folder / "cat" / name).touch()
    >>> [listing.names for listing in list_images(folder, "cat", {})]
    [b'a.png\\x00b.JPG\\x00']
    """
    listings: list[Listing] = []
    waiting = [class_name]
    while waiting:
        listing = _list_folder(folder, waiting.pop(), known)
        listings.append(listing)
        waiting += [f"{listing.folder}/{name}" for name in reversed(listing.subfolders)]
    if not any(listing.names for listing in listings):
        looked_for = " ".join(EXTENSIONS)
        raise DataError(f"{folder / class_name}: folder without images (looked for {looked_for})")
    return listings


def _list_folder(root: Path, folder: str, known: dict[str, Listing]) -> Listing:
    path = root / folder
    signed = signature(path)  # before it is read: what changes meanwhile will be noticed
    before = known.get(folder)
    if before is not None and signed is not None and before.signature == signed:
        return before
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            # Pipes and the like are left out; a link to nothing is an image that is missing.
            elif entry.name.lower().endswith(EXTENSIONS) and (
                entry.is_file(follow_symlinks=False) or entry.is_symlink()
            ):
                files.append(entry.name)
    names = b"".join(os.fsencode(name) + b"\0" for name in sorted(files))
    return Listing(folder, signed, names, tuple(sorted(folders)))


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
