"""The classic networks, one family a file, and the registry that builds them by name."""

from typing import TYPE_CHECKING

from .. import familiar_names
from .alexnet import AlexNet, AlexNetOWT
from .classifier import ImageClassifier
from .densenet import CifarDenseNet, DenseNet
from .fractalnet import FractalNet
from .googlenet import GoogLeNet, GoogLeNetOutputs, InceptionExample
from .inception3 import InceptionOutputs, InceptionV3
from .lenet import LeNet5, OriginalLeNet5
from .mobilenet import MobileNetV1, MobileNetV2
from .nin import CifarNiN, NiN
from .preresnet import CifarPreResNet, PreResNet
from .registry import (
    UnknownModelError,
    check_name,
    create,
    list_classifiers,
    list_models,
    min_image_size,
    own_image_size,
    register_model,
)
from .resnet import CifarResNet, ResNet
from .resnext import CifarResNeXt, ResNeXt
from .senet import SEResNet
from .squeezenet import SqueezeNet
from .stochastic_depth import CifarStochasticDepthResNet, StochasticDepthResNet
from .vgg import VGG
from .wide_resnet import WideResNet
from .zfnet import ZFNet

__all__ = [
    "VGG",
    "AlexNet",
    "AlexNetOWT",
    "CifarDenseNet",
    "CifarNiN",
    "CifarPreResNet",
    "CifarResNeXt",
    "CifarResNet",
    "CifarStochasticDepthResNet",
    "DenseNet",
    "FractalNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "ImageClassifier",
    "InceptionExample",
    "InceptionOutputs",
    "InceptionV3",
    "LeNet5",
    "MobileNetV1",
    "MobileNetV2",
    "NiN",
    "OriginalLeNet5",
    "PreResNet",
    "ResNeXt",
    "ResNet",
    "SEResNet",
    "SqueezeNet",
    "StochasticDepthResNet",
    "UnknownModelError",
    "WideResNet",
    "ZFNet",
    "check_name",
    "create",
    "list_classifiers",
    "list_models",
    "min_image_size",
    "own_image_size",
    "register_model",
]

if not TYPE_CHECKING:  # for which names that are not there shall stay errors
    __getattr__ = familiar_names.absent(
        __name__, {name: f"md.models.create({name!r})" for name in list_models()}
    )
