"""Settings of the whole process: `md.config`."""

from ._kernels.cpu.algorithm import get_conv_algorithm, set_conv_algorithm

__all__ = ["Config", "config"]


class Config:
    """What `md.config` offers.

    `conv_algorithm` says how convolutions are computed:

    - "direct": the sum over channels and window as it stands.
    - "winograd": Winograd's F(4x4, 3x3) for 3x3 convolutions with stride 1 in float32 and their
      gradients, with a quarter of the multiplications; "direct" for all others.
    - "auto", the default: "winograd" where it is faster, which is decided by a formula of the
      shapes (it needs some 32 channels and some 1,000 output pixels in a batch), never by a
      measurement: the same program gives the same bits.

    On data of unit variance Winograd's result differs from the exact one by at most about 2e-6 of
    its norm, the direct one by 3e-7. float64, which gradient checks use, is always direct.

    >>> import minidl as md
    >>> md.config.conv_algorithm
    'auto'
    >>> md.config.conv_algorithm = "fft"
    Traceback (most recent call last):
    ...
    ValueError: conv_algorithm: expected one of 'auto', 'direct', 'winograd', got 'fft'
    """

    @property
    def conv_algorithm(self) -> str:
        """One of "auto", "direct" and "winograd"; see the class."""
        return get_conv_algorithm()

    @conv_algorithm.setter
    def conv_algorithm(self, name: str) -> None:
        set_conv_algorithm(name)

    def __repr__(self) -> str:
        return f"Config(conv_algorithm={self.conv_algorithm!r})"


config = Config()
