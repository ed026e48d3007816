"""`--init`: the name of a scheme for fresh weights, and what it does to a network."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

from ..nn import Conv2d, Linear, Module, init
from ..tensor import Tensor

OWN = "model"  # what each architecture does by itself

Fill = Callable[[Tensor], Tensor]

SCHEMES: dict[str, Fill] = {
    "he_normal": init.he_normal_,
    "he_normal_fan_out": partial(init.he_normal_, mode="fan_out"),
    "he_uniform": init.he_uniform_,
    "glorot_normal": init.glorot_normal_,
    "glorot_uniform": init.glorot_uniform_,
    "lecun_normal": init.lecun_normal_,
    "lecun_uniform": init.lecun_uniform_,
    "lenet_uniform": init.lenet_uniform_,
    "torch_legacy_uniform": init.torch_legacy_uniform_,
}

# Those that are followed by a number: constant:1.
NUMBERED: dict[str, Callable[[float], Fill]] = {
    "normal": lambda x: partial(init.normal_, std=x),
    "trunc_normal": lambda x: partial(init.trunc_normal_, std=x, a=-2.0 * x, b=2.0 * x),
    "uniform": lambda x: partial(init.uniform_, low=-x, high=x),
    "constant": lambda x: partial(init.constant_, value=x),
}


class Part(NamedTuple):
    """How to fill the parameters whose name fits `pattern`."""

    pattern: str
    fill: Fill


def parse_init(text: str) -> tuple[Fill | None, list[Part]]:
    """The scheme for all weights (None: the network's own), and those for some parameters.

    The text is a scheme, or PATTERN=SCHEME, or several of these with commas between them.

    Raises:
        ValueError: a scheme is unknown, its number is missing or out of range, or there are two
            schemes for all weights.

    >>> parse_init("normal:0.01,features.4.bias=constant:1")[1][0].pattern
    'features.4.bias'
    >>> parse_init("he")
    Traceback (most recent call last):
    ...
    ValueError: unknown initialiser 'he'; there are: model, he_normal, he_normal_fan_out,
    he_uniform, glorot_normal, glorot_uniform, lecun_normal, lecun_uniform, lenet_uniform,
    torch_legacy_uniform, normal:X, trunc_normal:X, uniform:X, constant:X
    """
    whole: list[Fill | None] = []
    parts = []
    for item in text.split(","):
        pattern, equals, scheme = item.strip().rpartition("=")
        if equals:
            parts.append(Part(pattern, _scheme(scheme)))
        else:
            whole.append(None if scheme == OWN else _scheme(scheme))
    if len(whole) > 1:
        raise ValueError(f"expected one scheme for all weights, got {len(whole)} in {text!r}")
    return (whole[0] if whole else None), parts


def _scheme(text: str) -> Fill:
    name, colon, number = text.partition(":")
    if name in SCHEMES and not colon:
        return SCHEMES[name]
    if name not in NUMBERED:
        known = ", ".join((OWN, *SCHEMES, *(f"{name}:X" for name in NUMBERED)))
        raise ValueError(f"unknown initialiser {text!r}; there are: {known}")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not (abs(value) < 1e6 and (value > 0.0 or name == "constant")):
        kind = "a number" if name == "constant" else "a number > 0"
        raise ValueError(f"{name}: expected {kind}, {name}:X, got {text!r}")
    return NUMBERED[name](value)


def initialise(model: Module, text: str) -> None:
    """Fill the parameters of `model` as `text` says, see `parse_init`.

    A scheme without a pattern is for the weights of all convolutions and linear layers, and sets
    their biases to 0. Other layers change only where a pattern names their parameters.

    Raises:
        ValueError: see `parse_init`; a pattern fits no parameter, or a scheme that needs a fan-in
            is asked for a bias.

    >>> import minidl as md
    >>> model = md.models.create("lenet5")
    >>> initialise(model, "glorot_uniform,classifier.fc?.bias=constant:1")
    >>> [float(layer.bias.data[0]) for layer in (model.features.conv1, model.classifier.fc1)]
    [0.0, 1.0]
    """
    whole, parts = parse_init(text)
    if whole is not None:
        for layer in model.modules():
            if isinstance(layer, Conv2d | Linear):
                whole(layer.weight)
                if layer.bias is not None:
                    init.zeros_(layer.bias)
    named = dict(model.named_parameters())
    for pattern, fill in parts:
        fitting = [parameter for name, parameter in named.items() if fnmatchcase(name, pattern)]
        if not fitting:
            raise ValueError(
                f"init: no parameter fits {pattern!r}, they are named like {next(iter(named))}"
            )
        for parameter in fitting:
            fill(parameter)
