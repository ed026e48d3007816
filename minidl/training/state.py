"""What a run changes while it trains, as the arrays and the plain values of a checkpoint."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..device import to_device
from ..errors import CheckpointError
from ..io.safetensors import AVERAGE_PREFIX, OPTIMIZER_PREFIX
from ..nn import Module
from ..optim import Optimizer, ReduceLROnPlateau, Schedule
from ..random import get_rng_state, set_rng_state
from ..tensor import from_numpy
from .averaging import WeightAverage
from .checkpoint import Checkpoint, from_plain
from .progress import Progress


def weights_of(model: Module) -> dict[str, np.ndarray]:
    """The parameters and buffers by name, on the CPU."""
    return {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}


def load_weights(model: Module, path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Load `weights`, which come from the checkpoint at `path`, into the model.

    Raises:
        CheckpointError: names, shapes or dtypes are not the model's, or a weight is not finite.
    """
    own = model.state_dict()
    for name, array in weights.items():
        if name in own and array.dtype != own[name].dtype:
            raise CheckpointError(f"{path}: {name} is {array.dtype}, expected {own[name].dtype}")
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")
    try:
        model.load_state_dict({name: from_numpy(array) for name, array in weights.items()})
    except ValueError as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise CheckpointError(f"{path}: {reason}") from error


@dataclass(frozen=True)
class RunState:
    """The parts of a run that a checkpoint takes in, and that a resumed run gets back.

    Minidl's random state belongs to them. The order of the images and their augmentation follow
    from the seed and the position in `Progress`.
    """

    model: Module
    optimizer: Optimizer
    schedule: Schedule | ReduceLROnPlateau
    average: WeightAverage | None

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays by name, and what JSON can hold."""
        tensors = weights_of(self.model)
        numbers: dict[str, dict[str, Any]] = {}
        for index, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if np.isscalar(value):
                    numbers.setdefault(str(index), {})[name] = value
                else:
                    tensors[f"{OPTIMIZER_PREFIX}{index}/{name}"] = to_device(value, "cpu")
        state: dict[str, Any] = {
            "optimizer": numbers,
            "schedule": self.schedule.state_dict(),
            "random": get_rng_state(),
        }
        if self.average is not None:
            state["average_updates"] = self.average.updates
            for name, array in self.average.state_dict().items():
                tensors[f"{AVERAGE_PREFIX}{name}"] = array
        return tensors, state

    def unpack(self, checkpoint: Checkpoint) -> Progress:
        """Take over what `pack` gave; returns the progress, which lies beside it.

        Raises:
            CheckpointError: it does not fit the model or the optimiser, or holds weights only.
        """
        path, state = checkpoint.path, checkpoint.state
        load_weights(self.model, path, checkpoint.weights)
        if "optimizer" not in state:
            raise CheckpointError(
                f"{path}: holds weights only; resume from last.safetensors beside it"
            )
        try:
            optimizer: dict[str, dict[str, Any]] = {}
            for index, numbers in state["optimizer"].items():
                optimizer[index] = {name: int(number) for name, number in numbers.items()}
            for name, array in checkpoint.part(OPTIMIZER_PREFIX).items():
                index, key = name.split("/")
                optimizer.setdefault(index, {})[key] = array
            # The options in the groups follow from the settings and the schedule.
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
            self.schedule.load_state_dict(state["schedule"])
            if self.average is not None:
                averages = checkpoint.part(AVERAGE_PREFIX)
                self.average.load_state_dict(averages, int(state["average_updates"]))
            set_rng_state(state["random"])
            if not isinstance(state.get("history", []), list):
                raise ValueError("the history is not a list")
            return from_plain(Progress, state["progress"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: the state in its header is damaged ({type(error).__name__}: {error})"
            ) from error
