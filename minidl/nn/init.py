"""Initialisers: where the weights of a layer start.

The variance of a weight decides whether signals grow or fade from layer to layer. With n_in inputs
and n_out outputs a unit (fan-in and fan-out; for a convolution channels times window):

    lecun          Var = 1 / n_in              keeps the signal; tanh-like activations
    torch_legacy   Var = 1 / (3 n_in)          the old Torch heuristic: a third of LeCun's rule
    glorot         Var = 2 / (n_in + n_out)    compromise between signal and gradient
    he             Var = 2 / n_in (or n_out)   makes up for the half that ReLU cuts off
    lenet          Var = 1.92 / n_in^2         LeNet-5's, from before these rules

A uniform distribution on [-a, a] has variance a^2 / 3, hence the bounds sqrt(3 Var). Every function
fills a tensor in place from minidl's generator (`md.manual_seed`) and returns it. Functions that
need fans raise ValueError for a tensor with less than two axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import random
from .._kernels.shapes import ShapeArray
from ..autograd import no_grad
from ..tensor import Tensor


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan-in, fan-out) of a weight (out, in) or (out, in, R, S).

    A grouped convolution's weight is (out, in/groups, R, S): its fan-in is right, its fan-out
    counts all groups, as in PyTorch.

    Raises:
        ValueError: if the tensor has less than two axes.

    >>> import minidl as md
    >>> fans(md.empty(64, 3, 7, 7))
    (147, 3136)
    """
    if tensor.ndim < 2:
        raise ValueError(f"fans: a weight needs at least 2 axes, got shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"he initialiser: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan_in, fan_out = fans(tensor)
    return fan_in if mode == "fan_in" else fan_out


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with samples of the normal distribution of this mean and standard deviation.

    >>> import minidl as md
    >>> md.manual_seed(0)
    >>> round(float(normal_(md.empty(10000), std=0.01).data.std()), 3)
    0.01
    """
    if std < 0.0:
        raise ValueError(f"normal_: std must be >= 0, got {std}")
    if isinstance(tensor.data, ShapeArray):
        return tensor  # has no values, and drawing them takes time
    sample = random.generator().standard_normal(tensor.shape, dtype=_sampled(tensor))
    sample *= std  # in place: the first classifier layer of VGG has 100 million weights
    if mean != 0.0:
        sample += mean
    return _fill(tensor, sample)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Fill with samples of the normal distribution, those outside [a, b] drawn again.

    The standard deviation is that of the whole distribution; between -2 std and 2 std the samples
    have 0.88 of it.

    Raises:
        ValueError: if std is negative, or [a, b] lies more than 2 std from the mean, where drawing
            again would take long.

    >>> import minidl as md
    >>> md.manual_seed(0)
    >>> sample = trunc_normal_(md.empty(10000), std=0.1, a=-0.2, b=0.2).data
    >>> round(float(abs(sample).max()), 2), round(float(sample.std()), 3)
    (0.2, 0.088)
    """
    if std < 0.0 or not (a <= mean + 2.0 * std and mean - 2.0 * std <= b and a < b):
        raise ValueError(
            f"trunc_normal_: expected std >= 0 and bounds a < b around the mean, got mean {mean}, "
            f"std {std}, a {a}, b {b}"
        )
    if isinstance(tensor.data, ShapeArray):
        return tensor
    sample = random.generator().standard_normal(tensor.shape, dtype=_sampled(tensor))
    sample *= std
    sample += mean
    while (outside := (sample < a) | (sample > b)).any():
        count = int(outside.sum())
        sample[outside] = mean + std * random.generator().standard_normal(count, sample.dtype)
    return _fill(tensor, sample)


def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Fill with samples of the uniform distribution on [low, high).

    >>> import minidl as md
    >>> float(uniform_(md.empty(1000), -0.5, 0.5).data.min()) >= -0.5
    True
    """
    if high < low:
        raise ValueError(f"uniform_: low must not exceed high, got {low} and {high}")
    if isinstance(tensor.data, ShapeArray):
        return tensor
    sample = random.generator().random(tensor.shape, dtype=_sampled(tensor))
    sample *= high - low
    sample += low
    return _fill(tensor, sample)


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one value.

    >>> import minidl as md
    >>> constant_(md.empty(2), 0.5).data.tolist()
    [0.5, 0.5]
    """
    with no_grad():
        tensor.fill_(value)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def lecun_normal_(tensor: Tensor) -> Tensor:
    """Normal, Var = 1 / fan-in: for normalised inputs and tanh-like activations.

    Source: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.6.

    >>> import minidl as md
    >>> md.manual_seed(0)
    >>> round(float(lecun_normal_(md.empty(100, 400)).data.std()), 3)
    0.05
    """
    return normal_(tensor, std=math.sqrt(1.0 / fans(tensor)[0]))


def lecun_uniform_(tensor: Tensor) -> Tensor:
    """Uniform on +-sqrt(3 / fan-in): Var = 1 / fan-in. Source: see `lecun_normal_`."""
    return _symmetric(tensor, 1.0 / fans(tensor)[0])


def torch_legacy_uniform_(tensor: Tensor) -> Tensor:
    """Uniform on +-1 / sqrt(fan-in): Var = 1 / (3 fan-in), too small by a factor of three.

    The heuristic of old Torch, which looks like LeCun's rule and is not: signals fade by sqrt(3) a
    layer. Still the default of PyTorch's Conv2d and Linear.

    Source: Glorot, Bengio, AISTATS 2010, equation 1, where it is the baseline.
    """
    return _symmetric(tensor, 1.0 / (3.0 * fans(tensor)[0]))


def glorot_normal_(tensor: Tensor) -> Tensor:
    """Normal, Var = 2 / (fan-in + fan-out).

    Source: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, equation 12.
    """
    return normal_(tensor, std=math.sqrt(2.0 / sum(fans(tensor))))


def glorot_uniform_(tensor: Tensor) -> Tensor:
    """Uniform on +-sqrt(6 / (fan-in + fan-out)): Var = 2 / (fan-in + fan-out).

    Source: Glorot, Bengio, AISTATS 2010, equation 16.
    """
    return _symmetric(tensor, 2.0 / sum(fans(tensor)))


def he_normal_(tensor: Tensor, mode: str = "fan_in") -> Tensor:
    """Normal, Var = 2 / fan: for ReLU, with fan-in (forward) or fan-out (backward).

    Raises:
        ValueError: if `mode` is neither "fan_in" nor "fan_out".

    Source: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, equations 10 and 14.

    >>> import minidl as md
    >>> md.manual_seed(0)
    >>> round(float(he_normal_(md.empty(100, 200)).data.std()), 2)
    0.1
    """
    return normal_(tensor, std=math.sqrt(2.0 / _fan(tensor, mode)))


def he_uniform_(tensor: Tensor, mode: str = "fan_in") -> Tensor:
    """Uniform on +-sqrt(6 / fan): Var = 2 / fan. Source and errors: see `he_normal_`."""
    return _symmetric(tensor, 2.0 / _fan(tensor, mode))


def lenet_uniform_(tensor: Tensor) -> Tensor:
    """Uniform on +-2.4 / fan-in.

    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998, appendix A.
    """
    return _symmetric(tensor, 2.4**2 / (3.0 * fans(tensor)[0] ** 2))


xavier_normal_ = glorot_normal_
xavier_uniform_ = glorot_uniform_
kaiming_normal_ = he_normal_
kaiming_uniform_ = he_uniform_


def _symmetric(tensor: Tensor, variance: float) -> Tensor:
    bound = math.sqrt(3.0 * variance)
    return uniform_(tensor, -bound, bound)


def _sampled(tensor: Tensor) -> Any:
    """The precision of the samples: the generator makes float32 and float64 only."""
    return np.float64 if tensor.dtype == np.float64 else np.float32


def _fill(tensor: Tensor, sample: np.ndarray) -> Tensor:
    with no_grad():
        tensor.copy_(Tensor(sample))
    return tensor
