"""Mistakes in the gradients of a convolution: x (N, C, H, W), weight (K, C/groups, R, S), bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._kernels import array_namespace, kernels_for
from ..._kernels.geometry import Pair, conv_output_size, conv_padding, pair
from ..diagnosis import Mistake

__all__ = ["conv2d"]


def conv2d(stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> list[Mistake]:
    """Mistakes in the gradient of `F.conv2d(x, weight, bias, ...)`; arguments as there."""
    layer = _Layer(pair("conv2d", "stride", stride), padding, pair("conv2d", "dilation", dilation),
                   groups)  # fmt: skip
    top, left = layer.before
    mistakes = [
        Mistake(
            "overlapping windows overwrite each other",
            layer.change_dx(layer.last_window_wins),
            "an input in several windows receives the sum of what they send: += instead of =",
        ),
        Mistake(
            "the kernel is flipped in the gradient of x",
            layer.with_kernel(lambda w: w[..., ::-1, ::-1]),
            "what was multiplied by weight[r, s] on the way there is so on the way back; only a "
            "formulation as a convolution of the padded upstream gradient flips the kernel",
        ),
        Mistake(
            "height and width of the kernel are swapped",
            layer.with_kernel(lambda w: w.swapaxes(2, 3).reshape(w.shape)),
            "keep (r, s) in one order",
        ),
        Mistake(
            "the gradient of the weight is flipped",
            layer.change_dw(lambda dw, *_: dw[..., ::-1, ::-1]),
            "dweight[r, s] collects dy[p, q] * x[p * stride + r, q * stride + s]",
        ),
        Mistake(
            "the weight sees the last sample only",
            lambda dy, x, w, b=None: layer.gradients(dy, x, w, b, dw=layer.dw(dy[-1:], x[-1:], w)),
            "add up over the batch: dweight +=, not =",
        ),
        Mistake(
            "the weight's gradient is a mean over the batch",
            layer.change_dw(lambda dw, dy, *_: dw / len(dy)),
            "dividing by N is the loss's affair",
        ),
        Mistake(
            "the weight's gradient is a mean over positions",
            layer.change_dw(lambda dw, dy, *_: dw / (dy.shape[2] * dy.shape[3])),
            "one weight is used at every position: its gradients add up",
        ),
        Mistake(
            "the bias sees the last sample only",
            layer.change_db(lambda db, dy: dy[-1].sum((1, 2))),
            "sum over the batch, too: dy.sum((0, 2, 3))",
        ),
        Mistake(
            "the bias's gradient is a mean",
            layer.change_db(lambda db, dy: dy.mean((0, 2, 3))),
            "the bias is added at every position: sum",
        ),
        Mistake(
            "the bias's gradient is one sum over all channels",
            layer.change_db(lambda db, dy: db * 0 + dy.sum()),
            "every output channel has its own bias: leave axis 1 out of the sum",
        ),
        Mistake(
            "the upstream gradient is ignored",
            lambda dy, x, w, b=None: layer.gradients(dy * 0 + 1, x, w, b),
            "every term has dy as a factor",
        ),
        Mistake(
            "the gradient of x is left out",
            layer.change_dx(lambda dx, *_: dx * 0),
            "the layers below learn nothing without it",
        ),
    ]
    if (top, left) != (0, 0):
        mistakes += [
            Mistake(
                "the padding is not cut off the gradient of x",
                layer.change_dx(lambda dx, *_: _moved(dx, top, left)),
                "the gradient of the padded image begins at (-top, -left)",
            ),
            Mistake(
                "the weight's gradient forgets the padding",
                lambda dy, x, w, b=None: layer.gradients(
                    dy, x, w, b, dw=layer.dw(dy, _moved(x, -top, -left), w)
                ),
                "dweight sees the padded image, as the forward pass does",
            ),
        ]
    if layer.stride != (1, 1):
        mistakes.append(
            Mistake(
                "the stride is ignored",
                layer.as_if_stride_were_one,
                "output (p, q) looks at rows from p * stride, not from p",
            )
        )
    if layer.dilation != (1, 1):
        mistakes.append(
            Mistake(
                "the dilation is ignored",
                layer.as_if_not_dilated,
                "weight (r, s) looks at row p * stride + r * dilation",
            )
        )
    if groups > 1:
        mistakes.append(
            Mistake(
                "the groups are taken in the wrong order",
                layer.change_dx(lambda dx, *_: _grouped(dx, groups)),
                "input channels g * C / groups ... belong to group g",
            )
        )
    return mistakes


class _Layer:
    """The right gradients, and ways to spoil one of them."""

    def __init__(self, stride: Pair, padding: Any, dilation: Pair, groups: int) -> None:
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.before = (0, 0)
        if not isinstance(padding, str):
            sides = conv_padding("conv2d", padding, (1, 1), stride, dilation)
            self.before = sides[0], sides[2]

    def options(self, weight: Any, **changes: Any) -> dict[str, Any]:
        window = weight.shape[2:]
        given: dict[str, Any] = {
            "stride": self.stride,
            "padding": conv_padding("conv2d", self.padding, window, self.stride, self.dilation),
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return {**given, **changes}

    def dx(self, dy: Any, x: Any, weight: Any, **changes: Any) -> Any:
        kernels = kernels_for(x)
        return kernels.conv2d_input_grad(dy, weight, x.shape, **self.options(weight, **changes))

    def dw(self, dy: Any, x: Any, weight: Any, **changes: Any) -> Any:
        kernels = kernels_for(x)
        return kernels.conv2d_weight_grad(dy, x, weight.shape, **self.options(weight, **changes))

    def gradients(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        bias: Any,
        dx: Any = None,
        dw: Any = None,
        db: Any = None,
    ) -> Any:
        """The right gradients, but for those given."""
        dx = self.dx(dy, x, weight) if dx is None else dx
        dw = self.dw(dy, x, weight) if dw is None else dw
        if bias is None:
            return dx, dw
        return dx, dw, dy.sum((0, 2, 3)) if db is None else db

    def change_dx(self, spoil: Callable[..., Any]) -> Callable[..., Any]:
        return lambda dy, x, w, b=None: self.gradients(
            dy, x, w, b, dx=spoil(self.dx(dy, x, w), dy, x, w)
        )

    def change_dw(self, spoil: Callable[..., Any]) -> Callable[..., Any]:
        return lambda dy, x, w, b=None: self.gradients(
            dy, x, w, b, dw=spoil(self.dw(dy, x, w), dy, x, w)
        )

    def change_db(self, spoil: Callable[..., Any]) -> Callable[..., Any]:
        return lambda dy, x, w, b: self.gradients(dy, x, w, b, db=spoil(dy.sum((0, 2, 3)), dy))

    def with_kernel(self, spoil: Callable[[Any], Any]) -> Callable[..., Any]:
        """The gradient of x by a changed kernel."""
        return lambda dy, x, w, b=None: self.gradients(
            dy, x, w, b, dx=self.dx(dy, x, array_namespace(w).ascontiguousarray(spoil(w)))
        )

    def as_if_stride_were_one(self, dy: Any, x: Any, w: Any, b: Any = None) -> Any:
        options = self.options(w, stride=(1, 1))
        del options["groups"]
        size = conv_output_size("conv2d", x.shape[2:], w.shape[2:], **options)
        wide = array_namespace(dy).zeros((*dy.shape[:2], *size), dy.dtype)
        wide[:, :, : dy.shape[2], : dy.shape[3]] = dy
        stride = {"stride": (1, 1)}
        return self.gradients(
            dy, x, w, b, self.dx(wide, x, w, **stride), self.dw(wide, x, w, **stride)
        )

    def as_if_not_dilated(self, dy: Any, x: Any, w: Any, b: Any = None) -> Any:
        options = self.options(w, dilation=(1, 1))
        del options["groups"]
        size = conv_output_size("conv2d", x.shape[2:], w.shape[2:], **options)
        wide = array_namespace(dy).zeros((*dy.shape[:2], *size), dy.dtype)
        wide[:, :, : dy.shape[2], : dy.shape[3]] = dy
        dilation = {"dilation": (1, 1)}
        return self.gradients(
            dy, x, w, b, self.dx(wide, x, w, **dilation), self.dw(wide, x, w, **dilation)
        )

    def last_window_wins(self, dx: Any, dy: Any, x: Any, w: Any) -> Any:
        """Windows in row-major order, each writing over what was there."""
        xp = array_namespace(x)
        options = self.options(w)
        top, bottom, left, right = options["padding"]
        (n, c, h, width), (_, _, r, s) = x.shape, w.shape
        padded = xp.zeros((n, c, h + top + bottom, width + left + right), x.dtype)
        one = xp.zeros_like(padded)
        inner = {**options, "padding": (0, 0, 0, 0)}
        for p in range(dy.shape[2]):
            for q in range(dy.shape[3]):
                alone = xp.zeros_like(dy)
                alone[:, :, p, q] = dy[:, :, p, q]
                one = kernels_for(x).conv2d_input_grad(alone, w, padded.shape, **inner)
                i, j = p * self.stride[0], q * self.stride[1]
                rows = slice(i, i + (r - 1) * self.dilation[0] + 1, self.dilation[0])
                columns = slice(j, j + (s - 1) * self.dilation[1] + 1, self.dilation[1])
                padded[:, :, rows, columns] = one[:, :, rows, columns]
        return padded[:, :, top : top + h, left : left + width]


def _moved(image: Any, down: int, along: int) -> Any:
    """The image moved, with zeros where nothing comes in."""
    xp = array_namespace(image)
    moved = xp.zeros_like(image)
    h, w = image.shape[2:]
    moved[:, :, max(down, 0) : h + min(down, 0), max(along, 0) : w + min(along, 0)] = image[
        :, :, max(-down, 0) : h + min(-down, 0), max(-along, 0) : w + min(-along, 0)
    ]
    return moved


def _grouped(dx: Any, groups: int) -> Any:
    """The channels of each group where those of the next belong."""
    return array_namespace(dx).roll(dx, dx.shape[1] // groups, 1)
