"""The classic networks, one family a file, and the registry that builds them by name."""

from .alexnet import AlexNet
from .classifier import ImageClassifier
from .lenet import LeNet5
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
from .vgg import VGG
from .wide_resnet import WideResNet

__all__ = [
    "VGG",
    "AlexNet",
    "CifarPreResNet",
    "CifarResNet",
    "ImageClassifier",
    "LeNet5",
    "PreResNet",
    "ResNet",
    "UnknownModelError",
    "WideResNet",
    "check_name",
    "create",
    "list_models",
    "min_image_size",
    "register_model",
]
