"""From the text of ``--data`` to a training and a validation split.

==========================  =======================================================================
``fashion-mnist-small``     the default: 5,000 + 1,000 images of Fashion-MNIST inside the package
``fashion-mnist[:DIR]``     the full set, IDX files, gzipped or not
``mnist:DIR``               the same for MNIST
``cifar10:DIR``             the binary version of CIFAR-10
``cifar100:DIR``            the binary version of CIFAR-100, with its 100 fine labels
``folder:DIR``              image folders: ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``)
==========================  =======================================================================
"""

import difflib
import math
import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .augment import DRAWS, Augmentation
from .cifar import CIFAR10, CIFAR100, CifarLayout, read_cifar, read_class_names
from .folder import list_classes, read_folder
from .idx import find_idx, read_idx_pair
from .preprocess import Preprocessing
from .splits import ArraySplit, FolderSplit, Split

DEFAULT_DATA = "fashion-mnist-small"
EMBEDDED_FILE = Path(__file__).parent / "embedded" / "fashion_mnist_small.npz"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# Of the names in a run's checkpoint.
AUGMENT_PREFIX, PREPROCESS_PREFIX = "augment/", "preprocess/"

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class DataSplits:
    """A data set: ``train`` to learn from and ``val`` to measure on (the published test set).

    ``augmentation`` is what a training run does to the images of ``train``.
    """

    name: str
    train: Split
    val: Split
    augmentation: Augmentation

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def channels(self) -> int:
        return self.train.channels

    @property
    def image_size(self) -> int:
        return self.train.image_size

    def describe(self) -> str:
        """One line for people: images to learn from + images to measure on, their own size.

        >>> load().describe()
        'fashion-mnist-small: 5,000 + 1,000 images (28 x 28)'
        """
        native = self.train.native_size
        stored = f" ({native[0]} x {native[1]})" if native else ""
        return f"{self.name}: {len(self.train):,} + {len(self.val):,} images{stored}"

    def prepared(
        self,
        augment: str | None = None,
        preprocess: str = "standardise",
        state: Mapping[str, np.ndarray] | None = None,
    ) -> "DataSplits":
        """The same images, augmented and preprocessed as :class:`Augmentation` and
        :class:`Preprocessing` say; None is the data set's own augmentation.

        What they have to know of the training set is measured, or taken from the ``state`` of a run
        that has measured it: its checkpoint's arrays, of which those of :meth:`state_dict` are
        used, if it has them. Images that must not be mirrored are not.

        Raises ``ValueError`` for what cannot be done to these images, and for a ``state`` that does
        not fit.

        >>> splits = load(channels=1).prepared("pad-crop:4,flip", "pixel-mean")
        >>> splits.describe_inputs()
        'inputs: pixel-mean, in training pad-crop:4,flip'
        >>> {name: array.shape for name, array in splits.state_dict().items()}
        {'preprocess/scale': (1, 1, 1), 'preprocess/shift': (1, 32, 32)}
        """
        wanted = (
            self.train.default_augmentation() if augment is None else Augmentation.parse(augment)
        )
        augmentation = replace(wanted, flip=wanted.flip and self.train.flip)
        augmentation.check(self.image_size, self.train.white, self.train.stored_shape[0])
        if measured := _part(state or {}, PREPROCESS_PREFIX):
            preprocessing = Preprocessing.from_state_dict(preprocess, self.channels, measured)
            augmentation = augmentation.with_state(_part(state or {}, AUGMENT_PREFIX))
        else:
            preprocessing = Preprocessing.fit(preprocess, self.train)
            augmentation = augmentation.fit(self.train)
        black = np.zeros((1, *self.train.stored_shape), np.uint8)
        augmentation.apply(black, np.zeros((1, DRAWS)), may_flip=False)
        preprocessing(black)  # either may find that the state belongs to other images
        train, val = (copy(split) for split in (self.train, self.val))
        train.preprocessing = val.preprocessing = preprocessing
        return DataSplits(self.name, train, val, augmentation)

    def state_dict(self) -> dict[str, np.ndarray]:
        """What augmentation and preprocessing know of the training set, for a checkpoint."""
        augment = self.augmentation.state_dict()
        preprocess = self.train.preprocessing.state_dict()
        return {AUGMENT_PREFIX + name: array for name, array in augment.items()} | {
            PREPROCESS_PREFIX + name: array for name, array in preprocess.items()
        }

    def describe_inputs(self) -> str:
        """One line for people: what the network sees of the images."""
        unflipped = "" if self.train.flip else " (a mirrored image would not show its class)"
        return (
            f"inputs: {self.train.preprocessing.kind}, in training {self.augmentation}{unflipped}"
        )


def load(
    spec: str = DEFAULT_DATA,
    image_size: int | None = None,
    channels: int = 3,
    min_image_size: int = 1,
    own_image_size: int = 224,
) -> DataSplits:
    """Open the data set that ``spec`` names (the module's docstring lists the forms).

    ``image_size`` is the side of the network's input. None takes ``own_image_size``, which the
    network is made for, for image folders and, for the others, the smallest multiple of 32 that
    holds both the stored images and ``min_image_size``, the smallest input that the network can
    take. ``channels`` is 3 or 1.

    Raises ``DataError`` for an unknown name, a missing or damaged file, a label out of range, and
    an ``image_size`` below ``min_image_size``; ``ValueError`` for other ``channels``.

    >>> splits = load(image_size=28, channels=1)
    >>> images, labels = splits.train.batch([0, 1])
    >>> images.shape, images.dtype, [splits.classes[label] for label in labels]
    ((2, 1, 28, 28), dtype('float32'), ['Ankle boot', 'T-shirt/top'])
    >>> load("fashionmnist")
    Traceback (most recent call last):
    ...
    minidl.errors.DataError: unknown data set 'fashionmnist'; did you mean fashion-mnist?
    """
    if channels not in (1, 3):
        raise ValueError(f"load: channels is {channels}, expected 1 (grey) or 3 (colour)")
    if image_size is not None and image_size < min_image_size:
        raise DataError(
            f"{spec}: image size {image_size} is smaller than the network needs, "
            f"at least {min_image_size}"
        )
    name, colon, folder = spec.partition(":")
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(SOURCES)}"
        if spec and Path(spec).expanduser().is_dir():
            hint = f"did you mean folder:{spec}?"
        raise DataError(f"unknown data set {name!r}; {hint}")
    if colon and not folder:
        raise DataError(f"{spec}: expected a folder after the colon, {name}:DIR")
    path = Path(folder).expanduser() if folder else None
    shape = Shape(image_size, channels, min_image_size, own_image_size)
    try:
        if path is not None and not path.is_dir():
            fault = "is not a folder" if path.exists() else "does not exist"
            raise DataError(f"{name}: {path} {fault}")
        train, val = SOURCES[name](path, shape)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return DataSplits(name, train, val, train.default_augmentation())


def _part(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }


@dataclass(frozen=True)
class Shape:
    """What the network wants to see: the arguments of :func:`load`."""

    image_size: int | None
    channels: int
    min_image_size: int
    own_image_size: int


@dataclass(frozen=True)
class Arrays:
    """A data set in memory: images (N, C, H, W) uint8 and labels (N,) int64 of both splits."""

    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    flip: bool = True

    def splits(self, shape: Shape) -> tuple[Split, Split]:
        # Five halvings, as in VGG and ResNet, need a multiple of 32.
        smallest = max(*self.train[0].shape[2:], shape.min_image_size)
        size = shape.image_size or 32 * math.ceil(smallest / 32)
        train = ArraySplit(*self.train, self.classes, shape.channels, size, flip=self.flip)
        statistics = train.mean, train.std
        val = ArraySplit(*self.val, self.classes, shape.channels, size, *statistics, self.flip)
        return train, val


def _embedded(folder: Path | None, shape: Shape) -> tuple[Split, Split]:
    if folder is not None:
        raise DataError(
            f"{DEFAULT_DATA} is part of minidl and takes no folder, got {folder} "
            f"(the full set: fashion-mnist:DIR)"
        )
    with np.load(EMBEDDED_FILE, allow_pickle=False) as file:
        train, val = (
            (file[f"{split}_images"][:, None], file[f"{split}_labels"].astype(np.int64))
            for split in ("train", "test")
        )
    return Arrays(train, val, FASHION_CLASSES).splits(shape)


def _fashion_mnist(folder: Path | None, shape: Shape) -> tuple[Split, Split]:
    return _read_idx(folder or find_fashion_mnist(), FASHION_CLASSES, flip=True).splits(shape)


def _mnist(folder: Path | None, shape: Shape) -> tuple[Split, Split]:
    # A mirrored digit is no digit, or another one.
    return _read_idx(_required("mnist", folder), DIGITS, flip=False).splits(shape)


def _cifar10(folder: Path | None, shape: Shape) -> tuple[Split, Split]:
    return _read_cifar(_required("cifar10", folder), CIFAR10).splits(shape)


def _cifar100(folder: Path | None, shape: Shape) -> tuple[Split, Split]:
    return _read_cifar(_required("cifar100", folder), CIFAR100).splits(shape)


def _folder(folder: Path | None, shape: Shape) -> tuple[Split, Split]:
    folder = _required("folder", folder)
    train_folder = folder / "train"
    val_folder = next((folder / n for n in ("val", "test") if (folder / n).is_dir()), None)
    if not train_folder.is_dir() or val_folder is None:
        found = ", ".join(sorted(os.listdir(folder))[:5]) or "an empty folder"
        raise DataError(
            f"{folder}: expected the folders train and val (or test), each with one folder of "
            f"images per class, got {found}"
        )
    size = shape.image_size or max(shape.own_image_size, shape.min_image_size)
    classes = list_classes(train_folder)
    train = FolderSplit(*read_folder(train_folder, classes), classes, shape.channels, size)
    val = FolderSplit(*read_folder(val_folder, classes), classes, shape.channels, size)
    return train, val


SOURCES: dict[str, Callable[[Path | None, Shape], tuple[Split, Split]]] = {
    DEFAULT_DATA: _embedded,
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "folder": _folder,
}


def find_fashion_mnist() -> Path:
    """``$MINIDL_DATA/fashion-mnist`` or the folder of Debian's package, whichever has the files.

    Raises ``DataError`` saying where they were looked for and how to get them.
    """
    candidates = [DEBIAN_FASHION_MNIST]
    if os.environ.get("MINIDL_DATA"):
        candidates.insert(0, Path(os.environ["MINIDL_DATA"], "fashion-mnist"))
    for folder in candidates:
        if find_idx(folder, "train-images", 3):
            return folder
    raise DataError(
        f"fashion-mnist: found no train-images-idx3-ubyte(.gz) in "
        f"{' or '.join(map(str, candidates))}: install Debian's package dataset-fashion-mnist, or "
        f"download the four files from https://github.com/zalandoresearch/fashion-mnist and name "
        f"their folder, fashion-mnist:DIR or $MINIDL_DATA/fashion-mnist"
    )


def _required(name: str, folder: Path | None) -> Path:
    if folder is None:
        raise DataError(f"{name}: expected the folder of the data set, {name}:DIR")
    return folder


def _read_idx(folder: Path, classes: tuple[str, ...], flip: bool) -> Arrays:
    train = read_idx_pair(folder, "train", len(classes))
    val = read_idx_pair(folder, "t10k", len(classes))
    if train[0].shape[1:] != val[0].shape[1:]:
        raise DataError(
            f"{folder}: expected training and test images of one size, "
            f"got {train[0].shape[2:]} and {val[0].shape[2:]}"
        )
    return Arrays(train, val, classes, flip)


def _read_cifar(folder: Path, layout: CifarLayout) -> Arrays:
    unpacked = folder / layout.archive_folder  # the folder that the archive was unpacked in will do
    folder = unpacked if unpacked.is_dir() else folder
    train = read_cifar(folder, layout.train_files, layout)
    val = read_cifar(folder, layout.test_files, layout)
    return Arrays(train, val, read_class_names(folder, layout))
