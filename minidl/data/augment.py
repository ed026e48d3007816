"""Training variants of images: crops, mirroring and colours, each image's drawn by a counter."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._kernels.reference.philox import LOW_WORD, WORD_BITS, philox4x32
from .crops import Crop, PadCrop, ResizedCrop, ScaleCrop, SquareCrop

# What an image's numbers are for. Each has its own, so that switching one augmentation on leaves
# what the others do to an image as it was.
FLIP, CROP = 0, slice(1, 5)
BLOCKS = 3  # of four numbers: what one step of the counter gives


@dataclass(frozen=True)
class Augmentation:
    """What training does to an image before the network sees it; evaluation does nothing of it.

    One crop at most, then mirroring of every second image.

    >>> augmentation = Augmentation.parse("flip,pad-crop:4:reflect")
    >>> augmentation
    Augmentation(crop=PadCrop(padding=4, reflect=True), flip=True)
    >>> str(augmentation)
    'pad-crop:4:reflect,flip'
    """

    crop: Crop | None = None
    flip: bool = False

    @classmethod
    def parse(cls, text: str) -> "Augmentation":
        """Read a comma-separated list, in any order; the order of application is always the same.

        =============================  ============================================================
        ``flip``                       mirrored left to right, every second image
        ``crop``                       the square of 7/8 of the shorter side, anywhere
        ``pad-crop:4[:reflect]``       a shift by up to 4 pixels, the border black or mirrored
        ``scale:256:480``              shorter side uniform in the range, then a random crop
        ``resized-crop:0.08:1``        a box of 8 to 100 % of the area, aspect 3/4 to 4/3
        ``none``                       nothing, alone
        =============================  ============================================================

        The numbers may be left out and are then those of this table. Raises ``ValueError`` for
        anything else.

        >>> Augmentation.parse("flop")
        Traceback (most recent call last):
        ...
        ValueError: unknown 'flop'; did you mean flip?
        """
        parts = [part.strip() for part in text.split(",")]
        if parts == ["none"]:
            return cls()
        given: dict[str, Any] = {}
        for part in parts:
            name, *arguments = part.split(":")
            if name == "none":
                raise ValueError("none stands alone")
            if name not in OPERATIONS:
                close = difflib.get_close_matches(name, OPERATIONS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are: {_known()}"
                raise ValueError(f"unknown {name!r}; {hint}")
            field, usage, make = OPERATIONS[name]
            if field in given:
                raise ValueError(f"two of a kind, {given[field][0]} and {part}")
            try:
                given[field] = part, make(*arguments)
            except (TypeError, ValueError) as error:
                reason = f" ({error})" if str(error).startswith("expected") else ""
                raise ValueError(f"{part!r} is not {usage}{reason}") from error
        return cls(**{field: value for field, (_, value) in given.items()})

    def __str__(self) -> str:
        parts = [str(part) for part in (self.crop,) if part]
        return ",".join(parts + ["flip"] * self.flip) or "none"

    def check(self, size: int) -> None:
        """Raise ``ValueError`` when this cannot be done to images of ``size`` x ``size``."""
        if self.crop is not None:
            self.crop.check(size)

    def draws(self, seed: int, epoch: int, images: np.ndarray) -> np.ndarray:
        """Twelve numbers an image, (N, 12) float64 uniform in [0, 1).

        They depend on the seed, the epoch and the image's number in its split alone: Philox's
        block for (image, epoch) under the key ``seed``.

        >>> first, second = (Augmentation().draws(1, 0, np.array(x)) for x in ([7, 8], [9, 8]))
        >>> bool((first[1] == second[1]).all()), bool((first[0] == second[0]).any())
        (True, False)
        """
        counters = np.zeros((len(images), BLOCKS, 4), np.uint64)
        counters[..., 0] = np.asarray(images, np.uint64)[:, None]
        counters[..., 1] = epoch
        counters[..., 2] = np.arange(BLOCKS)
        key = np.array([seed & int(LOW_WORD), seed >> int(WORD_BITS) & int(LOW_WORD)], np.uint64)
        words = philox4x32(counters, key).reshape(len(images), BLOCKS * 4)  # below 2^32
        return words / 2**32

    def apply(self, pixels: np.ndarray, draws: np.ndarray, may_flip: bool) -> np.ndarray:
        """What follows the cut: uint8 (N, C, S, S) moved and mirrored."""
        if self.crop is not None:
            pixels = self.crop.shift(pixels, draws[:, CROP])
        if self.flip and may_flip:
            mirrored = draws[:, FLIP] < 0.5
            pixels = np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)
        return pixels


def _pad_crop(padding: str = "4", border: str | None = None) -> PadCrop:
    if border not in (None, "reflect"):
        raise ValueError("expected reflect or nothing after the number")
    return PadCrop(int(padding), border is not None)


def _scale(smallest: str = "256", largest: str = "480") -> ScaleCrop:
    return ScaleCrop(int(smallest), int(largest))


def _resized_crop(smallest: str = "0.08", largest: str = "1") -> ResizedCrop:
    return ResizedCrop(float(smallest), float(largest))


# By name: the field it fills, how it is written, and what makes its value of the arguments.
OPERATIONS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "flip": ("flip", "flip", lambda: True),
    "crop": ("crop", "crop", SquareCrop),
    "pad-crop": ("crop", "pad-crop:PIXELS or pad-crop:PIXELS:reflect", _pad_crop),
    "scale": ("crop", "scale:SMALLEST:LARGEST", _scale),
    "resized-crop": ("crop", "resized-crop:SMALLEST:LARGEST", _resized_crop),
}


def _known() -> str:
    return ", ".join((*OPERATIONS, "none"))
