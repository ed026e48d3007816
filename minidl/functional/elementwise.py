"""Arithmetic, comparison and the functions of a pocket calculator, element by element.

Two operands broadcast as in NumPy. Numbers take the dtype of the tensor they meet: float32 stays
float32. Where a floating-point and an integer tensor meet, the integers are converted to the other
dtype; functions of integers that have fractions as results give float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._kernels import add as add_arrays
from .._kernels import array_namespace, is_array
from ..autograd import Function, note_read
from ..device import check_same_device
from ..dtypes import float32, int64, is_floating
from ..tensor import Tensor, as_tensor, tensor_method, zeros_like

__all__ = [
    "abs",
    "add",
    "ceil",
    "clip",
    "cos",
    "div",
    "exp",
    "expm1",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pow",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "sub",
    "tanh",
    "where",
]

Operand = Tensor | np.ndarray | float


# ---- operands ----


def operands(op: str, a: Any, b: Any, fractions: bool = False) -> tuple[Tensor, Tensor]:
    """Two operands as Tensors of dtypes that go together; `fractions`: at least float32."""
    for value in (a, b):
        if not _is_operand(value):
            raise TypeError(
                f"{op}: expected a Tensor, an array or a number, got {type(value).__name__}"
            )
    if _is_number(a) and _is_number(b):
        a = as_tensor(a)
    if _is_number(a):
        number, tensor = _meet(a, as_tensor(b))
        a, b = number, tensor
    elif _is_number(b):
        b, a = _meet(b, as_tensor(a))
    a, b = as_tensor(a), as_tensor(b)
    check_broadcast(op, a, b)
    a, b = promoted(a, b)
    return (a.to(float32), b.to(float32)) if fractions and not is_floating(a.dtype) else (a, b)


def _is_operand(value: Any) -> bool:
    return isinstance(value, Tensor) or is_array(value) or _is_number(value)


def check_broadcast(op: str, *tensors: Tensor) -> None:
    """Raise ValueError unless the shapes fit."""
    shapes = [tensor.shape for tensor in tensors]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        listed = f"{', '.join(map(str, shapes[:-1]))} and {shapes[-1]}"
        raise ValueError(f"{op}: shapes {listed} do not broadcast") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.generic)


def _meet(number: Any, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A number in the dtype of the tensor it meets, if that can hold such numbers."""
    number = number.item() if isinstance(number, np.generic) else number
    dtype = tensor.dtype
    if isinstance(number, float) and not is_floating(dtype):
        dtype = float32
    elif not isinstance(number, bool) and not is_floating(dtype) and not _holds(dtype, number):
        dtype = int64
    array = array_namespace(tensor.data).asarray(number, dtype)
    return Tensor.from_operation(array, None, 0), tensor.to(dtype)


def _holds(dtype: np.dtype, number: int) -> bool:
    """Whether an integer dtype has this number; booleans have none."""
    return dtype.kind != "b" and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def floating(op: str, x: Any) -> Tensor:
    """An operand as a floating-point Tensor."""
    if not _is_operand(x):
        raise TypeError(f"{op}: expected a Tensor, got {type(x).__name__}")
    x = as_tensor(x)
    return x if is_floating(x.dtype) else x.to(float32)


def common_dtype(a: np.dtype, b: np.dtype) -> np.dtype:
    """The dtype that holds both; floating-point ones decide over integers."""
    if is_floating(a) == is_floating(b):
        return np.promote_types(a, b)
    return a if is_floating(a) else b


def promoted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors in their common dtype."""
    if a.dtype == b.dtype:
        return a, b
    dtype = common_dtype(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def sum_to(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo broadcasting: sum over the axes along which an operand of `shape` was repeated."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    repeated = (i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1)
    return gradient.sum((*range(extra), *repeated)).reshape(shape)


# ---- two operands ----


class Add(Function):
    epilogue = "residual"

    def operand(self, x: Any, arrays: list[Any]) -> Any:
        return arrays[0] if arrays[0].shape == x.shape else None

    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        return add_arrays(a, b)

    def adopt(self, y: Any, first: Function) -> None:
        self.shapes = y.shape, y.shape

    def backward(self, dy: Tensor) -> Any:
        da = sum_to(dy, self.shapes[0]) if self.needs[0] else None
        db = sum_to(dy, self.shapes[1]) if self.needs[1] else None
        return da, db


class Sub(Function):
    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        return a - b

    def backward(self, dy: Tensor) -> Any:
        da = sum_to(dy, self.shapes[0]) if self.needs[0] else None
        db = -sum_to(dy, self.shapes[1]) if self.needs[1] else None
        return da, db


class Mul(Function):
    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        return a * b

    def backward(self, dy: Tensor) -> Any:
        a, b = self.saved
        da = sum_to(dy * b, self.shapes[0]) if self.needs[0] else None
        db = sum_to(dy * a, self.shapes[1]) if self.needs[1] else None
        return da, db


class Div(Function):
    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        y = a / b
        self.save(b, y if self.needs[1] else None)
        return y

    def backward(self, dy: Tensor) -> Any:
        b, y = self.saved
        da = dy / b
        db = sum_to(-(da * y), self.shapes[1]) if self.needs[1] else None
        return sum_to(da, self.shapes[0]) if self.needs[0] else None, db


class Remainder(Function):
    """a - floor(a / b) * b, which is linear in both between its jumps."""

    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        self.save(a // b if self.needs[1] else None)
        return a % b

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[0].data // inputs[1].data

    def backward(self, dy: Tensor) -> Any:
        (quotient,) = self.saved
        da = sum_to(dy, self.shapes[0]) if self.needs[0] else None
        db = sum_to(-(dy * quotient), self.shapes[1]) if self.needs[1] else None
        return da, db


class Pow(Function):
    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        y = a**b
        self.save(a, b, y if self.needs[1] else None)
        return y

    def backward(self, dy: Tensor) -> Any:
        a, b, y = self.saved
        da = db = None
        if self.needs[0]:
            # at 0^0, b * a^(b-1) would be 0 * inf; the derivative of the constant 1 is 0
            exponent = where((a == 0) & (b == 0), 1.0, b)
            da = sum_to(dy * b * a ** (exponent - 1), self.shapes[0])
        if self.needs[1]:
            # 0^b is 0 for all b > 0: the derivative is 0, not 0 * log(0)
            base = where((a == 0) & (b >= 0), 1.0, a)
            db = sum_to(dy * y * log(base), self.shapes[1])
        return da, db


class PowNumber(Function):
    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def forward(self, x: Any) -> Any:
        self.save(x)
        return x**self.exponent

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        if self.exponent == 0:
            return zeros_like(dy)
        return dy * (x ** (self.exponent - 1) * self.exponent)


class Maximum(Function):
    """The larger element; of two equal ones the first takes the whole gradient."""

    def forward(self, a: Any, b: Any) -> Any:
        xp = array_namespace(a)
        self.shapes = a.shape, b.shape
        self.save(self.first_wins(a, b) | xp.isnan(a))
        return self.choose(xp, a, b)

    def first_wins(self, a: Any, b: Any) -> Any:
        return a >= b

    def choose(self, xp: Any, a: Any, b: Any) -> Any:
        return xp.maximum(a, b)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return self.first_wins(inputs[0].data, inputs[1].data)

    def backward(self, dy: Tensor) -> Any:
        (first,) = self.saved
        da = sum_to(where(first, dy, 0.0), self.shapes[0]) if self.needs[0] else None
        db = sum_to(where(first, 0.0, dy), self.shapes[1]) if self.needs[1] else None
        return da, db


class Minimum(Maximum):
    """The smaller element; of two equal ones the first takes the whole gradient."""

    def first_wins(self, a: Any, b: Any) -> Any:
        return a <= b

    def choose(self, xp: Any, a: Any, b: Any) -> Any:
        return xp.minimum(a, b)


class Where(Function):
    def forward(self, condition: Any, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        self.save(condition)
        return array_namespace(a).where(condition, a, b)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[0].data

    def backward(self, dy: Tensor) -> Any:
        (condition,) = self.saved
        da = sum_to(where(condition, dy, 0.0), self.shapes[0]) if self.needs[1] else None
        db = sum_to(where(condition, 0.0, dy), self.shapes[1]) if self.needs[2] else None
        return None, da, db


@tensor_method("add", "__add__", "__radd__")
def add(a: Operand, b: Operand) -> Tensor:
    """a + b.

    >>> import minidl as md
    >>> md.tensor([1.0, 2.0]) + 1
    tensor([2., 3.])
    """
    return Add().apply(*operands("add", a, b))


@tensor_method("sub", "__sub__")
def sub(a: Operand, b: Operand) -> Tensor:
    """a - b.

    >>> import minidl as md
    >>> 1 - md.tensor([1.0, 2.0])
    tensor([ 0., -1.])
    """
    return Sub().apply(*operands("sub", a, b))


@tensor_method("mul", "__mul__", "__rmul__")
def mul(a: Operand, b: Operand) -> Tensor:
    """a * b, elementwise.

    >>> import minidl as md
    >>> md.tensor([[1.0], [2.0]]) * md.tensor([10.0, 20.0])
    tensor([[10., 20.],
            [20., 40.]])
    """
    return Mul().apply(*operands("mul", a, b))


@tensor_method("div", "__truediv__")
def div(a: Operand, b: Operand) -> Tensor:
    """a / b; float32 for two integers.

    >>> import minidl as md
    >>> md.tensor([1, 3]) / 2
    tensor([0.5, 1.5])
    """
    return Div().apply(*operands("div", a, b, fractions=True))


@tensor_method("pow", "__pow__")
def pow(a: Operand, b: Operand) -> Tensor:
    """a to the power b. At 0^0 the derivatives are taken as 0.

    >>> import minidl as md
    >>> md.tensor([1.0, -3.0]) ** 2
    tensor([1., 9.])
    """
    if isinstance(a, Tensor) and _is_number(b):
        exponent: Any = b.item() if isinstance(b, np.generic) else b
        _, base = _meet(exponent, a)
        return PowNumber(exponent).apply(floating("pow", base) if exponent < 0 else base)
    return Pow().apply(*operands("pow", a, b))


@tensor_method("maximum")
def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of a and b, elementwise; NaN wins. Of equals the first takes the gradient.

    >>> import minidl as md
    >>> md.maximum(md.tensor([1.0, 5.0]), 2.0)
    tensor([2., 5.])
    """
    return Maximum().apply(*operands("maximum", a, b))


@tensor_method("minimum")
def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of a and b, elementwise; NaN wins. Of equals the first takes the gradient.

    >>> import minidl as md
    >>> md.minimum(md.tensor([1.0, 5.0]), 2.0)
    tensor([1., 2.])
    """
    return Minimum().apply(*operands("minimum", a, b))


def where(condition: Tensor | np.ndarray, a: Operand, b: Operand) -> Tensor:
    """a where the condition holds, b elsewhere; all three broadcast.

    Raises TypeError if the condition is not boolean.

    >>> import minidl as md
    >>> x = md.tensor([-1.0, 2.0])
    >>> md.where(x > 0, x, 0)
    tensor([0., 2.])
    """
    condition = as_tensor(condition)
    if condition.dtype.kind != "b":
        raise TypeError(f"where: the condition must be boolean, got {condition.dtype}")
    a, b = operands("where", a, b)
    check_broadcast("where", condition, a, b)
    return Where().apply(condition, a, b)


@tensor_method("where")
def _where(x: Tensor, condition: Tensor, other: Operand) -> Tensor:
    return where(condition, x, other)


@tensor_method("__rsub__")
def _rsub(a: Operand, b: Operand) -> Tensor:
    return sub(b, a)


@tensor_method("__rtruediv__")
def _rdiv(a: Operand, b: Operand) -> Tensor:
    return div(b, a)


@tensor_method("__rpow__")
def _rpow(a: Operand, b: Operand) -> Tensor:
    return pow(b, a)


@tensor_method("__mod__")
def _mod(a: Operand, b: Operand) -> Tensor:
    return Remainder().apply(*operands("mod", a, b))


@tensor_method("__rmod__")
def _rmod(a: Operand, b: Operand) -> Tensor:
    return _mod(b, a)


# ---- one operand ----


class Neg(Function):
    def forward(self, x: Any) -> Any:
        return -x

    def backward(self, dy: Tensor) -> Tensor:
        return -dy


class Exp(Function):
    def forward(self, x: Any) -> Any:
        y = array_namespace(x).exp(x)
        self.save(y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        return dy * y


class Log(Function):
    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_namespace(x).log(x)

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return dy / x


class Sqrt(Function):
    def forward(self, x: Any) -> Any:
        y = array_namespace(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        return dy / (y * 2)


class Sin(Function):
    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_namespace(x).sin(x)

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return dy * cos(x)


class Cos(Function):
    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_namespace(x).cos(x)

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return -(dy * sin(x))


class Tanh(Function):
    def forward(self, x: Any) -> Any:
        y = array_namespace(x).tanh(x)
        self.save(y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        return dy * (1 - y * y)


class Sigmoid(Function):
    def forward(self, x: Any) -> Any:
        xp = array_namespace(x)
        small = xp.exp(-xp.abs(x))  # exp of what is not positive cannot overflow
        y = xp.where(x >= 0, 1, small) / (1 + small)
        self.save(y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        return dy * (y * (1 - y))


class Log1p(Function):
    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_namespace(x).log1p(x)

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return dy / (x + 1)


class Expm1(Function):
    def forward(self, x: Any) -> Any:
        y = array_namespace(x).expm1(x)
        self.save(y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        return dy * (y + 1)


class Abs(Function):
    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_namespace(x).abs(x)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return array_namespace(inputs[0].data).sign(inputs[0].data)

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return dy * sign(x)


class Clip(Function):
    def __init__(self, low: float | None, high: float | None) -> None:
        self.low, self.high = low, high

    def forward(self, x: Any) -> Any:
        y = array_namespace(x).clip(x, self.low, self.high)
        self.save(y == x if self.needs[0] else None)
        return y

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[0].data == outputs[0].data

    def backward(self, dy: Tensor) -> Tensor:
        (inside,) = self.saved
        return where(inside, dy, 0.0)


class Stepwise(Function):
    """A function that is constant between its jumps: its derivative is zero."""

    def __init__(self, ufunc: str) -> None:
        self.ufunc = self.name = ufunc

    def forward(self, *arrays: Any) -> Any:
        self.shapes = [array.shape for array in arrays]
        return getattr(array_namespace(arrays[0]), self.ufunc)(*arrays)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return outputs[0].data

    def backward(self, dy: Tensor) -> Any:
        return tuple(sum_to(zeros_like(dy), shape) for shape in self.shapes)


@tensor_method("neg", "__neg__")
def neg(x: Tensor) -> Tensor:
    """-x."""
    return Neg().apply(as_tensor(x))


@tensor_method("exp")
def exp(x: Tensor) -> Tensor:
    """e to the power x."""
    return Exp().apply(floating("exp", x))


@tensor_method("log")
def log(x: Tensor) -> Tensor:
    """The natural logarithm; -inf at 0, NaN below."""
    return Log().apply(floating("log", x))


@tensor_method("sqrt")
def sqrt(x: Tensor) -> Tensor:
    """The square root; NaN below 0."""
    return Sqrt().apply(floating("sqrt", x))


@tensor_method("sin")
def sin(x: Tensor) -> Tensor:
    """The sine of x in radians."""
    return Sin().apply(floating("sin", x))


@tensor_method("cos")
def cos(x: Tensor) -> Tensor:
    """The cosine of x in radians."""
    return Cos().apply(floating("cos", x))


@tensor_method("tanh")
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh().apply(floating("tanh", x))


@tensor_method("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), without overflow.

    >>> import minidl as md
    >>> md.sigmoid(md.tensor([-1000.0, 0.0]))
    tensor([0. , 0.5])
    """
    return Sigmoid().apply(floating("sigmoid", x))


@tensor_method("log1p")
def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact for small x too."""
    return Log1p().apply(floating("log1p", x))


@tensor_method("expm1")
def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, exact for small x too."""
    return Expm1().apply(floating("expm1", x))


@tensor_method("abs", "__abs__")
def abs(x: Tensor) -> Tensor:
    """The absolute value; its derivative at 0 is taken as 0."""
    return Abs().apply(as_tensor(x))


@tensor_method("clip")
def clip(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """x limited to min ... max, either of which may be None. The gradient passes at the limits.

    Raises ValueError if both are None, TypeError if one is not a number.

    >>> import minidl as md
    >>> md.clip(md.tensor([-2.0, 0.5, 7.0]), 0, 1)
    tensor([0. , 0.5, 1. ])
    """
    if min is None and max is None:
        raise ValueError("clip: min and max are both None")
    x = as_tensor(x)
    limits: list[float | None] = []
    for name, limit in (("min", min), ("max", max)):
        if limit is not None:
            if not _is_number(limit):
                raise TypeError(f"clip: {name} must be a number, got {type(limit).__name__}")
            _, x = _meet(limit, x)
        limits.append(limit.item() if isinstance(limit, np.generic) else limit)
    return Clip(*limits).apply(x)


@tensor_method("sign")
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; the derivative is 0."""
    return Stepwise("sign").apply(as_tensor(x))


@tensor_method("floor")
def floor(x: Tensor) -> Tensor:
    """The largest integer that is not above x; the derivative is 0."""
    return Stepwise("floor").apply(floating("floor", x))


@tensor_method("ceil")
def ceil(x: Tensor) -> Tensor:
    """The smallest integer that is not below x; the derivative is 0."""
    return Stepwise("ceil").apply(floating("ceil", x))


@tensor_method("round")
def round(x: Tensor) -> Tensor:
    """The nearest integer, of two equally near ones the even; the derivative is 0."""
    return Stepwise("round").apply(floating("round", x))


@tensor_method("__floordiv__")
def _floordiv(a: Operand, b: Operand) -> Tensor:
    return Stepwise("floor_divide").apply(*operands("floordiv", a, b))


@tensor_method("__rfloordiv__")
def _rfloordiv(a: Operand, b: Operand) -> Tensor:
    return _floordiv(b, a)


# ---- true or false: no gradients ----


@tensor_method("isnan")
def isnan(x: Tensor) -> Tensor:
    """Whether x is not a number."""
    return _true_where("isnan", x)


@tensor_method("isinf")
def isinf(x: Tensor) -> Tensor:
    """Whether x is infinite."""
    return _true_where("isinf", x)


@tensor_method("isfinite")
def isfinite(x: Tensor) -> Tensor:
    """Whether x is neither infinite nor NaN."""
    return _true_where("isfinite", x)


def _true_where(ufunc: str, x: Tensor) -> Tensor:
    x = as_tensor(x)
    note_read(x)
    return _plain(getattr(array_namespace(x.data), ufunc)(x.data))


def _plain(array: Any) -> Tensor:
    return Tensor.from_operation(array, None, 0)


def _comparison(op: str, compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def operator(a: Any, b: Any) -> Any:
        if not _is_operand(b):
            return NotImplemented
        a, b = operands(op, a, b)
        note_read(a)
        note_read(b)
        arrays = a.data, b.data
        check_same_device(op, arrays)
        return _plain(compare(*arrays))

    return operator


def _logical(op: str, combine: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def operator(a: Any, b: Any) -> Any:
        a, b = operands(op, a, b)
        if is_floating(a.dtype) or is_floating(b.dtype):
            raise TypeError(f"{op}: needs boolean or integer tensors, got {a.dtype} and {b.dtype}")
        arrays = a.data, b.data
        check_same_device(op, arrays)
        return _plain(combine(*arrays))

    return operator


tensor_method("__eq__")(_comparison("eq", lambda a, b: a == b))
tensor_method("__ne__")(_comparison("ne", lambda a, b: a != b))
tensor_method("__lt__")(_comparison("lt", lambda a, b: a < b))
tensor_method("__le__")(_comparison("le", lambda a, b: a <= b))
tensor_method("__gt__")(_comparison("gt", lambda a, b: a > b))
tensor_method("__ge__")(_comparison("ge", lambda a, b: a >= b))
tensor_method("__and__", "__rand__")(_logical("and", lambda a, b: a & b))
tensor_method("__or__", "__ror__")(_logical("or", lambda a, b: a | b))
tensor_method("__xor__", "__rxor__")(_logical("xor", lambda a, b: a ^ b))


@tensor_method("__invert__")
def _invert(x: Tensor) -> Tensor:
    if is_floating(x.dtype):
        raise TypeError(f"invert: needs a boolean or integer tensor, got {x.dtype}")
    return _plain(~x.data)
