"""Mistakes in the gradients of pooling: x (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._kernels import array_namespace, kernels_for
from ..._kernels.geometry import pair
from ..diagnosis import Mistake

__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "max_pool2d"]


def max_pool2d(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> list[Mistake]:
    """Mistakes in the gradient of `F.max_pool2d(x, ...)`; arguments as there."""
    window = _window("max_pool2d", kernel_size, stride, padding, ceil_mode)

    def by_masks(mask: Callable[..., Any], add: bool = True) -> Callable[..., Any]:
        def backward(dy: Any, x: Any) -> Any:
            return _spread(dy, x, window, mask, add)

        return backward

    return [
        Mistake(
            "ties receive the gradient more than once",
            by_masks(lambda part, largest: part == largest),
            "one of several equal winners takes it all: use argmax, not ==",
        ),
        Mistake(
            "where windows overlap, the last one wins",
            by_masks(_first_winner, add=False),
            "a winner of several windows receives the sum: += instead of =",
        ),
        Mistake(
            "the gradient is spread over the whole window",
            by_masks(lambda part, largest: array_namespace(part).ones_like(part) / part.size),
            "only the winner had a part in the output",
        ),
        Mistake(
            "the first element of a window takes the gradient",
            by_masks(lambda part, largest: _only_first(part)),
            "the winner takes it: remember where it was",
        ),
        Mistake(
            "the losers take the gradient",
            by_masks(lambda part, largest: part != largest),
            "the mask is the wrong way round",
        ),
        Mistake(
            "the upstream gradient is ignored",
            lambda dy, x: _spread(dy * 0 + 1, x, window, _first_winner, True),
            "the winner receives what came from upstream",
        ),
        Mistake(
            "channels take the winners of the first channel",
            lambda dy, x: _spread(
                dy, array_namespace(x).repeat(x[:, :1], x.shape[1], 1), window, _first_winner, True
            ),
            "every channel has winners of its own",
        ),
    ]


def avg_pool2d(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> list[Mistake]:
    """Mistakes in the gradient of `F.avg_pool2d(x, ...)`; arguments as there."""
    window = _window("avg_pool2d", kernel_size, stride, padding, ceil_mode)
    r, s = window["kernel_size"]

    def right(dy: Any, x: Any, counted: bool = count_include_pad) -> Any:
        return kernels_for(x).avg_pool2d_backward(dy, x.shape, **window, count_include_pad=counted)

    mistakes = [
        Mistake(
            "not divided by the size of the window",
            lambda dy, x: right(dy, x) * (r * s),
            "the derivative of a mean of n is 1/n",
        ),
        Mistake(
            "divided by the size of the image",
            lambda dy, x: right(dy, x) * (r * s) / (x.shape[2] * x.shape[3]),
            "divide by the size of the window",
        ),
        Mistake(
            "where windows overlap, the last one wins",
            lambda dy, x: _spread(
                dy, x, window, lambda part, _: array_namespace(part).ones_like(part) / (r * s),
                add=False,
            ),
            "an element of several windows receives the sum: += instead of =",
        ),
        Mistake(
            "the largest element takes the gradient",
            lambda dy, x: _spread(dy, x, window, _first_winner, True),
            "this is max pooling's gradient; a mean shares out evenly",
        ),
    ]  # fmt: skip
    if window["padding"] != (0, 0):
        mistakes.append(
            Mistake(
                "padding counted in the divisor the wrong way",
                lambda dy, x: right(dy, x, not count_include_pad),
                "count_include_pad decides, on the way back as on the way there",
            )
        )
    return mistakes


def adaptive_avg_pool2d(output_size: Any) -> list[Mistake]:
    """Mistakes in the gradient of `F.adaptive_avg_pool2d(x, output_size)`."""
    p, q = pair("adaptive_avg_pool2d", "output_size", output_size)

    def right(dy: Any, x: Any) -> Any:
        return kernels_for(x).adaptive_avg_pool2d_backward(dy, x.shape)

    return [
        Mistake(
            "not divided by the size of the window",
            lambda dy, x: right(dy, x) * (x.shape[2] * x.shape[3] / (p * q)),
            "the derivative of a mean of n is 1/n",
        ),
        Mistake(
            "divided by the size of the output",
            lambda dy, x: right(dy, x) * (x.shape[2] * x.shape[3] / (p * q) ** 2),
            "divide by the number of elements in the window",
        ),
        Mistake(
            "the gradient is spread over the whole image",
            lambda dy, x: dy.sum((2, 3), keepdims=True) / (x.shape[2] * x.shape[3]) + x * 0,
            "every output has a window of its own",
        ),
    ]


def _window(
    op: str, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> dict[str, Any]:
    size = pair(op, "kernel_size", kernel_size)
    return {
        "kernel_size": size,
        "stride": size if stride is None else pair(op, "stride", stride),
        "padding": pair(op, "padding", padding, minimum=0),
        "ceil_mode": ceil_mode,
    }


def _first_winner(part: Any, largest: Any) -> Any:
    xp = array_namespace(part)
    flat = part.reshape(*part.shape[:2], -1)
    chosen = xp.zeros_like(flat)
    xp.put_along_axis(chosen, flat.argmax(-1)[..., None], 1.0, -1)
    return chosen.reshape(part.shape)


def _only_first(part: Any) -> Any:
    chosen = array_namespace(part).zeros_like(part)
    chosen[:, :, 0, 0] = 1
    return chosen


def _spread(dy: Any, x: Any, window: dict[str, Any], mask: Callable[..., Any], add: bool) -> Any:
    """dy to every window's elements, by what `mask(elements, their maximum)` says."""
    xp = array_namespace(x)
    (r, s), (down, along) = window["kernel_size"], window["stride"]
    top, left = window["padding"]
    dx = xp.zeros_like(x)
    for p in range(dy.shape[2]):
        for q in range(dy.shape[3]):
            i, j = p * down - top, q * along - left
            rows, columns = slice(max(i, 0), i + r), slice(max(j, 0), j + s)
            part = x[:, :, rows, columns]
            largest = part.max((2, 3), keepdims=True)
            share = mask(part, largest) * dy[:, :, p : p + 1, q : q + 1]
            if add:
                dx[:, :, rows, columns] += share
            else:
                here = dx[:, :, rows, columns]
                dx[:, :, rows, columns] = xp.where(share != 0, share, here)
    return dx
