"""How a convolution's window moves."""

from typing import NamedTuple

from ..geometry import Padding, Pair

__all__ = ["Window"]


class Window(NamedTuple):
    """What a convolution's shapes do not tell."""

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def is_pointwise(self, weight_shape: tuple[int, ...]) -> bool:
        """Whether the convolution is a plain product: 1x1, stride 1, no padding."""
        unmoved = self.stride == (1, 1) and self.padding == (0, 0, 0, 0)
        return unmoved and weight_shape[2:] == (1, 1)

    def is_winograds(self, weight_shape: tuple[int, ...]) -> bool:
        """Whether Winograd's F(4x4, 3x3) can compute it."""
        plain = self.stride == (1, 1) and self.dilation == (1, 1) and self.groups == 1
        return plain and weight_shape[2:] == (3, 3)
