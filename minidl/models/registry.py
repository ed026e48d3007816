"""The registry: every architecture by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from ..nn import Module

Builder = TypeVar("Builder", bound=Callable[..., Module])

_BUILDERS: dict[str, Callable[..., Module]] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Decorator: make a class, or a function that builds a model, available under `name`.

    It takes keyword arguments, among them num_classes, in_channels and image_size.

    Raises:
        ValueError: if the name is taken.
    """

    def register(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise ValueError(f"register_model: an architecture named {name!r} exists already")
        _BUILDERS[name] = builder
        return builder

    return register


def list_models() -> list[str]:
    """The names of all architectures, sorted.

    >>> import minidl as md
    >>> md.models.list_models()[:2]
    ['alexnet', 'lenet5']
    """
    return sorted(_BUILDERS)


def create(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    **options: Any,
) -> Module:
    """Build an architecture with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: number of outputs.
        in_channels: number of channels of the images.
        image_size: side of the (square) images the network is built for.
        options: what the architecture offers besides, e.g. dropout=0.3.

    What is None or left out is the architecture's own default (1000 classes of 3x224x224 images
    for those of ImageNet).

    Raises:
        ValueError: if there is no such architecture; the text suggests the nearest name.
        TypeError: if the architecture has no such option.

    >>> import minidl as md
    >>> model = md.models.create("vgg11", num_classes=10, image_size=32)
    >>> model.arch, model(md.zeros(1, 3, 32, 32)).shape
    ('vgg11', (1, 10))
    """
    if name not in _BUILDERS:
        near = get_close_matches(str(name), _BUILDERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(list_models())}"
        raise ValueError(f"unknown architecture {name!r}; {hint}")
    builder = _BUILDERS[name]
    common = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    options |= {option: value for option, value in common.items() if value is not None}
    accepted = inspect.signature(builder).parameters
    for option in options:
        if option not in accepted:
            raise TypeError(
                f"{name} has no option {option!r}; it has: {', '.join(sorted(accepted))}"
            )
    return builder(**options)
