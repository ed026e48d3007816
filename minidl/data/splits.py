"""A split: a numbered set of labelled images that hands out batches."""

import math
import sys
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path

import numpy as np

from ..errors import ImageError
from .arrays import checked_images, checked_labels
from .augment import CROP, Augmentation
from .crops import Box, Crop, SquareCrop, central_square
from .images import cut, load_and_cut, load_image, open_image, pad, resize, to_luma
from .preprocess import Preprocessing

# Per-channel mean and deviation of ImageNet's training set, pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The luma of that mean, and the average of those deviations.
IMAGENET_GREY_MEAN = (0.459,)
IMAGENET_GREY_STD = (0.226,)

# How many values of images are decoded and measured at a time.
VALUES_OF_A_PART = 4_000_000


class Split:
    """What every split has in common.

    - ``labels``: (N,) int64; ``classes``: the class names, so labels are 0 to len(classes) - 1
    - ``channels``, ``image_size``: an image is (channels, image_size, image_size)
    - ``native_size``: (height, width) of the stored images, None where they differ
    - ``mean``, ``std``: one number per channel, for pixels in [0, 1]
    - ``flip``: whether a mirrored image still shows its class (not so for digits)
    - ``preprocessing``: from pixels to what a network sees; standardised unless it is replaced
    """

    white = 255.0  # the value of a pixel that ``mean`` and ``std`` take for 1
    most_measured = sys.maxsize
    images_per_task = 64  # of a thread that makes a part of a batch

    def __init__(
        self,
        labels: np.ndarray,
        classes: Sequence[str],
        channels: int,
        image_size: int,
        native_size: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
        flip: bool,
    ) -> None:
        self.labels = labels
        self.classes = tuple(classes)
        self.channels = channels
        self.image_size = image_size
        self.native_size = native_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.flip = flip
        self.preprocessing = Preprocessing.fit("standardise", self)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = (self.channels, self.image_size, self.image_size)
        return f"{type(self).__name__}({len(self):,} images {shape}, {len(self.classes):,} classes)"

    def pixels(
        self, indices: np.ndarray, crop: Crop | None = None, draws: np.ndarray | None = None
    ) -> np.ndarray:
        """Pixels (N, C, image_size, image_size), uint8 or float32; C is 1 for grey images.

        Without ``crop`` as they are evaluated, otherwise cut where it and ``draws`` (N, 4) say.
        """
        raise NotImplementedError

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        augment: Augmentation | None = None,
        seed: int = 0,
        epoch: int = 0,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, channels, image_size, image_size) float32 and labels (N,) int64.

        The images go through ``preprocessing``; grey ones are repeated to ``channels``.
        ``augment`` makes a training variant of each image, which depends on ``seed``, ``epoch`` and
        the image alone; None gives it as it is evaluated. The images are written to ``out`` if
        there is one. Raises ``ImageError`` naming the file for an image that cannot be decoded.

        >>> images = np.array([[[[0, 255]] * 2]] * 4, np.uint8)  # (4, 1, 2, 2)
        >>> split = ArraySplit(images, np.arange(4), channels=3)
        >>> x, y = split.batch([3, 0])
        >>> x.shape, x[0, 0, 0].tolist(), y.tolist()
        ((2, 3, 2, 2), [-1.0, 1.0], [3, 0])
        """
        indices = np.asarray(indices, np.int64)
        if augment is None:
            pixels = self.pixels(indices)  # (N, 1 or channels, S, S)
        else:
            draws = augment.draws(seed, epoch, indices)
            pixels = self.pixels(indices, augment.crop, draws[:, CROP])
            pixels = augment.apply(pixels, draws, self.flip)
        return self.preprocessing(pixels, out), self.labels[indices]

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, image_size, image_size) of :meth:`pixels`."""
        return self.channels, self.image_size, self.image_size

    def views(self) -> Iterator[np.ndarray]:
        """The pixels (n, C, S, S) of the images as they are evaluated, in parts, to measure them.

        Of image files at most 10,000, spread evenly over the split. Those that cannot be decoded
        are left out, as the loader says what happens to them; raises ``ImageError`` if all are.
        """
        count = min(len(self), self.most_measured)
        indices = np.arange(count) * len(self) // count
        size = max(1, VALUES_OF_A_PART // math.prod(self.stored_shape))
        parts = np.split(indices, range(size, count, size))
        found = False
        with ThreadPoolExecutor(thread_name_prefix="minidl-data") as pool:
            for pixels in pool.map(self._readable, parts):
                if len(pixels):
                    found = True
                    yield pixels
        if not found:
            self.pixels(indices[:1])  # says what is wrong

    def _readable(self, indices: np.ndarray) -> np.ndarray:
        try:
            return self.pixels(indices)
        except ImageError:
            if len(indices) == 1:
                return np.empty((0, *self.stored_shape), np.uint8)
            return np.concatenate([self._readable(indices[i : i + 1]) for i in range(len(indices))])

    def default_augmentation(self) -> Augmentation:
        """What a training run does to the images unless it is told otherwise."""
        return Augmentation(flip=self.flip)


class ArraySplit(Split):
    """Images in memory, one's own too: (N, C, H, W), or (N, H, W) where there is one channel.

    - uint8 images are pixels from 0 to 255: ``(pixel / 255 - mean) / std`` is what a network sees.
      ``mean`` and ``std``, one number per channel, are measured on these images unless given (a
      test split is given its training split's).
    - Float images are seen as they are (float32), or as ``(x - mean) / std`` if both are given.

    ``labels`` are (N,) integers from 0 on, of any integer dtype. ``classes`` names them; without,
    the names are their numbers. ``channels`` is the images' own number unless given: grey images
    are repeated to more, and uint8 colour is converted to luma if it is 1. ``image_size`` is the
    images' own as well, if they are square; otherwise they are padded or resized to that side when
    a batch is asked for. ``flip`` says whether a mirrored image still shows its class.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for arrays that do not fit together.

    >>> random = np.random.default_rng(0)
    >>> train = ArraySplit(random.random((100, 3, 24, 24)), random.integers(0, 7, 100))
    >>> x, y = train.batch([0, 1])
    >>> x.shape, x.dtype, y.dtype, len(train.classes)
    ((2, 3, 24, 24), dtype('float32'), dtype('int64'), 7)
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str] | None = None,
        channels: int | None = None,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        flip: bool = True,
    ) -> None:
        images = checked_images(images)
        stored, height, width = images.shape[1:]
        if classes is None:
            labels = checked_labels(labels, len(images))
            classes = [str(label) for label in range(labels.max() + 1)]
        elif not isinstance(classes, Sized):
            raise TypeError(
                f"ArraySplit: classes is {classes!r}, expected the names of the classes"
            )
        else:
            labels = checked_labels(labels, len(images), len(classes))
        if image_size is None and height != width:
            raise ValueError(
                f"ArraySplit: images (C, H, W) are {images.shape[1:]}, expected squares, or "
                f"image_size=SIDE to resize them to"
            )
        channels = stored if channels is None else channels
        size = height if image_size is None else image_size
        for name, value in (("channels", channels), ("image_size", size)):
            if not isinstance(value, Integral):
                way = ": images are squares" if name == "image_size" else ""
                raise TypeError(f"ArraySplit: {name} is {value!r}, expected an integer{way}")
        if min(channels, size) < 1:
            raise ValueError(
                f"ArraySplit: channels is {channels} and image_size {size}, expected at least 1"
            )
        if (stored, channels, images.dtype) == (3, 1, np.uint8):
            images = to_luma(images)
        elif stored not in (1, channels):
            raise ValueError(
                f"ArraySplit: channels is {channels}, the {images.dtype} images have {stored}"
            )
        self.images = images
        if images.dtype != np.uint8:
            self.white = 1.0
        mean, std = self._statistics(channels, mean, std)
        size, channels = int(size), int(channels)  # NumPy's integers overflow
        super().__init__(labels, classes, channels, size, (height, width), mean, std, flip)

    def _statistics(
        self, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[Sequence[float], Sequence[float]]:
        if (mean is None) != (std is None):
            raise ValueError("ArraySplit: mean and std are given together, or neither")
        if mean is not None and std is not None:
            if not np.shape(mean) == np.shape(std) == (channels,) or not np.all(np.array(std) > 0):
                raise ValueError(
                    f"ArraySplit: mean is {mean} and std {std}, expected {channels} numbers each, "
                    f"those of std above 0"
                )
            return mean, std
        if self.images.dtype != np.uint8:
            return (0.0,) * channels, (1.0,) * channels
        mean, std = channel_statistics(self.images)
        repeats = channels // len(mean)  # of grey images
        return mean * repeats, std * repeats

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1], self.image_size, self.image_size

    def pixels(
        self, indices: np.ndarray, crop: Crop | None = None, draws: np.ndarray | None = None
    ) -> np.ndarray:
        images = pad(self.images[indices], self.image_size)  # (N, C, H, W)
        boxes: Sequence[Box | None] = [None] * len(images)
        if crop is not None and draws is not None:
            height, width = images.shape[2:]
            boxes = [crop.box(width, height, self.image_size, numbers) for numbers in draws]
        return resize(images, self.image_size, boxes)


class FolderSplit(Split):
    """Image files, decoded when a batch asks for them; standardised with ImageNet's constants.

    Evaluation shows the central square of 7/8 of the shorter side, training by default a square
    of that size anywhere in the image. Where training draws a crop, a JPEG of at least twice the
    size that it needs is decoded at 1/2, 1/4 or 1/8 of it; evaluation always decodes all pixels.
    """

    most_measured = 10_000
    images_per_task = 16

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        classes: Sequence[str],
        channels: int,
        image_size: int,
    ) -> None:
        self.paths = paths
        mean: Sequence[float] = IMAGENET_GREY_MEAN if channels == 1 else IMAGENET_MEAN
        std: Sequence[float] = IMAGENET_GREY_STD if channels == 1 else IMAGENET_STD
        super().__init__(labels, classes, channels, image_size, None, mean, std, flip=True)

    def pixels(
        self, indices: np.ndarray, crop: Crop | None = None, draws: np.ndarray | None = None
    ) -> np.ndarray:
        size = self.image_size
        pixels = np.empty((len(indices), self.channels, size, size), np.uint8)
        for i, index in enumerate(indices):
            image = open_image(self.paths[index])
            width, height = image.size
            drawn = None
            if crop is not None and draws is not None:
                drawn = crop.box(width, height, size, draws[i])
            if drawn is None:
                pixels[i] = cut(
                    load_image(image, self.channels), size, central_square(width, height)
                )
            else:
                pixels[i] = load_and_cut(image, self.channels, size, drawn)
        return pixels

    def default_augmentation(self) -> Augmentation:
        return Augmentation(crop=SquareCrop(), flip=self.flip)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (N, C, H, W) uint8, pixels in [0, 1].

    Computed from exact counts of the 256 values, so neither the order nor the number of images
    rounds anything. A constant channel gets deviation 1: it is only centred.

    >>> channel_statistics(np.array([0, 255, 0, 255], np.uint8).reshape(4, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    values = np.arange(256)
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 1000):  # in parts: bincount widens to 8 bytes a pixel
            part = images[start : start + 1000, channel]
            counts += np.bincount(part.ravel(), minlength=256)
        total, first, second = map(int, (counts.sum(), counts @ values, counts @ values**2))
        means.append(first / total / 255)
        variance = (second * total - first**2) / total**2  # exact integers up to the division
        deviations.append(variance**0.5 / 255 or 1.0)
    return tuple(means), tuple(deviations)
