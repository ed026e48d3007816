"""Everything that touches Pillow: decoding files and resizing. Pillow is imported on first use."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, ImageError
from .crops import Box

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# How many pixels may be missing from a side and still be filled with background, as LeNet-5's
# authors did to bring 28 x 28 digits to 32 x 32 (LeCun et al. 1998, section II.B).
MAX_PADDING = 4

# What Pillow is let to read. It knows others, and hands some of them to other programs.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")


def open_image(path: str | Path) -> "ImageFile":
    """Read the header of an image file; :func:`load_image` reads the rest.

    Raises ``ImageError`` naming the file when it cannot be read, or has more pixels than
    ``PIL.Image.MAX_IMAGE_PIXELS``: a few bytes may claim to be gigabytes.
    """
    pillow = _pillow()
    with _named(path):
        image = pillow.open(path, formats=FORMATS)
        pixels, most = image.width * image.height, pillow.MAX_IMAGE_PIXELS
        if most is not None and pixels > most:  # Pillow itself would only warn
            image.close()
            raise ValueError(f"{pixels:,} pixels, expected at most {most:,}")
    return image


def load_image(image: "ImageFile", channels: int, scale: int = 1) -> "Image":
    """Decode what :func:`open_image` opened to 8 bits: RGB (``channels`` 3) or luma (1).

    Palettes and CMYK are converted, transparent pixels are laid on white, 16-bit greys keep their
    upper 8 bits, and an animation gives its first frame. A JPEG is decoded at 1/``scale`` of its
    size (1, 2, 4 or 8; sides are rounded up), other images always in all their pixels. Raises
    ``ImageError`` naming the file when it cannot be decoded.
    """
    with _named(str(image.filename)), image:
        if scale > 1:
            image.draft(None, (max(image.width // scale, 1), max(image.height // scale, 1)))
        image.load()
        return _to_8_bits(image, "L" if channels == 1 else "RGB")


def decode(path: str | Path, channels: int) -> "Image":
    """Both in one.

    >>> decode("no/such/image.png", channels=3)
    Traceback (most recent call last):
    ...
    minidl.errors.ImageError: no/such/image.png: unreadable image (No such file or directory)
    """
    return load_image(open_image(path), channels)


def cut(image: "Image", size: int, box: Box) -> np.ndarray:
    """Bring a box of a decoded image to ``size`` x ``size``, uint8 (C, size, size).

    Bilinear, with averaging when the box shrinks; its sides may lie between pixels.

    >>> from PIL import Image
    >>> cut(Image.new("RGB", (60, 40), (255, 0, 0)), 8, (12.5, 2.5, 47.5, 37.5))[:, 0, 0]
    array([255,   0,   0], dtype=uint8)
    """
    resized = image.resize((size, size), _pillow().Resampling.BILINEAR, box=box)
    # Band by band, as Pillow leaves out the others faster than NumPy transposes.
    bands = [resized.tobytes("raw", band) for band in resized.getbands()]
    return np.frombuffer(bytearray().join(bands), np.uint8).reshape(len(bands), size, size)


def load_and_cut(image: "ImageFile", channels: int, size: int, box: Box) -> np.ndarray:
    """:func:`cut` out of what :func:`open_image` opened, sparing what it would only average away.

    A JPEG is decoded at the least scale that leaves ``size`` pixels to the box's shorter side: of
    its 8 x 8 frequencies libjpeg then takes the lowest, for values that differ a little.
    """
    left, top, right, bottom = box
    largest = min(right - left, bottom - top) / size
    scale = max(scale for scale in (1, 2, 4, 8) if scale <= max(largest, 1))
    stored = image.size
    loaded = load_image(image, channels, scale)
    if loaded.size != stored:
        box = left / scale, top / scale, right / scale, bottom / scale
    return cut(loaded, size, box)


def pad(images: np.ndarray, size: int) -> np.ndarray:
    """Images (N, C, H, W) with zeros around them, (N, C, size, size), if few pixels are missing.

    Where a side is too long or lacks more than 4 pixels they come back as they are.

    >>> pad(np.ones((1, 1, 27, 28)), 31).shape, pad(np.ones((1, 1, 27, 28)), 32).shape
    ((1, 1, 31, 31), (1, 1, 27, 28))
    """
    rows, columns = (size - side for side in images.shape[2:])
    if not (0 <= rows <= MAX_PADDING and 0 <= columns <= MAX_PADDING) or rows == columns == 0:
        return images
    top, left = rows // 2, columns // 2  # the odd one comes last
    return np.pad(images, ((0, 0), (0, 0), (top, rows - top), (left, columns - left)))


def resize(images: np.ndarray, size: int, boxes: Sequence[Box | None] | None = None) -> np.ndarray:
    """Images (N, C, H, W), uint8 or float32, resized to (N, C, size, size): bilinear, averaging
    to shrink.

    ``boxes`` says which part of each image; None is all of it.

    >>> resize(np.array([[[[0, 100]] * 2]], np.uint8), 1).tolist()
    [[[[50]]]]
    """
    boxes = [None] * len(images) if boxes is None else boxes
    if images.shape[2:] == (size, size) and not any(boxes):
        return images
    pillow = _pillow()
    resized = np.empty((*images.shape[:2], size, size), images.dtype)
    for image, target, box in zip(images, resized, boxes, strict=True):
        for plane, target_plane in zip(np.ascontiguousarray(image), target, strict=True):
            target_plane[...] = pillow.fromarray(plane).resize(
                (size, size), pillow.Resampling.BILINEAR, box=box
            )
    return resized


def to_luma(images: np.ndarray) -> np.ndarray:
    """Colour images (N, 3, H, W) uint8 to luma (N, 1, H, W): ITU-R 601-2, rounded, as Pillow's.

    >>> to_luma(np.full((1, 3, 1, 1), 200, np.uint8)).item()
    200
    """
    luma = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    weights = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587, 0.114 in 16.16 fixed point
    for start in range(0, len(images), 1000):  # in parts: the sums take 4 bytes a pixel
        part = slice(start, start + 1000)
        sums = np.einsum("c,nchw->nhw", weights, images[part], dtype=np.uint32, casting="safe")
        luma[part, 0] = (sums + 0x8000) >> 16
    return luma


def _to_8_bits(image: "Image", mode: str) -> "Image":
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16-bit greys, which convert() would clip at 255
        upper = np.asarray(image) >> 8
        if image.mode == "I" and not 0 <= upper.min() <= upper.max() <= 255:
            raise ValueError("32-bit pixels have no fixed range, expected 8 or 16 bits")
        return _pillow().fromarray(upper.astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range, expected 8 or 16 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = _pillow().new("RGBA", rgba.size, "white")
        image = _pillow().alpha_composite(white, rgba)
    return image.convert(mode)


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Whatever Pillow says of a file, as an ``ImageError`` that names it."""
    try:
        yield
    except _pillow().UnidentifiedImageError as error:
        raise ImageError(f"{path}: unreadable image (not a format that Pillow knows)") from error
    # Damaged files make Pillow's decoders raise anything from OSError to KeyError.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = textwrap.shorten(reason, 200, placeholder=" ...")
        raise ImageError(f"{path}: unreadable image ({reason})") from error


def _pillow():  # type: ignore[no-untyped-def]  # a module that is only there at run time
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("reading and resizing images needs Pillow: pip install pillow") from error
    # Here, as Image.open would only import them in the one of several threads that comes first.
    from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401

    return Image
