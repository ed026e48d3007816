"""What a convolution does with its sums before it writes them."""

from typing import Any, NamedTuple

__all__ = ["Epilogue", "Moments"]


class Moments(NamedTuple):
    """Where the values of every channel lie, in slots of `length` values, fewer in the last one.

    `parts` (K, slots, 2) holds each slot's mean, and the sum of squared differences from it: one
    slot for each block of the kernel, whose values never leave its registers. Unlike sums and sums
    of squares they lose nothing where the mean is large. Source: Chan, Golub and LeVeque (1979),
    "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    parts: Any
    length: int


class Epilogue(NamedTuple):
    """y = max(sum + bias (K,) + residual (N, K, P, Q), 0), all three optional.

    If there is a list for `moments`, the Moments of y are appended, where its kernel can tell.
    """

    bias: Any | None = None
    residual: Any | None = None
    relu: bool = False
    moments: list[Any] | None = None
