"""The classic networks, one family a file, and the registry that builds them by name."""

from .alexnet import AlexNet
from .classifier import ImageClassifier
from .fractalnet import FractalNet
from .lenet import LeNet5
from .mobilenet import MobileNetV1, MobileNetV2
from .preresnet import CifarPreResNet, PreResNet
from .registry import (
    UnknownModelError,
    check_name,
    create,
    list_models,
    min_image_size,
    register_model,
)
from .resnet import CifarResNet, ResNet
from .resnext import CifarResNeXt, ResNeXt
from .senet import SEResNet
from .stochastic_depth import CifarStochasticDepthResNet, StochasticDepthResNet
from .vgg import VGG
from .wide_resnet import WideResNet

__all__ = [
    "VGG",
    "AlexNet",
    "CifarPreResNet",
    "CifarResNeXt",
    "CifarResNet",
    "CifarStochasticDepthResNet",
    "FractalNet",
    "ImageClassifier",
    "LeNet5",
    "MobileNetV1",
    "MobileNetV2",
    "PreResNet",
    "ResNeXt",
    "ResNet",
    "SEResNet",
    "StochasticDepthResNet",
    "UnknownModelError",
    "WideResNet",
    "check_name",
    "create",
    "list_models",
    "min_image_size",
    "register_model",
]
