"""Recipes: the settings that each architecture trains with unless told otherwise.

The defaults are for small data sets and two processors; they are not the papers' recipes.
"""

from typing import Any

from .settings import Settings

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
