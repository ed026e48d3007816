"""Training variants of images: crops, mirroring and colours, each image's drawn by a counter."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._kernels.reference.philox import LOW_WORD, WORD_BITS, philox4x32
from .colour import ColourComponents, ColourJitter, pca_shift
from .crops import Crop, PadCrop, ResizedCrop, ScaleCrop, SquareCrop

if TYPE_CHECKING:
    from .splits import Split

# What an image's numbers are for. Each has its own, so that switching one augmentation on leaves
# what the others do to an image as it was.
FLIP, CROP, COLOUR, PCA_COLOUR = 0, slice(1, 5), slice(5, 8), slice(8, 12)
DRAWS = 12  # three steps of the counter, which gives four numbers at once


@dataclass(frozen=True)
class Augmentation:
    """What training does to an image before the network sees it; evaluation does nothing of it.

    In this order: one crop at most, mirroring of every second image, brightness and contrast and
    saturation, and the shift of colours along their principal components, whose deviation is
    ``pca_colour`` (0: none). That one needs :meth:`fit`, which a loader sees to.

    Raises ``TypeError`` for a crop or a colour of another type, such as the text of one.

    >>> augmentation = Augmentation.parse("flip,pad-crop:4:reflect")
    >>> augmentation.crop, augmentation.flip
    (PadCrop(padding=4, reflect=True), True)
    >>> str(augmentation)
    'pad-crop:4:reflect,flip'
    """

    crop: Crop | None = None
    flip: bool = False
    colour: ColourJitter | None = None
    pca_colour: float = 0.0
    components: ColourComponents | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("crop", self.crop, Crop),
            ("colour", self.colour, ColourJitter),
        ):
            if value is not None and not isinstance(value, kind):
                raise TypeError(
                    f"Augmentation: {name} is {value!r}, expected a {kind.__name__}; "
                    f'a text is read by Augmentation.parse("pad-crop:4,flip")'
                )

    @classmethod
    def parse(cls, text: str) -> "Augmentation":
        """Read a comma-separated list, in any order; the order of application is always the same.

        =============================  ============================================================
        ``flip``                       mirrored left to right, every second image
        ``crop``                       the square of 7/8 of the shorter side, anywhere
        ``pad-crop:4[:reflect]``       a shift by up to 4 pixels, the border black or mirrored
        ``scale:256:480``              shorter side uniform in the range, then a random crop
        ``resized-crop:0.08:1``        a box of 8 to 100 % of the area, aspect 3/4 to 4/3
        ``colour:0.4``                 brightness, contrast, saturation times 0.6 to 1.4; or three
                                       numbers, ``colour:0.4:0.4:0``
        ``pca-colour:0.1``             AlexNet's shift along the principal components of colour
        ``none``                       nothing; stands alone
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
            except (TypeError, ValueError) as error:  # too many, no numbers, or out of range
                raise ValueError(f"expected {usage}, got {part!r}") from error
        return cls(**{field: value for field, (_, value) in given.items()})

    def __str__(self) -> str:
        parts = (
            str(self.crop or ""),
            "flip" if self.flip else "",
            str(self.colour or ""),
            f"pca-colour:{self.pca_colour:g}" if self.pca_colour else "",
        )
        return ",".join(filter(None, parts)) or "none"

    def fit(self, split: "Split") -> "Augmentation":
        """This augmentation with what it has to know of the training split, if anything."""
        if not self.pca_colour:
            return self
        return replace(self, components=ColourComponents.fit(split))

    def state_dict(self) -> dict[str, np.ndarray]:
        """What :meth:`fit` measured: float64 arrays by name, none if nothing was to be measured."""
        return {} if self.components is None else vars(self.components).copy()

    def with_state(self, state: Mapping[str, np.ndarray]) -> "Augmentation":
        """This augmentation with what :meth:`fit` measured before, from its :meth:`state_dict`.

        Raises ``ValueError`` where something that has to be known is missing.
        """
        if not self.pca_colour:
            return self
        shapes = {name: array.shape for name, array in state.items()}
        count = np.size(state.get("eigenvalues", ()))
        if shapes != {"eigenvalues": (count,), "eigenvectors": (count, count)}:
            raise ValueError(
                f"{self}: expected the eigenvalues (C,) and eigenvectors (C, C) of the training "
                f"set's colours, got {shapes or 'nothing'}"
            )
        return replace(self, components=ColourComponents(**state))

    def check(self, size: int, white: float = 255.0, channels: int = 3) -> None:
        """Raise ``ValueError`` when this cannot be done to images of ``size`` x ``size`` with so
        many ``channels``, whose white pixels have the value ``white``.
        """
        if self.crop is not None:
            self.crop.check(size)
        if white != 255 and (self.colour is not None or self.pca_colour):
            raise ValueError(f"{self}: colours are changed in uint8 images, these are floats")
        luma = self.colour is not None and (self.colour.contrast or self.colour.saturation)
        if luma and channels not in (1, 3):
            raise ValueError(
                f"{self.colour}: contrast and saturation are those of 1 or 3 channels, these "
                f"images have {channels}"
            )
        if self.pca_colour and channels > PCA_COLOUR.stop - PCA_COLOUR.start:
            raise ValueError(
                f"pca-colour: shifts the colours of 4 channels at most, these images have "
                f"{channels}"
            )

    def draws(self, seed: int, epoch: int, images: np.ndarray) -> np.ndarray:
        """Twelve numbers an image, (N, 12) float64 uniform in [0, 1).

        They depend on the seed, the epoch and the image's number in its split alone: Philox's
        block for (image, epoch) under the key ``seed``.

        >>> first, second = (Augmentation().draws(1, 0, np.array(x)) for x in ([7, 8], [9, 8]))
        >>> bool((first[1] == second[1]).all()), bool((first[0] == second[0]).any())
        (True, False)
        """
        counters = np.zeros((len(images), DRAWS // 4, 4), np.uint64)
        counters[..., 0] = np.asarray(images, np.uint64)[:, None]
        counters[..., 1] = epoch
        counters[..., 2] = np.arange(DRAWS // 4)
        key = np.array([seed & int(LOW_WORD), seed >> int(WORD_BITS) & int(LOW_WORD)], np.uint64)
        words = philox4x32(counters, key).reshape(len(images), DRAWS)  # below 2^32
        return words / 2**32

    def apply(self, pixels: np.ndarray, draws: np.ndarray, may_flip: bool) -> np.ndarray:
        """What follows the cut of pixels (N, C, S, S); float32 where colours change.

        Raises ``ValueError`` where :meth:`fit` is missing.
        """
        if self.crop is not None:
            pixels = self.crop.shift(pixels, draws[:, CROP])
        if self.flip and may_flip:
            mirrored = draws[:, FLIP] < 0.5
            pixels = pixels.copy()
            pixels[mirrored] = pixels[mirrored][..., ::-1]
        if self.colour is not None:
            pixels = self.colour(pixels, draws[:, COLOUR])
        if self.pca_colour:
            if self.components is None:
                raise ValueError("pca-colour: the training set's colours have not been measured")
            pixels = pca_shift(pixels, draws[:, PCA_COLOUR], self.components, self.pca_colour)
        return pixels


def _pad_crop(padding: str = "4", border: str | None = None) -> PadCrop:
    if border not in (None, "reflect"):
        raise ValueError(f"unknown border {border!r}")
    return PadCrop(int(padding), border is not None)


def _scale(smallest: str = "256", largest: str = "480") -> ScaleCrop:
    return ScaleCrop(int(smallest), int(largest))


def _resized_crop(smallest: str = "0.08", largest: str = "1") -> ResizedCrop:
    return ResizedCrop(float(smallest), float(largest))


def _colour(
    brightness: str = "0.4", contrast: str | None = None, saturation: str | None = None
) -> ColourJitter:
    if (contrast is None) != (saturation is None):
        raise ValueError("two numbers")
    others = (brightness if text is None else text for text in (contrast, saturation))
    return ColourJitter(*map(float, (brightness, *others)))


def _pca_colour(sigma: str = "0.1") -> float:
    if not 0 < float(sigma) <= 10:
        raise ValueError(f"sigma is {sigma}")
    return float(sigma)


# By name: the field it fills, how it is written, and what makes its value of the arguments.
OPERATIONS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "flip": ("flip", "flip", lambda: True),
    "crop": ("crop", "crop", SquareCrop),
    "pad-crop": ("crop", "pad-crop:PIXELS or pad-crop:PIXELS:reflect, PIXELS >= 1", _pad_crop),
    "scale": ("crop", "scale:A:B, whole numbers 1 <= A <= B <= 10000", _scale),
    "resized-crop": ("crop", "resized-crop:A:B, 0 < A <= B <= 1", _resized_crop),
    "colour": ("colour", "colour:X or colour:X:Y:Z, numbers from 0 to 1", _colour),
    "pca-colour": ("pca_colour", "pca-colour:SIGMA, 0 < SIGMA <= 10", _pca_colour),
}


def _known() -> str:
    return ", ".join((*OPERATIONS, "none"))
