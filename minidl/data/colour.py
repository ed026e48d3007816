"""Colours of training images: brightness, contrast, saturation, and AlexNet's shift along PCA."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .splits import Split

# What a channel adds to luma (ITU-R 601-2).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast and saturation, in this order, multiplied by uniform random factors.

    Each factor is uniform in [1 - x, 1 + x]; a factor of 0 gives black, the image's mean luma and
    luma, 2 as far beyond the image. Values are clipped to [0, 255] after each of the three.

    >>> grey = np.full((1, 1, 2, 2), 100, np.uint8)
    >>> ColourJitter(0.5, 0, 0)(grey, np.array([[0.0, 0.5, 0.5]])).ravel()
    array([50., 50., 50., 50.], dtype=float32)
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        if not all(0 <= x <= 1 for x in (self.brightness, self.contrast, self.saturation)):
            raise ValueError(f"{self}: expected numbers from 0 to 1")

    def __call__(self, pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Pixels (N, C, H, W), 0 to 255, changed as ``draws`` (N, 3) say, as float32."""
        strengths = np.array([self.brightness, self.contrast, self.saturation])
        factors = (1 + (2 * draws - 1) * strengths).astype(np.float32)[..., None, None, None]
        images = pixels.astype(np.float32)
        if self.brightness:
            images = _clip(images * factors[:, 0])
        if self.contrast:
            grey = luma(images).mean(axis=(2, 3), keepdims=True)  # (N, 1, 1, 1)
            images = _clip(grey + (images - grey) * factors[:, 1])
        if self.saturation and images.shape[1] > 1:
            grey = luma(images)
            images = _clip(grey + (images - grey) * factors[:, 2])
        return images

    def __str__(self) -> str:
        strengths = [f"{x:g}" for x in (self.brightness, self.contrast, self.saturation)]
        return f"colour:{strengths[0] if len(set(strengths)) == 1 else ':'.join(strengths)}"


@dataclass(frozen=True, eq=False)
class ColourComponents:
    """The principal components of a training set's colours, pixels in [0, 1].

    ``eigenvalues`` (C,) of the covariance of the channels, the largest first, and their
    ``eigenvectors`` (C, C) as columns; float64.
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    @classmethod
    def fit(cls, split: "Split") -> "ColourComponents":
        """Measure them on the pixels of a training split."""
        stored = split.stored_shape[0]
        count, total, products = 0, np.zeros(stored), np.zeros((stored, stored))
        for pixels in split.views():
            channels = pixels.swapaxes(0, 1).reshape(stored, -1).astype(np.float64)  # (C, n*S*S)
            count += channels.shape[1]
            total += channels.sum(axis=1)
            products += channels @ channels.T
        mean = total / count
        covariance = (products / count - np.outer(mean, mean)) / 255**2
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return cls(eigenvalues[::-1].copy(), vectors[:, ::-1].copy())


def pca_shift(
    pixels: np.ndarray, draws: np.ndarray, components: ColourComponents, sigma: float
) -> np.ndarray:
    """Pixels (N, C, H, W), 0 to 255, plus one colour for the whole image, as float32.

    The colour is the sum of the principal components, each times its eigenvalue and a normal
    number of deviation ``sigma``; ``draws`` (N, 4) are uniform. Source: Krizhevsky et al. 2012,
    section 4.1, for pixels in [0, 1].
    """
    count = pixels.shape[1]
    if len(components.eigenvalues) != count:
        raise ValueError(
            f"pca-colour: measured on images of {len(components.eigenvalues)} channels, got {count}"
        )
    alphas = sigma * normal(draws)[:, :count]  # (N, C)
    colours = 255 * (alphas * components.eigenvalues) @ components.eigenvectors.T
    return pixels + colours.astype(np.float32)[:, :, None, None]


def normal(draws: np.ndarray) -> np.ndarray:
    """Standard normal numbers (N, 2k) from (N, 2k) uniform in [0, 1): Box and Muller 1958."""
    first, second = np.split(draws, 2, axis=1)
    radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def luma(images: np.ndarray) -> np.ndarray:
    """The brightness (N, 1, H, W) of float32 images (N, 1 or 3, H, W).

    >>> luma(np.full((1, 3, 1, 1), 200, np.float32)).round().item()
    200.0
    """
    if images.shape[1] == 1:
        return images
    return np.einsum("c,nchw->nhw", LUMA, images)[:, None]


def _clip(images: np.ndarray) -> np.ndarray:
    return np.clip(images, 0, 255, out=images)
