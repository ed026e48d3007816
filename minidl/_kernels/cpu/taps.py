"""Through which taps of the window a convolution and its input gradient see their pixels.

Tables for the loops of conv.pyx and its siblings, made once for each shape.
"""

from functools import lru_cache
from operator import itemgetter

import numpy as np

from ..geometry import Padding, Pair
from .planes import Planes

__all__ = [
    "all_gradient_planes",
    "forward_planes",
    "forward_taps",
    "gradient_planes",
    "joint_gradient_planes",
]

Array = np.ndarray


@lru_cache(256)
def forward_taps(kernel_size: Pair, padding: Padding, dilation: Pair) -> Array:
    """Rows (dy, dx, offset in the window) of a forward pass, in row-major order of the window."""
    r, s = np.indices(kernel_size)
    dy = r * dilation[0] - padding[0]
    dx = s * dilation[1] - padding[2]
    taps = np.stack([dy, dx, r * kernel_size[1] + s], axis=-1).reshape(-1, 3)  # (R*S, 3)
    return np.ascontiguousarray(taps, dtype=np.intp)


def _phase_taps(
    kernel_size: Pair, stride: Pair, padding: Padding, dilation: Pair, phase: Pair
) -> Array:
    """Taps through which the input pixels `phase + i * stride` see the output's gradient.

    Output p reads input h through r where p * stride = h + padding - r * dilation, so for one
    phase only the r that make the right side divisible take part.
    """
    rows = [
        (phase[0] + padding[0] - r * dilation[0], r)
        for r in range(kernel_size[0])
        if (phase[0] + padding[0] - r * dilation[0]) % stride[0] == 0
    ]
    cols = [
        (phase[1] + padding[2] - s * dilation[1], s)
        for s in range(kernel_size[1])
        if (phase[1] + padding[2] - s * dilation[1]) % stride[1] == 0
    ]
    taps = [
        (y // stride[0], x // stride[1], r * kernel_size[1] + s) for y, r in rows for x, s in cols
    ]
    taps.sort(key=itemgetter(2))  # as the weights lie in memory
    return np.array(taps, dtype=np.intp).reshape(-1, 3)


@lru_cache(1024)
def forward_planes(
    image: Pair, kernel_size: Pair, pixels: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Planes:
    return Planes(forward_taps(kernel_size, padding, dilation), image, pixels, stride)


@lru_cache(1024)
def gradient_planes(
    image: Pair, kernel_size: Pair, pixels: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[list[tuple[Pair, Planes]], bool]:
    """For each phase of the input its first pixel and the planes of dy (`pixels`).

    And whether every pixel of the input is in one of them; others no window has seen.
    """
    parts, covered = [], 0
    for phase in np.ndindex(min(stride[0], image[0]), min(stride[1], image[1])):
        taps = _phase_taps(kernel_size, stride, padding, dilation, phase)
        if len(taps):
            size = (-(-(image[0] - phase[0]) // stride[0]), -(-(image[1] - phase[1]) // stride[1]))
            parts.append((phase, Planes(taps, pixels, size, (1, 1))))
            covered += size[0] * size[1]
    return parts, covered == image[0] * image[1]


@lru_cache(1024)
def all_gradient_planes(
    image: Pair, kernel_size: Pair, pixels: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[Planes, Array]:
    """Planes of dy (`pixels`) for the taps of all phases of the input; where those of each end."""
    taps = [
        _phase_taps(kernel_size, stride, padding, dilation, phase) for phase in np.ndindex(*stride)
    ]
    size = (-(-image[0] // stride[0]), -(-image[1] // stride[1]))
    ends = np.cumsum([len(rows) for rows in taps], dtype=np.intp)
    return Planes(np.concatenate(taps), pixels, size, (1, 1)), ends


@lru_cache(1024)
def joint_gradient_planes(
    image: Pair, kernel_size: Pair, pixels: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[Planes, Array]:
    """Planes of dy (`pixels`) for taps that serve all phases of the input together.

    And the element of the window that each phase (row) sees through each tap (column), R*S if none.
    """
    phases = [
        _phase_taps(kernel_size, stride, padding, dilation, phase) for phase in np.ndindex(*stride)
    ]
    all_taps = np.concatenate(phases)
    taps, which = np.unique(all_taps[:, :2], axis=0, return_inverse=True)
    seen = np.full((len(phases), len(taps)), len(all_taps))
    of_phase = np.repeat(np.arange(len(phases)), [len(rows) for rows in phases])
    seen[of_phase, which.reshape(-1)] = all_taps[:, 2]
    size = (-(-image[0] // stride[0]), -(-image[1] // stride[1]))
    return Planes(np.column_stack([taps, np.arange(len(taps))]), pixels, size, (1, 1)), seen
