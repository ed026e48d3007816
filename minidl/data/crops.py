"""Where a training image is cut out of the stored one: four ways, from four numbers an image.

A crop is a box in the stored image that is brought to the network's size in one step, so nothing
is computed that is then cut away. :class:`PadCrop` instead shifts the image that evaluation shows.
"""

import math
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

# The part of an image's shorter side that is shown: 224 of 256, the usual central crop
# (Krizhevsky et al. 2012, section 4.1).
CROP_FRACTION = 224 / 256


class Crop:
    """What every crop has in common. ``draws`` are four numbers an image, uniform in [0, 1)."""

    def box(self, width: int, height: int, size: int, draws: np.ndarray) -> Box | None:
        """The box of an image to bring to ``size`` x ``size``; None is the one of evaluation."""
        return None

    def shift(self, pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """The uint8 images (N, C, S, S) moved where ``draws`` (N, 4) say."""
        return pixels

    def check(self, size: int) -> None:
        """Raise ``ValueError`` when images of ``size`` x ``size`` cannot be made this way."""


@dataclass(frozen=True)
class SquareCrop(Crop):
    """The square that :func:`central_square` takes from the middle, anywhere in the image.

    Source: Krizhevsky et al. 2012, section 4.1 (224 of 256).

    >>> SquareCrop().box(64, 80, 56, np.array([0, 0, 0.5, 0.25]))
    (2.0, 12.0, 58.0, 68.0)
    """

    def box(self, width: int, height: int, size: int, draws: np.ndarray) -> Box:
        side = CROP_FRACTION * min(width, height)
        return _placed(side, side, width, height, draws)

    def __str__(self) -> str:
        return "crop"


@dataclass(frozen=True)
class ScaleCrop(Crop):
    """Scale jitter: the shorter side becomes uniform in [smallest, largest], then a random crop.

    Source: Simonyan and Zisserman 2015, section 3.1 ([256, 512]); He et al. 2016, section 3.4
    ([256, 480]).

    >>> ScaleCrop(256, 480).box(512, 600, 224, np.zeros(4))  # 512 pixels become 256
    (0.0, 0.0, 448.0, 448.0)
    """

    smallest: int = 256
    largest: int = 480

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest <= 10_000:
            raise ValueError(f"{self}: expected 1 <= smallest <= largest <= 10000")

    def box(self, width: int, height: int, size: int, draws: np.ndarray) -> Box:
        shorter = self.smallest + draws[0] * (self.largest - self.smallest)
        side = min(width, height) * size / shorter
        return _placed(side, side, width, height, draws)

    def check(self, size: int) -> None:
        if self.smallest < size:
            raise ValueError(
                f"{self}: a shorter side of {self.smallest} pixels cannot be cropped to "
                f"{size} x {size}"
            )

    def __str__(self) -> str:
        return f"scale:{self.smallest}:{self.largest}"


@dataclass(frozen=True)
class ResizedCrop(Crop):
    """A box of a random part of the area and a random aspect in [3/4, 4/3].

    The area is uniform in [smallest, largest] of the image's, the aspect (width / height) uniform
    on a logarithmic scale among those that fit into the image: no draw is thrown away. Where none
    fits (large boxes of long images), the box is the largest of the aspect that is nearest.
    Source: Szegedy et al., CVPR 2015, section 6 ([0.08, 1]).

    >>> left, top, right, bottom = ResizedCrop(0.25, 0.25).box(80, 80, 32, np.full(4, 0.5))
    >>> [round(float(side), 6) for side in (left, top, right, bottom)]
    [20.0, 20.0, 60.0, 60.0]
    """

    smallest: float = 0.08
    largest: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest <= 1:
            raise ValueError(f"{self}: expected 0 < smallest <= largest <= 1")

    def box(self, width: int, height: int, size: int, draws: np.ndarray) -> Box:
        area = (self.smallest + draws[0] * (self.largest - self.smallest)) * width * height
        narrowest = max(3 / 4, area / height**2)
        widest = min(4 / 3, width**2 / area)
        if narrowest > widest:
            aspect = 3 / 4 if widest < 3 / 4 else 4 / 3
        else:
            aspect = narrowest * (widest / narrowest) ** draws[1]
        box_width = min(math.sqrt(area * aspect), width, height * aspect)
        return _placed(box_width, min(box_width / aspect, height), width, height, draws)

    def __str__(self) -> str:
        return f"resized-crop:{self.smallest:g}:{self.largest:g}"


@dataclass(frozen=True)
class PadCrop(Crop):
    """A crop of the image after padding all sides by ``padding``: a random shift.

    The border is black, or with ``reflect`` mirrors the image about its outermost pixels. Source:
    He et al. 2016, section 4.2 (4 pixels); Zagoruyko and Komodakis 2016, section 3 (reflection).

    >>> image = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> PadCrop(1).shift(image, np.zeros((1, 4)))[0, 0].tolist()
    [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    >>> PadCrop(1, reflect=True).shift(image, np.zeros((1, 4)))[0, 0].tolist()
    [[5, 4, 5], [2, 1, 2], [5, 4, 5]]
    """

    padding: int = 4
    reflect: bool = False

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise ValueError(f"{self}: expected at least 1 pixel")

    def shift(self, pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
        size, padding = pixels.shape[-1], self.padding
        padded = np.pad(
            pixels,
            ((0, 0), (0, 0), (padding, padding), (padding, padding)),
            mode="reflect" if self.reflect else "constant",
        )  # (N, C, S + 2 * padding, S + 2 * padding)
        corners = (draws[:, 2:] * (2 * padding + 1)).astype(int)  # (N, 2): down, across
        shifted = np.empty_like(pixels)
        for target, source, (top, left) in zip(shifted, padded, corners.tolist(), strict=True):
            target[...] = source[:, top : top + size, left : left + size]
        return shifted

    def check(self, size: int) -> None:
        if self.padding >= size:
            raise ValueError(f"{self}: the images are {size} x {size}, expected fewer pixels")

    def __str__(self) -> str:
        return f"pad-crop:{self.padding}{':reflect' if self.reflect else ''}"


def central_square(width: int, height: int) -> Box:
    """What evaluation shows of an image file: the middle, 7/8 of the shorter side.

    The same pixels as resizing the shorter side to ``size * 256 / 224`` and cropping, without
    computing those that are cropped away.

    >>> central_square(64, 80)
    (4.0, 12.0, 60.0, 68.0)
    """
    return SquareCrop().box(width, height, 0, np.full(4, 0.5))


def _placed(box_width: float, box_height: float, width: int, height: int, draws: np.ndarray) -> Box:
    """A box of that size in the image: the last two draws say how far down and across."""
    top = float(draws[2] * (height - box_height))
    left = float(draws[3] * (width - box_width))
    return left, top, left + float(box_width), top + float(box_height)
