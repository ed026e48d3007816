"""Settings of a run, and the defaults that let each architecture train on the embedded images.

The defaults are for small data sets and two processors; they are not the papers' recipes.
"""

from dataclasses import dataclass, replace
from typing import Any

from ..data import DEFAULT_DATA
from ..precision import PRECISIONS

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "step", "multistep", "exponential", "polynomial", "cosine", "plateau")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result, plus the number of threads, which does not.

    `image_size` and `num_classes` are None until the data set has been opened.

    Raises:
        ValueError: a value is out of range.
    """

    arch: str
    data: str = DEFAULT_DATA
    image_size: int | None = None
    num_classes: int | None = None
    in_channels: int = 3
    epochs: int = 6
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 3e-4
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    seed: int = 0
    limit: int | None = None
    device: str = "cpu"
    amp: str = "off"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("in_channels", (1, 3)),
            ("amp", ("off", *PRECISIONS)),
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {known}")
        counts = ("image_size", "num_classes", "epochs", "batch_size", "limit", "threads")
        for name in (*counts, "lr", "momentum", "weight_decay", "seed"):
            value, minimum = getattr(self, name), 1 if name in counts else 0
            if value is not None and not value >= minimum:
                raise ValueError(f"{name} is {value}, expected at least {minimum}")

    def changed(self, **given: Any) -> "Settings":
        """A copy with the options that are given (not None)."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


# By the beginning of the architecture's name; the learning rates belong to Adam.
FAMILIES: dict[str, dict[str, Any]] = {
    "lenet": {"in_channels": 1, "epochs": 12, "batch_size": 32, "lr": 2e-3},
    "alexnet": {"epochs": 8},
    "vgg": {"epochs": 6},
    "resnet": {"epochs": 8, "lr": 2e-3},
    "plain": {"epochs": 8, "lr": 2e-3},
    "wide_resnet": {"epochs": 8, "lr": 1e-3},
    "resnext": {"epochs": 8, "lr": 1e-3},
    "se_resnet": {"epochs": 8, "lr": 1e-3},
    "mobilenet": {"epochs": 8, "lr": 3e-3},
    "preresnet": {"epochs": 8, "lr": 2e-3},
    "wrn": {"epochs": 8, "lr": 2e-3},
    "stochdepth": {"epochs": 8, "lr": 2e-3},
    "fractalnet": {"epochs": 12, "batch_size": 32, "lr": 2e-3},
    "squeezenet": {"epochs": 12, "batch_size": 32, "lr": 1e-3},
    "densenet": {"epochs": 8, "lr": 2e-3},
    "googlenet": {"epochs": 8, "lr": 1e-3},
    "inception": {"epochs": 8, "lr": 1e-3},
    "nin": {"epochs": 12, "batch_size": 32},
    "zfnet": {"epochs": 8},
}

# Learning rate and weight decay to start from where another optimiser is asked for.
OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.02, "weight_decay": 5e-4},
    "adam": {},
    "adamw": {"weight_decay": 1e-2},
    "rmsprop": {"lr": 1e-4, "momentum": 0.0},
}


def default_settings(arch: str, **given: Any) -> Settings:
    """The settings that `arch` trains with, changed by the options that are `given` (not None).

    >>> default_settings("vgg16").epochs, default_settings("vgg16", epochs=2).epochs
    (6, 2)
    >>> default_settings("vgg16", optimizer="sgd").lr
    0.02
    """
    family = next((values for name, values in FAMILIES.items() if arch.startswith(name)), {})
    by_optimizer = OPTIMIZER_DEFAULTS.get(given.get("optimizer") or "adam", {})
    return Settings(arch).changed(**(family | by_optimizer)).changed(**given)
