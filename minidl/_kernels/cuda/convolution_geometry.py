"""The integers that describe a convolution to the kernels: `struct Convolution`, filled in.

Needs no GPU: everything here is arithmetic on sizes.
"""

from functools import lru_cache
from math import gcd

import numpy as np

from ..geometry import Padding, Pair

__all__ = ["CONVOLUTION", "forward_geometry", "input_grad_geometries"]

FIELDS = """
    n groups channels height width filters out_height out_width rows cols
    row0 row_step col0 col_step stride_h stride_w window_rows window_cols
    dy0 ddy dx0 ddx tap0 tap_row tap_col weight_group weight_out weight_in
"""
# `struct Convolution` of convolution.cuh.
CONVOLUTION = np.dtype([(name, np.int32) for name in FIELDS.split()])

Shape = tuple[int, ...]


@lru_cache(1024)
def forward_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    output_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """The sum of a forward pass, and the one that a weight gradient transposes.

    x (N, C, H, W), weight (K, C/groups, R, S) -> y (N, K, P, Q).
    """
    n, _, h, w = input_shape
    k, c_per_group, r, s = weight_shape
    return _record(
        n=n,
        groups=groups,
        channels=c_per_group,
        height=h,
        width=w,
        filters=k // groups,
        out_height=output_size[0],
        out_width=output_size[1],
        rows=output_size[0],
        cols=output_size[1],
        row_step=1,
        col_step=1,
        stride_h=stride[0],
        stride_w=stride[1],
        window_rows=r,
        window_cols=s,
        dy0=-padding[0],
        ddy=dilation[0],
        dx0=-padding[2],
        ddx=dilation[1],
        tap_row=s,
        tap_col=1,
        weight_group=k // groups * c_per_group * r * s,
        weight_out=c_per_group * r * s,
        weight_in=r * s,
    )


@lru_cache(1024)
def input_grad_geometries(
    output_shape: Shape,
    weight_shape: Shape,
    input_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> list[np.ndarray]:
    """The sums of an input gradient, dy (N, K, P, Q) -> dx (N, C, H, W): one a residue of strides.

    Output p read input h through the tap r where p * stride = h + padding - r * dilation. For the
    inputs of one residue h mod stride only every (stride / gcd(stride, dilation))-th r divides
    evenly. Residues that no tap meets are left out: their dx is 0.
    """
    n, _, p, q = output_shape
    k, c_per_group, r, s = weight_shape
    rows = _residues(r, input_size[0], stride[0], padding[0], dilation[0])
    cols = _residues(s, input_size[1], stride[1], padding[2], dilation[1])
    return [
        _record(
            n=n,
            groups=groups,
            channels=k // groups,
            height=p,
            width=q,
            filters=c_per_group,
            out_height=input_size[0],
            out_width=input_size[1],
            rows=-(-(input_size[0] - row0) // stride[0]),
            cols=-(-(input_size[1] - col0) // stride[1]),
            row0=row0,
            row_step=stride[0],
            col0=col0,
            col_step=stride[1],
            stride_h=1,
            stride_w=1,
            window_rows=row_taps,
            window_cols=col_taps,
            dy0=dy0,
            ddy=ddy,
            dx0=dx0,
            ddx=ddx,
            tap0=first_r * s + first_s,
            tap_row=r_step * s,
            tap_col=s_step,
            weight_group=k // groups * c_per_group * r * s,
            weight_out=r * s,
            weight_in=c_per_group * r * s,
        )
        for row0, row_taps, first_r, r_step, dy0, ddy in rows
        for col0, col_taps, first_s, s_step, dx0, ddx in cols
    ]


def _residues(
    window: int, size: int, stride: int, before: int, dilation: int
) -> list[tuple[int, int, int, int, int, int]]:
    """(residue, number of taps, first tap, step of taps, first source, step of source).

    >>> _residues(window=3, size=8, stride=2, before=1, dilation=1)
    [(0, 1, 1, 2, 0, -1), (1, 2, 0, 2, 1, -1)]
    """
    step = stride // gcd(stride, dilation)
    found = []
    for residue in range(min(stride, size)):
        taps = [r for r in range(window) if (residue + before - r * dilation) % stride == 0]
        if taps:
            source = (residue + before - taps[0] * dilation) // stride
            found.append((residue, len(taps), taps[0], step, source, -step * dilation // stride))
    return found


def _record(**fields: int) -> np.ndarray:
    """A structure by value; fields that are not named are 0. ValueError if one has over 31 bits."""
    too_large = {name: value for name, value in fields.items() if abs(value) >= 1 << 31}
    if too_large:
        raise ValueError(f"conv2d: sizes on the GPU must be below 2**31, got {too_large}")
    record = np.zeros((), CONVOLUTION)
    for name, value in fields.items():
        record[name] = value
    record.flags.writeable = False  # it is kept for the next call
    return record
