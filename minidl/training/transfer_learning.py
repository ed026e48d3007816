"""Transfer learning: the weights of another task, a new last layer, layers that stay as they are.

Patterns choose layers by name, as the shell chooses files: `features.conv1`, `layer[12]`, `*.bn?`.
A pattern that matches a module means all of it, so `features` and `features.*` are the same.

What is frozen takes no gradient and has no state in the optimiser. A frozen batch normalisation
normalises by the running statistics that came with the weights, in training too, and does not
change them: the layers behind it are to see what they will see in evaluation, and the statistics
are as much a part of what was learned as the weights. Dropout is not frozen: it belongs to how the
layers behind it are trained. Where nothing before a layer learns, no graph is recorded, so
the forward pass of a frozen beginning costs what an evaluation costs, and its backward pass
nothing.
"""

import math
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .. import models
from ..autograd import no_grad
from ..dtypes import is_floating
from ..errors import CheckpointError, MinidlError
from ..models import ImageClassifier
from ..models.pretrained import MisfitError, load_weights
from ..nn import BatchNorm2d, Module
from ..nn.parameter import parameters_without_values

__all__ = [
    "describe_transfer",
    "freeze",
    "head_names",
    "load_pretrained",
    "parameter_groups",
    "parse_rates",
]


def head_names(model: ImageClassifier) -> list[str]:
    """The parameters and buffers whose shapes depend on the number of classes.

    They are found by building the architecture for 2 and for 3 classes, without values, so
    auxiliary heads and heads that are convolutions need no list of exceptions.

    >>> head_names(models.create("lenet5"))
    ['classifier.fc3.weight', 'classifier.fc3.bias']
    """
    with parameters_without_values():
        two, three = (
            models.create(model.arch, classes, model.in_channels, model.image_size).state_dict()
            for classes in (2, 3)
        )
    return [name for name in two if two[name].shape != three[name].shape]


def load_pretrained(model: ImageClassifier, path: Path, replace_head: bool = False) -> list[str]:
    """Copy the weights in a file into `model`; returns the names that keep their fresh values.

    Args:
        model: the network, as it was drawn at random.
        path: a file that `md.load` reads, or the folder of a run, for its `best.safetensors`.
        replace_head: leave the last layer fresh, and those of auxiliary heads; an auxiliary head
            that the file lacks is fresh as a whole.

    Raises:
        CheckpointError: the file cannot be read, does not fit the network, or holds NaN or
            infinite values. The text lists what does not fit, and says whether it is no more than
            the last layer.
    """
    if path.is_dir():
        path = path / "best.safetensors"
    heads = head_names(model)
    try:
        load_weights(model, path, heads if replace_head else ())
        fresh = heads if replace_head else []
    except MisfitError as error:
        auxiliary = _auxiliary_names(model)
        if not set(error.names) <= {*heads, *auxiliary}:
            raise
        if not replace_head:
            raise CheckpointError(
                f"{error}; the rest fits: --replace-head begins with a new last layer for "
                f"{model.num_classes} classes"
            ) from error
        fresh = [*auxiliary, *(name for name in heads if name not in auxiliary)]
        load_weights(model, path, fresh)
    with no_grad():
        for name, tensor in model.state_dict().items():
            if is_floating(tensor.dtype) and not bool(tensor.isfinite().all()):
                raise CheckpointError(f"{path}: {name} holds NaN or infinite values")
    return fresh


def _auxiliary_names(model: ImageClassifier) -> list[str]:
    """The parameters and buffers of the heads that only training has."""
    pattern = model.spare_names
    return [name for name in model.state_dict() if pattern and re.match(pattern, name)]


def describe_transfer(model: Module, weights: str | None, fresh: Sequence[str]) -> str:
    """Where the weights are from and what of them learns, in a line or two; "" if that is usual.

    >>> lenet = models.create("lenet5")
    >>> names = freeze(lenet, ["features"])
    >>> print(describe_transfer(lenet, "lenet.npz", ["classifier.fc3.weight"]))
    weights from lenet.npz, new: classifier.fc3.weight
    59,134 of 61,706 parameters learn
    """
    lines = []
    if weights is not None:
        lines.append(f"weights from {weights}" + (f", new: {', '.join(fresh)}" if fresh else ""))
    sizes = [(parameter.size, parameter.requires_grad) for parameter in model.parameters()]
    total, learning = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    if learning < total:
        lines.append(f"{learning:,} of {total:,} parameters learn")
    return "\n".join(lines)


def freeze(model: Module, patterns: Sequence[str]) -> list[str]:
    """Freeze what the patterns match; returns the names of the frozen parameters.

    It holds for the network, not for one pass: `model.train()` changes nothing about it.

    Raises:
        MinidlError: a pattern matches nothing, or nothing is left to learn.

    >>> import minidl as md
    >>> lenet = md.models.create("lenet5")
    >>> freeze(lenet, ["features"])[:2]
    ['features.conv1.weight', 'features.conv1.bias']
    >>> lenet.features(md.zeros(1, 1, 32, 32)).requires_grad
    False
    """
    matched = {name for pattern in patterns for name in _matching("freeze", pattern, model)}
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm2d):
            own = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
            module.frozen = name in matched or (bool(own) and matched.issuperset(own))
    frozen = []
    for name, parameter in model.named_parameters():
        if name in matched:
            parameter.requires_grad = False
            frozen.append(name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise MinidlError(f"freeze: {', '.join(patterns)} leaves nothing to learn")
    return frozen


def parse_rates(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Factors of the learning rate by pattern, each from `PATTERN=FACTOR`.

    Raises:
        ValueError: a text is of another form, or a factor is not a positive number.

    >>> parse_rates(["features.*=0.1", "classifier=1"])
    [('features.*', 0.1), ('classifier', 1.0)]
    """
    rates = []
    for text in texts:
        pattern, _, number = (piece.strip() for piece in text.rpartition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not pattern or not 0 < factor < math.inf:
            raise ValueError(
                f"expected PATTERN=FACTOR with a factor > 0, got {text!r} "
                "(what is not to learn at all is for freeze)"
            )
        rates.append((pattern, factor))
    return rates


def parameter_groups(
    model: Module, lr: float, rates: Sequence[tuple[str, float]] = ()
) -> list[dict[str, Any]]:
    """What an optimiser is to learn, in groups: those that learn at `lr`, then one for each rate.

    Frozen parameters are in no group. Where several patterns match, the first holds.

    Raises:
        MinidlError: a pattern matches nothing, or nothing that learns and has no rate yet.

    >>> lenet = models.create("lenet5")
    >>> groups = parameter_groups(lenet, 0.1, [("classifier.fc3", 10), ("classifier", 2)])
    >>> [(len(group["params"]), group["lr"]) for group in groups]
    [(4, 0.1), (2, 1.0), (4, 0.2)]
    """
    left = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = []
    for pattern, factor in rates:
        matched = _matching("lr-scale", pattern, model)
        chosen = [name for name in left if name in matched]
        if not chosen:
            raise MinidlError(
                f"lr-scale: {pattern!r} matches only what is frozen or has a rate already"
            )
        groups.append({"params": [left.pop(name) for name in chosen], "lr": lr * factor})
    return [{"params": list(left.values()), "lr": lr}, *groups]


def _matching(option: str, pattern: str, model: Module) -> set[str]:
    """The names of modules and parameters that a pattern matches, or that are in such a module."""
    names = [name for name, _ in model.named_modules() if name]
    names += [name for name, _ in model.named_parameters()]
    matched = {name for name in names if any(fnmatchcase(n, pattern) for n in _upwards(name))}
    if not matched:
        near = get_close_matches(pattern, names, n=1, cutoff=0.5)
        parts = [name for name, _ in model.named_children()]
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(parts)}"
        raise MinidlError(f"{option}: {pattern!r} matches no layer or parameter; {hint}")
    return matched


def _upwards(name: str) -> Iterator[str]:
    """A name, and those of the modules that it is in.

    >>> list(_upwards("layer1.0.conv1"))
    ['layer1.0.conv1', 'layer1.0', 'layer1']
    """
    while name:
        yield name
        name = name.rpartition(".")[0]
