"""From pixels to what a network sees: centring, scaling and whitening, measured while training.

===============  ===================================================================================
``standardise``  ``(pixel / 255 - mean) / std`` with one mean and deviation per channel
``mean``         grey levels (0 to 255) minus the channel's mean (AlexNet, VGG)
``pixel-mean``   grey levels minus the training set's mean image (ResNet)
``gcn``          each image minus its own mean, divided by its own deviation
``pca``          minus the mean image, rotated to principal components, each scaled to variance 1
``zca``          the same and rotated back, so that the result is an image again
``gcn+pca``      and ``gcn+zca``: one after the other (Network in Network)
``none``         grey levels as they are
===============  ===================================================================================
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .splits import Split

PREPROCESSINGS = (
    "standardise", "mean", "pixel-mean", "gcn", "pca", "zca", "gcn+pca", "gcn+zca", "none",
)  # fmt: skip

# Added to an image's variance in grey levels, so that an empty image stays empty (Coates, Lee and
# Ng 2011, section 2.1).
GCN_VARIANCE = 10.0

# Added to the eigenvalues when whitening, as a part of their mean. What varies less is amplified
# less: it is mostly noise. 0.1 of images of variance 1 is what Network in Network was trained with.
WHITENING_EPS = 0.1

# The most values of an image that is whitened: the covariance takes 512 MiB then.
MAX_WHITENED = 8192


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What is done to the pixels of a training set, and in the same way to all others.

    First contrast normalisation, for the kinds that have it, then ``pixel * scale + shift``, then
    the product with ``matrix`` (D, D) if there is one, D being the values of an image. All arrays
    are float32; ``scale`` and ``shift`` are (C, 1, 1) or one number a pixel, (C, S, S).

    >>> from minidl.data import load
    >>> split = load(channels=1).train
    >>> x = Preprocessing.fit("standardise", split)(split.pixels(np.arange(100)))
    >>> x.shape, x.dtype
    ((100, 1, 32, 32), dtype('float32'))
    """

    kind: str
    channels: int
    scale: np.ndarray
    shift: np.ndarray
    matrix: np.ndarray | None = None

    @classmethod
    def fit(cls, kind: str, split: "Split", eps: float = WHITENING_EPS) -> "Preprocessing":
        """Measure on a training split what ``kind`` needs, as the module's docstring lists it.

        ``eps`` is added to the eigenvalues of the covariance when whitening, in units of their
        mean. Raises ``ValueError`` for another ``kind``, an ``eps`` below 0, and for whitening
        images of more than 8,192 values, whose covariance would not fit into memory.
        """
        if kind not in PREPROCESSINGS:
            raise ValueError(f"unknown {kind!r}, expected one of {', '.join(PREPROCESSINGS)}")
        if not eps >= 0:
            raise ValueError(f"{kind}: eps is {eps}, expected at least 0")
        if split.white != 255 and kind not in ("standardise", "none"):
            raise ValueError(f"{kind}: measured on uint8 images, these are floats")
        mean, std = (np.array(numbers)[:, None, None] for numbers in (split.mean, split.std))
        scale, shift = np.ones_like(mean), np.zeros_like(mean)  # (channels, 1, 1)
        matrix: np.ndarray | None = None
        if kind == "standardise":
            scale, shift = 1 / (split.white * std), -mean / std
        elif kind == "mean":
            shift = -255 * mean
        elif kind == "pixel-mean":
            shift = -_mean_image(split)
        elif kind not in ("gcn", "none"):
            shift, matrix = _whitening(kind, split, eps)
        arrays = {"scale": scale, "shift": shift}
        return cls(
            kind,
            split.channels,
            **_single(arrays if matrix is None else arrays | {"matrix": matrix}),
        )

    def __call__(self, pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images (N, channels, H, W) float32 of pixels (N, C, H, W), uint8 or float32, 0 to 255.

        C is ``channels``, or 1 for grey images, which are repeated. They are written to ``out``
        if there is one. Raises ``ValueError`` for images of another size than those measured, where
        each pixel has its own mean.
        """
        if "gcn" in self.kind:
            pixels = contrast_normalised(pixels)
        measured, shape = self.shift.shape, pixels.shape[1:]
        if measured[1:] != (1, 1) and measured != shape:
            expected, got = (" x ".join(map(str, sizes)) for sizes in (measured, shape))
            raise ValueError(f"{self.kind} was measured on images of {expected}, got {got}")
        stored = shape[0]
        if out is None:
            out = np.empty((len(pixels), self.channels, *shape[1:]), np.float32)
        images = out[:, :stored]
        images[...] = pixels
        images *= self.scale[:stored]
        images += self.shift[:stored]
        if self.matrix is not None:
            images[...] = (images.reshape(len(images), -1) @ self.matrix).reshape(images.shape)
        out[:, stored:] = images[:, :1]
        return out

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays by name: all that ``kind`` and ``channels`` do not say."""
        state = {"scale": self.scale, "shift": self.shift}
        return state if self.matrix is None else state | {"matrix": self.matrix}

    @classmethod
    def from_state_dict(
        cls, kind: str, channels: int, state: Mapping[str, np.ndarray]
    ) -> "Preprocessing":
        """What :meth:`state_dict` was taken from. Raises ``ValueError`` for other arrays.

        >>> Preprocessing.from_state_dict("zca", 3, {"scale": np.ones((3, 1, 1))})
        Traceback (most recent call last):
        ...
        ValueError: zca: expected the arrays matrix, scale, shift, got scale
        """
        whitens = kind.endswith(("pca", "zca"))
        expected = ["matrix"] * whitens + ["scale", "shift"]
        if sorted(state) != expected:
            raise ValueError(
                f"{kind}: expected the arrays {', '.join(expected)}, got {', '.join(sorted(state))}"
            )
        arrays = _single(state)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{kind}: {name} holds NaN or infinite values")
        values = arrays["shift"].size
        if whitens and arrays["matrix"].shape != (values, values):
            raise ValueError(
                f"{kind}: matrix is {arrays['matrix'].shape}, expected {(values, values)}"
            )
        return cls(kind, channels, **arrays)


def contrast_normalised(pixels: np.ndarray) -> np.ndarray:
    """Global contrast normalisation: ``(x - mean(x)) / sqrt(var(x) + 10)`` of each image.

    Takes (N, C, H, W) grey levels, returns float32. Source: Coates, Lee and Ng 2011, section 2.1.

    >>> contrast_normalised(np.array([[[[0, 255]]], [[[9, 9]]]], np.uint8)).round(3).tolist()
    [[[[-1.0, 1.0]]], [[[0.0, 0.0]]]]
    """
    values = pixels.reshape(len(pixels), -1).astype(np.float32)  # (N, D)
    values -= values.mean(axis=1, keepdims=True)
    variance = np.square(values).mean(axis=1, keepdims=True)
    values /= np.sqrt(variance + np.float32(GCN_VARIANCE))
    return values.reshape(pixels.shape)


def _mean_image(split: "Split") -> np.ndarray:
    """The mean (C, S, S) float64 of the training images, in grey levels."""
    sums, counts = zip(
        *((pixels.sum(axis=0, dtype=np.int64), len(pixels)) for pixels in split.views()),
        strict=True,
    )
    return np.sum(sums, axis=0) / sum(counts)


def _whitening(kind: str, split: "Split", eps: float) -> tuple[np.ndarray, np.ndarray]:
    """The shift (C, S, S) to mean zero and the matrix (D, D) to unit covariance.

    The eigenvectors' signs are arbitrary: the largest entry of each is made positive.
    """
    shape = split.stored_shape
    values = math.prod(shape)
    if values > MAX_WHITENED:
        raise ValueError(
            f"{kind}: images of {' x '.join(map(str, shape))} have {values:,} values, and their "
            f"covariance would take {values * values * 8 / 1e9:,.1f} GB; whitening is for images "
            f"of at most {MAX_WHITENED:,} values"
        )
    count, total, products = 0, np.zeros(values), np.zeros((values, values))
    for pixels in split.views():
        part = contrast_normalised(pixels) if "gcn" in kind else pixels
        part = part.reshape(len(pixels), values).astype(np.float64)  # (n, D)
        count += len(part)
        total += part.sum(axis=0)
        products += part.T @ part
    mean = total / count
    eigenvalues, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    eigenvalues, vectors = eigenvalues[::-1].clip(min=0), vectors[:, ::-1]  # the largest first
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(values)])
    variances = eigenvalues + eps * eigenvalues.mean()
    # What varies by rounding errors alone would become noise, and stays at zero.
    deviations = np.sqrt(np.where(variances > 1e-10 * eigenvalues.mean(), variances, np.inf))
    matrix = vectors / deviations
    if kind.endswith("zca"):
        matrix = matrix @ vectors.T
    return -mean.reshape(shape), matrix


def _single(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
