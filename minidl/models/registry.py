"""The registry: every architecture by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

from ..errors import CheckpointError, MinidlError
from .classifier import ImageClassifier
from .pretrained import MisfitError, load_weights

Model = TypeVar("Model", bound=type[ImageClassifier])


class _Entry(NamedTuple):
    model: type[ImageClassifier]
    fixed: dict[str, Any]  # the options that make this architecture of the class


_ENTRIES: dict[str, _Entry] = {}
# By name and variant: the name and the options that the variant stands for.
_VARIANTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}


class UnknownModelError(MinidlError, ValueError):
    """There is no architecture of that name; the text suggests the nearest."""


def register_model(name: str, **fixed: Any) -> Callable[[Model], Model]:
    """Class decorator: build the class with the options `fixed` when `name` is asked for.

    Raises:
        ValueError: if the name is taken.
    """

    def register(model: Model) -> Model:
        if name in _ENTRIES:
            raise ValueError(f"register_model: an architecture named {name!r} exists already")
        _ENTRIES[name] = _Entry(model, fixed)
        return model

    return register


def register_variants(
    name: str, paper: tuple[str, dict[str, Any]], torchvision: tuple[str, dict[str, Any]]
) -> None:
    """Say what the paper's form of an architecture is called here, and what torchvision's is.

    Each is the name of an architecture and its options.
    """
    _VARIANTS[name] = {"paper": paper, "torchvision": torchvision}


def list_models() -> list[str]:
    """The names of all architectures, sorted.

    >>> import minidl as md
    >>> 'vgg16' in md.models.list_models()
    True
    """
    return sorted(_ENTRIES)


def list_classifiers() -> list[str]:
    """The names of the architectures that tell classes apart, which parts of networks do not.

    >>> names = list_classifiers()
    >>> "googlenet" in names, "inception_naive" in names
    (True, False)
    """
    return [
        name
        for name in list_models()
        if "num_classes" in inspect.signature(_ENTRIES[name].model).parameters
    ]


def check_name(name: str) -> None:
    """Raise UnknownModelError, a ValueError, if there is no architecture of that name.

    >>> check_name("vgg-16")
    Traceback (most recent call last):
    ...
    minidl.models.registry.UnknownModelError: unknown architecture 'vgg-16'; did you mean 'vgg16'?
    """
    if name not in _ENTRIES:
        near = get_close_matches(str(name).lower(), _ENTRIES, n=1, cutoff=0.5)
        all_of_them = f"python -m minidl.train --list-archs lists all {len(list_classifiers())}"
        hint = f"did you mean {near[0]!r}?" if near else all_of_them
        raise UnknownModelError(f"unknown architecture {name!r}; {hint}")


def min_image_size(name: str) -> int:
    """The smallest side of images that an architecture can take.

    Raises:
        UnknownModelError: if there is no such architecture.

    >>> min_image_size("vgg16")
    32
    """
    check_name(name)
    return _ENTRIES[name].model.min_image_size


def own_image_size(name: str) -> int:
    """The side of the images that an architecture is made for, as `create` takes it.

    Raises:
        UnknownModelError: if there is no such architecture.

    >>> own_image_size("resnet18"), own_image_size("resnet20_cifar")
    (224, 32)
    """
    check_name(name)
    size: int = inspect.signature(_ENTRIES[name].model).parameters["image_size"].default
    return size


def create(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    **options: Any,
) -> ImageClassifier:
    """Build an architecture, with fresh weights or with those in a file.

    Args:
        name: one of `list_models()`.
        num_classes: number of outputs.
        in_channels: number of channels of the images.
        image_size: side of the (square) images the network is built for.
        weights: a file that `md.load` reads, whose names and shapes fit the network.
        variant: "paper" or "torchvision", for networks that the two define differently: AlexNet,
            GoogLeNet and ResNet. Those of torchvision take torchvision's weights.
        options: what the architecture offers besides, e.g. dropout=0.3.

    What is None or left out is the architecture's own default (1000 classes of 3x224x224 images
    for those of ImageNet).

    Raises:
        UnknownModelError: if there is no such architecture; the text suggests the nearest name.
        ValueError: if image_size is smaller than the network needs; if the variant is unknown.
        TypeError: if the architecture has no such option; if weights is not a file's name.
        CheckpointError: if the file of weights cannot be read or does not fit.

    >>> import minidl as md
    >>> model = md.models.create("lenet5", num_classes=26)
    >>> model.arch, model(md.zeros(1, 1, 32, 32)).shape
    ('lenet5', (1, 26))
    >>> md.models.create("googlenet", variant="torchvision").arch
    'googlenet_tv'
    """
    check_name(name)
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"create: weights must be a file's name, got {weights!r}; minidl downloads none, "
            "torchvision's files can be read"
        )
    if variant is not None:
        name, implied = _variant(name, variant)
        options = implied | options
    model, fixed = _ENTRIES[name]
    common = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    options |= {option: value for option, value in common.items() if value is not None}
    accepted = sorted(set(inspect.signature(model).parameters) - set(fixed))
    for option in options:
        if option not in accepted:
            raise TypeError(f"{name} has no option {option!r}; it has: {', '.join(accepted)}")
    network = model(**fixed, **options)
    if weights is not None:
        try:
            load_weights(network, weights)
        except MisfitError as error:
            own = network.state_dict()
            if all(name in own and own[name].shape[:1] == (num_classes,) for name in error.names):
                raise CheckpointError(
                    f"{error}; the rest fits: create the network without weights, then "
                    "minidl.training.transfer_learning.load_pretrained(network, Path(FILE), "
                    f"replace_head=True) keeps its new last layer for {num_classes} classes"
                ) from error
            raise
    return network


def _variant(name: str, variant: str) -> tuple[str, dict[str, Any]]:
    """The name and the options that a variant stands for."""
    if name not in _VARIANTS:
        raise ValueError(f"{name} has no variants; there are some of: {', '.join(_VARIANTS)}")
    if variant not in _VARIANTS[name]:
        known = " or ".join(map(repr, _VARIANTS[name]))
        raise ValueError(f"{name}: variant must be {known}, got {variant!r}")
    return _VARIANTS[name][variant]
