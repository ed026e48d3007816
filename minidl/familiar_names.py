"""What PyTorch and NumPy call things that minidl calls otherwise, or does not have.

One thing has one name in minidl, mostly PyTorch's. Those who type another one are told: the tables
give, by the name that is not there, the Python expression that is, or None if there is nothing of
the kind. In the expressions x is the tensor and net the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

__all__ = ["FUNCTIONAL", "MINIDL", "MODULE", "NN", "OPTIM", "TENSOR", "Absent", "absent"]

Names = Mapping[str, str | None]

TENSOR: Names = {
    "amax": "x.max(dim)",
    "amin": "x.min(dim)",
    "argsort": "np.argsort(x)",
    "bmm": "x @ y",
    "bool": "x.to(md.bool)",
    "clamp": "x.clip(low, high)",
    "clamp_": "x.copy_(x.clip(low, high))",
    "copy": "x.clone()",
    "dim": "x.ndim",
    "div_": "x.mul_(1 / n)",
    "dot": "x @ y",
    "double": "x.to(md.float64)",
    "eq": "x == y",
    "expand_as": "x.expand(y.shape)",
    "float": "x.to(md.float32)",
    "gather": "x.take_along_dim(index, dim)",
    "half": "x.to('float16')",
    "index_select": "x[index]",
    "int": "x.to(md.int32)",
    "is_contiguous": "x.data.flags.c_contiguous",
    "is_cuda": "x.device",
    "long": "x.to(md.int64)",
    "masked_fill": "md.where(mask, value, x)",
    "median": "np.median(x)",
    "mm": "x @ y",
    "nelement": "x.size",
    "nonzero": "np.nonzero(x)",
    "norm": "(x * x).sum().sqrt()",
    "normal_": "md.nn.init.normal_(x)",
    "numel": "x.size",
    "ravel": "x.flatten()",
    "reciprocal": "1 / x",
    "relu_": "x.copy_(x.relu())",
    "repeat": "md.concat([x] * n, dim)",
    "rsqrt": "1 / x.sqrt()",
    "sort": "np.sort(x)",
    "square": "x * x",
    "stride": "x.data.strides",
    "strides": "x.data.strides",
    "sub_": "x.add_(-value)",
    "swapaxes": "x.transpose(0, 1)",
    "t": "x.T",
    "tile": "md.concat([x] * n, dim)",
    "topk": "np.argsort(-x)[..., :k]",
    "type": "x.dtype",
    "unbind": "tuple(x)",
    "uniform_": "md.nn.init.uniform_(x)",
    "unique": "np.unique(x)",
    "view_as": "x.view(y.shape)",
}

MODULE: Names = {
    "cpu": "net.to('cpu')",
    "cuda": "net.to('cuda')",
    "double": "net.to(md.float64)",
    "float": "net.to(md.float32)",
    "get_submodule": "dict(net.named_modules())[name]",
    "half": "md.autocast('fp16')",
    "register_module": "net.add_module",
    "requires_grad_": "[p.requires_grad_(False) for p in net.parameters()]",
}

MINIDL: Names = {
    "FloatTensor": "md.tensor",
    "allclose": "np.allclose(x, y)",
    "amax": "md.max",
    "amin": "md.min",
    "argsort": "np.argsort(x)",
    "array": "md.tensor",
    "asarray": "md.as_tensor",
    "bmm": "md.matmul",
    "cat": "md.concat",
    "clamp": "md.clip",
    "compile": "md.nn.Replay",
    "concatenate": "md.concat",
    "cuda": "md.show_config()  # lists the GPUs",
    "distributed": None,
    "dot": "md.matmul",
    "double": "md.float64",
    "einsum": None,
    "equal": "np.array_equal(x, y)",
    "expand_dims": "md.unsqueeze",
    "float": "md.float32",
    "float16": "np.dtype('float16')",
    "gather": "md.take_along_dim",
    "inference_mode": "md.no_grad",
    "isclose": "np.isclose(x, y)",
    "jit": None,
    "long": "md.int64",
    "median": "np.median(x)",
    "mm": "md.matmul",
    "norm": "(x * x).sum().sqrt()",
    "numel": "x.size",
    "power": "md.pow",
    "reciprocal": "1 / x",
    "relu": "md.functional.relu",
    "rsqrt": "1 / x.sqrt()",
    "set_grad_enabled": "md.enable_grad, md.no_grad",
    "softmax": "md.functional.softmax",
    "square": "x * x",
    "swapaxes": "md.transpose",
    "tile": "md.concat([x] * n, dim)",
    "topk": "np.argsort(-x)[..., :k]",
    "unique": "np.unique(x)",
    "utils": "md.data.DataLoader",
    "vstack": "md.concat",
}

NN: Names = {
    "AdaptiveMaxPool2d": None,
    "BCELoss": None,
    "BCEWithLogitsLoss": None,
    "BatchNorm1d": "md.nn.BatchNorm2d  # on x.reshape(*x.shape, 1, 1)",
    "Conv1d": None,
    "Conv3d": None,
    "ConvTranspose2d": None,
    "DataParallel": None,
    "Dropout2d": None,
    "Embedding": None,
    "GELU": None,
    "GroupNorm": None,
    "InstanceNorm2d": None,
    "L1Loss": "md.abs(x - y).mean()",
    "LSTM": None,
    "LayerNorm": None,
    "ModuleDict": None,
    "MultiheadAttention": None,
    "NLLLoss": "md.functional.nll_loss",
    "PReLU": "md.nn.LeakyReLU  # with a slope that is not learned",
    "ParameterList": None,
    "ReLU6": "x.clip(0, 6)",
    "SiLU": "x * x.sigmoid()",
    "SmoothL1Loss": None,
    "Softplus": None,
    "Upsample": None,
    "ZeroPad2d": "md.pad",
    "functional": "md.functional",
}

FUNCTIONAL: Names = {
    "adaptive_max_pool2d": None,
    "binary_cross_entropy": None,
    "binary_cross_entropy_with_logits": None,
    "conv1d": None,
    "conv_transpose2d": None,
    "gelu": None,
    "grid_sample": None,
    "interpolate": None,
    "l1_loss": "md.abs(x - y).mean()",
    "layer_norm": None,
    "normalize": "x / (x * x).sum(1, keepdim=True).sqrt()",
    "one_hot": "md.eye(classes)[labels]",
    "relu6": "x.clip(0, 6)",
    "silu": "x * x.sigmoid()",
    "unfold": "md.im2col",
}

OPTIM: Names = {
    "Adadelta": None,
    "Adagrad": None,
    "LBFGS": None,
    "LambdaLR": "md.optim.Schedule  # a subclass that defines lr_at(self, epoch, base_lr)",
    "LinearLR": "md.optim.LinearWarmup",
    "OneCycleLR": "md.optim.LinearWarmup  # and CosineAnnealingLR after it",
    "SequentialLR": "md.optim.LinearWarmup",
    "lr_scheduler": "md.optim.StepLR  # all schedules are in md.optim",
}


def advice(names: Names, name: str) -> str:
    """How a message about a name that is not there ends.

    >>> advice(TENSOR, "numel"), advice(MINIDL, "einsum"), advice(TENSOR, "anything else")
    ('; minidl has x.size', '; minidl has nothing of the kind', '')
    """
    if name not in names:
        return ""
    return f"; minidl has {names[name] or 'nothing of the kind'}"


def absent(package: str, names: Names) -> Callable[[str], NoReturn]:
    """A package's `__getattr__`, which Python calls for names that are not there."""

    def __getattr__(name: str) -> NoReturn:
        text = f"module {package!r} has no attribute {name!r}{advice(names, name)}"
        # An error that has no name yet gets one from Python, and a guess at what was meant.
        raise AttributeError(text, name=name) if name in names else AttributeError(text)

    return __getattr__


class Absent:
    """An attribute that a class does not have; asking for it says what there is instead.

    A class with `__getattr__` could do the same, but would look up all its attributes more slowly.
    """

    def __init__(self, owner: str, name: str, names: Names) -> None:
        self.name, self.text = name, f"{owner} has no attribute {name!r}{advice(names, name)}"

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise AttributeError(self.text, name=self.name)
