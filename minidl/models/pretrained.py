"""Weights from a file into a model."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from ..errors import CheckpointError
from ..io import load
from ..io.files import listed
from ..tensor import Tensor
from .classifier import ImageClassifier

COUNTER = ".num_batches_tracked"  # of batch normalisation; files before PyTorch 0.4.1 lack it
PARALLEL = "module."  # what PyTorch's DataParallel puts before every name


class MisfitError(CheckpointError):
    """Weights are those of another network; `names` are those that do not fit."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        super().__init__(text)
        self.names = names


def load_weights(
    model: ImageClassifier, path: str | os.PathLike[str], new: Collection[str] = ()
) -> None:
    """Copy the weights in a file that `md.load` reads into a model.

    Every name and shape must fit. What is forgiven is what other files of the same network have:
    the names in the model's table `old_names`, "module." before every name, parts that the network
    lacks and calls `spare_names`, and batch normalisation without counters, which then stay as
    they are.

    Args:
        model: the network.
        path: the file.
        new: names in the network that keep their values, whatever the file has under them.

    Raises:
        CheckpointError: the file cannot be read; MisfitError, if it does not fit. The model is
            unchanged.
    """
    own = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in new}
    weights = renamed(model, load(path))
    weights = {name: tensor for name, tensor in weights.items() if name not in new}
    if model.spare_names is not None:
        spare = [n for n in weights if n not in own and re.match(model.spare_names, n)]
        weights = {name: tensor for name, tensor in weights.items() if name not in spare}
    missing = [name for name in own if name not in weights and not name.endswith(COUNTER)]
    unexpected = [name for name in weights if name not in own]
    misshaped = {
        name: f"{name} {weights[name].shape} for {shape}"
        for name, shape in own.items()
        if name in weights and weights[name].shape != shape
    }
    problems = [
        f"{len(names)} {title} ({listed(names)})"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mis-shaped", [*misshaped.values()]),
        )
        if names
    ]
    if problems:
        raise MisfitError(
            f"{path}: does not fit {model.arch}: {', '.join(problems)}",
            [*missing, *unexpected, *misshaped],
        )
    model.load_state_dict(weights, strict=False)


def renamed(model: ImageClassifier, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under today's names."""
    if all(name.startswith(PARALLEL) for name in weights):
        weights = {name.removeprefix(PARALLEL): tensor for name, tensor in weights.items()}
    for pattern, replacement in model.old_names:
        weights = {re.sub(pattern, replacement, name): value for name, value in weights.items()}
    return weights
