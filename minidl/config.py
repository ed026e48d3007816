"""Settings of the whole process: `md.config`."""

from difflib import get_close_matches
from typing import Any

from ._kernels.algorithm import (
    get_allow_tf32,
    get_conv_algorithm,
    set_allow_tf32,
    set_conv_algorithm,
)

__all__ = ["Config", "config"]


class Config:
    """What `md.config` offers.

    `conv_algorithm` says how convolutions are computed:

    - "direct": the sum over channels and window as it stands.
    - "winograd": Winograd's F(4x4, 3x3) for 3x3 convolutions with stride 1 in float32 and their
      gradients, with a quarter of the multiplications.
    - "im2col": on a GPU, a product by cuBLAS of the weight and columns that are written to memory.
    - "tensor_core": on a GPU, minidl's own kernels for tensor cores, for float16, bfloat16 and,
      with `allow_tf32`, float32.
    - "auto", the default: the fastest of these, which is decided by a formula of the shapes (on the
      CPU "winograd" needs some 16 channels and some 200 output pixels in a batch), never by a
      measurement: the same program gives the same bits.

    Where the algorithm that is asked for does not apply, the CPU computes directly and a GPU as
    with "auto".

    On data of unit variance Winograd's result differs from the exact one by at most about 2e-6 of
    its norm, the direct one by 4e-7. float64, which gradient checks use, is never transformed.

    `allow_tf32`, False by default, lets a GPU's tensor cores multiply float32 after rounding the
    factors to 11 significant bits (TF32): several times faster, and off by about 5e-4.

    >>> import minidl as md
    >>> md.config.conv_algorithm
    'auto'
    >>> md.config.conv_algorithm = "fft"
    Traceback (most recent call last):
    ...
    ValueError: conv_algorithm: expected one of 'auto', 'direct', 'winograd', ..., got 'fft'
    >>> md.config.conv_algoritm = "direct"
    Traceback (most recent call last):
    ...
    AttributeError: md.config has no setting 'conv_algoritm'; did you mean 'conv_algorithm'?
    """

    def __setattr__(self, name: str, value: Any) -> None:
        settings = [key for key, entry in vars(Config).items() if isinstance(entry, property)]
        if name not in settings:
            near = get_close_matches(name, settings, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(settings)}"
            raise AttributeError(f"md.config has no setting {name!r}; {hint}")
        super().__setattr__(name, value)

    @property
    def conv_algorithm(self) -> str:
        """One of the algorithms that the class lists."""
        return get_conv_algorithm()

    @conv_algorithm.setter
    def conv_algorithm(self, name: str) -> None:
        set_conv_algorithm(name)

    @property
    def allow_tf32(self) -> bool:
        """Whether a GPU may round the factors of float32 products to TF32; see the class."""
        return get_allow_tf32()

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        set_allow_tf32(allow)

    def __repr__(self) -> str:
        return f"Config(conv_algorithm={self.conv_algorithm!r}, allow_tf32={self.allow_tf32!r})"


config = Config()
