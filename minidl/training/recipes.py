"""Recipes: what `--recipe` sets for an architecture, from the data file `recipes.toml` beside this.

`tiny` trains on the embedded images within minutes, `cifar` is for data sets of small images, and
`paper` is what the architecture's paper says, as far as it says it.
"""

import re
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import MinidlError
from .settings import BELONGING, Settings

FILE = Path(__file__).with_name("recipes.toml")

# Learning rate and weight decay to start from where another optimiser is asked for.
OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.02, "weight_decay": 5e-4},
    "adam": {},
    "adamw": {"weight_decay": 1e-2},
    "rmsprop": {"lr": 1e-4, "momentum": 0.0},
}
# What has a meaning only for the optimiser that a recipe names.
OF_THE_OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "alpha", "eps")
# What a recipe says in epochs: where a run is shorter or longer, these are too.
IN_EPOCHS = ("warmup", "milestones", "step_size")


@dataclass(frozen=True)
class Data:
    """What a paper trained on."""

    name: str
    images: int
    classes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.images:,} images, {self.classes:,} classes)"


@dataclass(frozen=True)
class PaperRecipe:
    """How a paper trained its networks.

    `settings` are options by their names; `substitutes` say what the source leaves open, or minidl
    does otherwise, and what is done instead.
    """

    name: str
    archs: tuple[str, ...]
    source: str
    data: Data
    settings: dict[str, Any] = field(default_factory=dict)
    substitutes: tuple[str, ...] = ()


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@cache
def paper_recipes() -> dict[str, PaperRecipe]:
    """The papers' recipes by name, in the order of the file.

    >>> recipe = paper_recipes()["squeezenet"]
    >>> recipe.archs, recipe.settings["batch_size"], recipe.settings["accumulate"]
    (('squeezenet1_0', 'squeezenet1_1'), 512, 16)
    """
    datasets = {name: Data(**values) for name, values in _read()["data"].items()}
    entries: dict[str, dict[str, Any]] = {}
    recipes = {}
    for name, own in _read()["paper"].items():
        model = entries[own["like"]] if "like" in own else {}
        settings = model.get("settings", {}) | own.get("settings", {})
        entry = entries[name] = model | own | {"settings": settings}
        recipes[name] = PaperRecipe(
            name,
            tuple(entry["archs"]),
            entry["source"],
            datasets[entry["data"]],
            settings,
            tuple(entry["substitutes"]),
        )
    return recipes


def paper_recipe(arch: str) -> PaperRecipe:
    """The recipe of the paper of `arch`.

    Raises:
        MinidlError: there is none.

    >>> paper_recipe("vgg16").source
    'Simonyan, Zisserman, ICLR 2015, section 3.1'
    """
    for recipe in paper_recipes().values():
        if arch in recipe.archs:
            return recipe
    raise MinidlError(f"{arch}: there is no paper's recipe for it")


def recipe_settings(arch: str, recipe: str) -> dict[str, Any]:
    """The options that `recipe` (tiny, cifar or paper) sets for `arch`.

    Raises:
        MinidlError: the paper has none for it.

    >>> recipe_settings("vgg11_bn", "cifar")["lr"]
    0.05
    """
    entries = _read()["any"] + (_read()[recipe] if recipe != "paper" else [])
    values: dict[str, Any] = {}
    for entry in entries:
        if any(fnmatchcase(arch, pattern) for pattern in entry.get("archs", ["*"])):
            values |= entry["settings"]
    return values | (paper_recipe(arch).settings if recipe == "paper" else {})


def default_settings(arch: str, **given: Any) -> Settings:
    """The settings that `arch` trains with: its recipe, changed by the options that are `given`.

    Where another optimiser or schedule than the recipe's is given, the recipe's options of that
    fall with it. With another number of epochs its milestones, steps and warm-up stretch, with
    another image size the scales that images are cut from.

    Raises:
        MinidlError: there is no such recipe for it.
        ValueError: an option is out of range.

    >>> default_settings("vgg16").epochs, default_settings("vgg16", epochs=2).epochs
    (6, 2)
    >>> default_settings("vgg16", optimizer="sgd").lr
    0.02
    >>> default_settings("wrn40_1", recipe="paper", epochs=10).milestones
    (3.0, 6.0, 8.0)
    >>> default_settings("resnet18", recipe="paper", image_size=56).augment
    'scale:64:120, flip, pca-colour:0.1'
    """
    values = recipe_settings(arch, given.get("recipe", Settings.recipe))
    optimizer = given.get("optimizer")
    if optimizer not in (None, values.get("optimizer", Settings.optimizer)):
        tiny = recipe_settings(arch, "tiny") | OPTIMIZER_DEFAULTS[optimizer]
        values = {n: v for n, v in values.items() if n not in OF_THE_OPTIMIZER}
        values |= {n: v for n, v in tiny.items() if n in OF_THE_OPTIMIZER}
    if given.get("schedule") not in (None, values.get("schedule", Settings.schedule)):
        of_schedule = {n for n, (choice, _) in BELONGING.items() if choice == "schedule"}
        values = {n: v for n, v in values.items() if n not in of_schedule}
    if "epochs" in given and "epochs" in values:
        values |= _stretched(values, given["epochs"] / values["epochs"])
    if given.get("image_size") and "image_size" in values:
        values["augment"] = _rescaled(values["augment"], given["image_size"] / values["image_size"])
    return Settings(**{"arch": arch} | values | given)


def _stretched(values: dict[str, Any], factor: float) -> dict[str, Any]:
    """The recipe's options in epochs for a run that is `factor` times as long."""
    stretched = {}
    for name in IN_EPOCHS:
        if isinstance(values.get(name), list):
            stretched[name] = [factor * epochs for epochs in values[name]]
        elif name in values:
            stretched[name] = factor * values[name]
    return stretched


def _rescaled(augment: str, factor: float) -> str:
    """A recipe's augmentation for images of `factor` times the size.

    >>> _rescaled("scale:256:480, flip", 0.25)
    'scale:64:120, flip'
    """
    return re.sub(
        r"scale:(\d+):(\d+)",
        lambda found: f"scale:{':'.join(str(round(factor * int(n))) for n in found.groups())}",
        augment,
    )
