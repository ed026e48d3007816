"""Mistakes in the gradients of normalisation: x (N, C, H, W)."""

from __future__ import annotations

from typing import Any

from ..._kernels import array_namespace
from ..diagnosis import Mistake

__all__ = ["batch_norm", "local_response_norm"]

AXES = (0, 2, 3)


def batch_norm(eps: float = 1e-5) -> list[Mistake]:
    """Mistakes in the gradient of batch norm in training, for inputs (x, weight, bias)."""

    def gradients(
        dy: Any,
        x: Any,
        weight: Any,
        bias: Any,
        axes: tuple[int, ...] = AXES,
        correction: int = 0,
        through_mean: float = 1.0,
        through_variance: float = 1.0,
        scale: bool = True,
        inner_eps: float = eps,
    ) -> Any:
        """The right gradients with the right options, spoilt ones with others."""
        z, inverse_std = _normalised(x, axes, correction, inner_eps)
        dz = dy * weight[:, None, None] if scale else dy
        dx = inverse_std * (
            dz
            - through_mean * dz.mean(axes, keepdims=True)
            - through_variance * z * (dz * z).mean(axes, keepdims=True)
        )
        return dx, (dy * z).sum(AXES), dy.sum(AXES)

    def mistake(name: str, hint: str, **options: Any) -> Mistake:
        return Mistake(name, lambda dy, x, w, b: gradients(dy, x, w, b, **options), hint)

    def spoilt(name: str, hint: str, spoil: Any) -> Mistake:
        return Mistake(name, lambda dy, x, w, b: spoil(dy, x, *gradients(dy, x, w, b)), hint)

    return [
        mistake(
            "the path through the mean is missing",
            "the mean depends on every x: subtract the mean of the gradient",
            through_mean=0.0,
        ),
        mistake(
            "the path through the variance is missing",
            "the variance depends on every x: subtract z * mean(dz * z)",
            through_variance=0.0,
        ),
        mistake(
            "mean and variance are taken for constants",
            "both depend on x; only in evaluation mode are they constants",
            through_mean=0.0,
            through_variance=0.0,
        ),
        mistake(
            "the path through the variance is twice too large",
            "d(z^2) = 2 z dz, but the root of the variance takes the 2 away again",
            through_variance=2.0,
        ),
        mistake(
            "the path through the variance has the wrong sign",
            "a larger variance makes the output smaller",
            through_variance=-1.0,
        ),
        mistake(
            "the variance is divided by N - 1",
            "the batch is divided by the biased variance; the unbiased one is for the running one",
            correction=1,
        ),
        mistake(
            "statistics over the batch only",
            "convolutional batch norm has one mean per channel: over N, H and W",
            axes=(0,),
        ),
        mistake(
            "statistics per image",
            "this is instance norm: average over the batch, too",
            axes=(2, 3),
        ),
        mistake("weight is missing in the gradient of x", "dz = dy * weight", scale=False),
        mistake("eps is left out", "the same inverse root as on the way there", inner_eps=0.0),
        spoilt(
            "the gradient of weight uses x instead of the normalised x",
            "y = weight * z + bias: the factor of weight is z",
            lambda dy, x, dx, dw, db: (dx, (dy * x).sum(AXES), db),
        ),
        spoilt(
            "the gradient of weight is a mean",
            "weight is used at every position: sum",
            lambda dy, x, dx, dw, db: (dx, dw * (x.shape[1] / x.size), db),
        ),
        spoilt(
            "the gradient of bias sees the last sample only",
            "sum over the batch, too",
            lambda dy, x, dx, dw, db: (dx, dw, dy[-1].sum((1, 2))),
        ),
        spoilt(
            "the gradients of weight and bias are swapped",
            "weight multiplies, bias is added",
            lambda dy, x, dx, dw, db: (dx, db, dw),
        ),
        spoilt(
            "the gradient of x is zero",
            "the upstream gradient of ones has gradient zero here, others have not",
            lambda dy, x, dx, dw, db: (dx * 0, dw, db),
        ),
    ]


def _normalised(x: Any, axes: tuple[int, ...], correction: int, eps: float) -> tuple[Any, Any]:
    mean = x.mean(axes, keepdims=True)
    count = x.size / mean.size
    variance = ((x - mean) ** 2).sum(axes, keepdims=True) / (count - correction)
    inverse_std = (variance + eps) ** -0.5
    return (x - mean) * inverse_std, inverse_std


def local_response_norm(
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    alpha_over_n: bool = False,
) -> list[Mistake]:
    """Mistakes in the gradient of `F.local_response_norm(x, ...)`; arguments as there."""
    a = alpha / size if alpha_over_n else alpha
    before, after = size // 2, (size - 1) // 2

    def gradient(
        dy: Any, x: Any, cross: float = 1.0, exponent: float = 1.0, swap: bool = False, a: float = a
    ) -> Any:
        """The right gradient with the right options, a spoilt one with others."""
        scale = _neighbours(x * x, before, after) * a + k
        ends = (before, after) if swap else (after, before)
        spread = _neighbours(dy * x * scale ** (-beta - exponent), *ends)
        return dy * scale**-beta - cross * 2 * a * beta * x * spread

    def mistake(name: str, hint: str, **options: Any) -> Mistake:
        return Mistake(name, lambda dy, x: gradient(dy, x, **options), hint)

    mistakes = [
        mistake(
            "the cross-channel term is missing",
            "x also makes its neighbours smaller, and itself",
            cross=0.0,
        ),
        mistake("the cross-channel term has the wrong sign", "it is subtracted", cross=-1.0),
        mistake(
            "the factor 2 is missing", "the derivative of a square is 2 x", cross=0.5
        ),
        mistake(
            "beta is missing", "the exponent comes down as a factor", cross=1 / beta
        ),
        mistake(
            "the exponent is -beta instead of -beta - 1",
            "deriving a power takes one from the exponent",
            exponent=0.0,
        ),
        Mistake(
            "only the channel itself is looked at",
            lambda dy, x: (
                dy * (_neighbours(x * x, before, after) * a + k) ** -beta
                - 2 * a * beta * x * x * dy
                * (_neighbours(x * x, before, after) * a + k) ** (-beta - 1)
            ),
            "sum over all channels in whose window x is",
        ),
        mistake(
            "alpha is divided by n the wrong way",
            "alpha_over_n decides, on the way back as on the way there",
            a=alpha if alpha_over_n else alpha / size,
        ),
    ]  # fmt: skip
    if before != after:
        mistakes.append(
            mistake(
                "the window is turned round",
                "x is in the windows of channels from c - after to c + before",
                swap=True,
            )
        )
    return mistakes


def _neighbours(x: Any, before: int, after: int) -> Any:
    """For every channel the sum over channels c - before ... c + after."""
    xp = array_namespace(x)
    total = xp.zeros_like(x)
    channels = x.shape[1]
    for offset in range(-before, after + 1):
        low, high = max(0, -offset), min(channels, channels - offset)
        if low < high:
            total[:, low:high] += x[:, low + offset : high + offset]
    return total
