"""What a recipe set, and where a run deviates from its paper, for people."""

import textwrap
from typing import Any

from .options import options_of
from .recipes import Data, paper_recipe, recipe_settings
from .settings import Settings

WIDTH = 80


def shown(value: Any) -> str:
    """An option's value as it is written on the command line.

    >>> shown([30, 60]), shown(0.0001), shown(True)
    ('30,60', '0.0001', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def describe_recipe(settings: Settings, data: Data) -> str:
    """What the recipe of `settings` set, and what deviates from it.

    `data` is what the run trains on.

    >>> text = describe_recipe(Settings("lenet5", recipe="cifar"), Data("CIFAR-10", 50000, 10))
    >>> print(text.splitlines()[0])
    recipe cifar
    """
    recipe = recipe_settings(settings.arch, settings.recipe)
    values = {name: recipe[name] for name in options_of(Settings) if name in recipe}
    sets = "; ".join(f"{_flag(name)} {shown(value)}" for name, value in values.items())
    source = "" if settings.recipe != "paper" else f": {paper_recipe(settings.arch).source}"
    lines = [*_wrapped(f"recipe {settings.recipe}{source}", "", "  "), *_wrapped(sets, "  ", "  ")]
    deviations = [
        f"{_flag(name)} {_now(getattr(settings, name))} instead of {shown(value)}"
        for name, value in values.items()
        if _now(getattr(settings, name)) != shown(value)
    ]
    if settings.recipe == "paper":
        paper = paper_recipe(settings.arch)
        if (data.images, data.classes) != (paper.data.images, paper.data.classes):
            deviations.insert(0, f"{data} instead of {paper.data}")
        lines.append("what deviates from the paper:")
        deviations += paper.substitutes
    elif deviations:
        lines.append("changed by options:")
    for deviation in deviations:
        lines += _wrapped(deviation, "  - ", "    ")
    return "\n".join(lines)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _now(value: Any) -> str:
    return "the default" if value is None else shown(value)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
