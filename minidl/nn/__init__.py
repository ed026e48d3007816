"""Layers, containers, losses and initialisers."""

from typing import TYPE_CHECKING

from .. import familiar_names
from . import init, utils
from .activation import (
    ELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    ScaledTanh,
    Sigmoid,
    Softmax,
    Tanh,
)
from .container import ModuleList, Sequential
from .conv import Conv2d
from .dropout import Dropout
from .fuse import fuse
from .linear import Flatten, Identity, Linear
from .loss import CrossEntropyLoss, MSELoss
from .module import Module
from .normalisation import BatchNorm2d, LocalResponseNorm
from .parameter import Parameter
from .pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .replay import Replay

__all__ = [
    "ELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Replay",
    "ScaledTanh",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "fuse",
    "init",
    "utils",
]

if not TYPE_CHECKING:  # for which names that are not there shall stay errors
    __getattr__ = familiar_names.absent(__name__, familiar_names.NN)
