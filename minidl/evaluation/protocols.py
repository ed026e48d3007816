"""Protocols: which parts of a test image a network is shown, at which sizes, and mirrored or not.

==============  ===================================================================================
`centre`        the image as training's own evaluation shows it, or with scales its centre
`5-crop`        the centre and the four corners
`10-crop`       those and their mirror images (Krizhevsky et al., NIPS 2012, section 4.1)
`multi-scale`   the centre at three scales (those of Simonyan, Zisserman, ICLR 2015, section 4.2)
`dense`         the whole image, by a network turned fully convolutional (same paper, section 3.2)
==============  ===================================================================================

The probabilities of all views of an image are averaged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

PROTOCOLS = ("centre", "5-crop", "10-crop", "multi-scale", "dense")

# What the shorter side of an image is brought to for a network that takes 224 x 224.
NATIVE = 224
SCALE = 256
THREE_SCALES = (224, 256, 288)


@dataclass(frozen=True)
class Protocol:
    """How a test image is shown to a network.

    Args:
        name: one of PROTOCOLS.
        scales: sides, in pixels, that the shorter side of an image is brought to; every view is
            taken at each of them. By default 256 for networks that take 224, and in proportion for
            others; 224, 256 and 288 for `multi-scale`; none for `centre`.
        flip: whether each view is shown mirrored as well; `10-crop` does it anyway.

    Raises:
        ValueError: the name is unknown, or a scale is not positive or given twice.

    >>> Protocol("10-crop").describe(224)
    '10-crop of 224 out of 256'
    >>> Protocol("multi-scale", flip=True).describe(32)
    'multi-scale of 32 out of 32, 37, 41, mirrored too'
    """

    name: str = "centre"
    scales: tuple[int, ...] = ()
    flip: bool = False

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.name!r}")
        if min(self.scales, default=1) < 1 or len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales must be positive and different, got {self.scales}")

    @property
    def mirrors(self) -> bool:
        """Whether each view is shown mirrored as well."""
        return self.flip or self.name == "10-crop"

    def sides(self, image_size: int) -> tuple[int, ...]:
        """What the shorter side of an image becomes, for a network that takes `image_size`.

        Empty for the image as training's evaluation shows it.

        Raises:
            ValueError: a scale is smaller than `image_size`.

        >>> Protocol("10-crop").sides(224), Protocol("10-crop").sides(32), Protocol().sides(32)
        ((256,), (37,), ())
        """
        if self.scales or self.name == "centre":
            if min(self.scales, default=image_size) < image_size:
                raise ValueError(
                    f"scale {min(self.scales)} is smaller than the images of the network, "
                    f"{image_size}x{image_size}"
                )
            return self.scales
        wanted = THREE_SCALES if self.name == "multi-scale" else (SCALE,)
        return tuple(round(image_size * side / NATIVE) for side in wanted)

    def count(self, image_size: int) -> int:
        """How many views of an image there are.

        >>> [Protocol(name).count(224) for name in PROTOCOLS]
        [1, 5, 10, 3, 1]
        """
        places = 5 if self.name in ("5-crop", "10-crop") else 1
        return max(1, len(self.sides(image_size))) * places * (2 if self.mirrors else 1)

    def describe(self, image_size: int) -> str:
        """The protocol in words, for a network that takes `image_size`."""
        text = self.name
        if sides := self.sides(image_size):
            listed = ", ".join(map(str, sides))
            text += f" at {listed}" if self.name == "dense" else f" of {image_size} out of {listed}"
        return f"{text}, mirrored too" if self.flip and self.name != "10-crop" else text

    def views(
        self, images: Sequence[np.ndarray], size: int
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """The views of images (C, H, W) at one scale, in stacks (n, C, h, w) of one shape.

        Yields which images a stack shows, and the stack: crops of size x size of all images, or
        for `dense` the whole of those that have one shape. First comes the centre, then top left,
        top right, bottom left, bottom right, then the mirror images in the same order.

        >>> image = np.arange(9).reshape(1, 3, 3)
        >>> [view.item() for _, view in Protocol("5-crop").views([image], 1)]
        [4, 0, 2, 6, 8]
        """
        for mirrored in (False, True) if self.mirrors else (False,):
            for which, stack in (
                self._whole(images) if self.name == "dense" else self._crops(images, size)
            ):
                yield which, stack[..., ::-1] if mirrored else stack

    def _crops(
        self, images: Sequence[np.ndarray], size: int
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        # Down and across, in halves of the room that there is; the odd pixel is below and right.
        places = [(1, 1)]
        if self.name in ("5-crop", "10-crop"):
            places += [(0, 0), (0, 2), (2, 0), (2, 2)]
        for down, across in places:
            crops = []
            for image in images:
                top = (image.shape[1] - size) * down // 2
                left = (image.shape[2] - size) * across // 2
                crops.append(image[:, top : top + size, left : left + size])
            yield list(range(len(images))), np.stack(crops)

    def _whole(self, images: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
        shapes = [image.shape for image in images]
        for shape in dict.fromkeys(shapes):
            which = [index for index, other in enumerate(shapes) if other == shape]
            yield which, np.stack([images[index] for index in which])
