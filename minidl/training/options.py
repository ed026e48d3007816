"""Options declared once: a dataclass's fields make the command line, the TOML file and the checks.

A field says `name: kind = option(default, group, help, ...)`, where kind is str, int, float, bool
or tuple[one of these, ...], with `| None` where the option may be left open.
"""

import argparse
import difflib
import json
import math
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import MinidlError

__all__ = [
    "Option",
    "add_arguments",
    "checked",
    "option",
    "options_of",
    "parsed",
    "read_toml",
    "to_toml",
]


TEXT = "a text without control characters"


@dataclass(frozen=True)
class Option:
    """What an option may be. Bounds are inclusive but for `above`; `check` raises ValueError."""

    group: str
    help: str
    kind: type = str
    optional: bool = False
    many: bool = False
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    metavar: str | None = None
    check: Callable[[Any], Any] | None = None

    @property
    def expectation(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        words = {int: "a whole number", float: "a number", bool: "true or false", str: TEXT}
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in ((">=", self.minimum), (">", self.above), ("<=", self.maximum))
            if bound is not None
        ]
        return " ".join([words[self.kind], " and ".join(bounds)]).strip()


def option(default: Any, group: str, help: str, **limits: Any) -> Any:
    """A dataclass field with `Option(group, help, **limits)` behind it.

    A `default` of `dataclasses.MISSING` makes the option a required one.
    """
    return field(default=default, metadata={"group": group, "help": help} | limits)


def options_of(cls: type) -> dict[str, Option]:
    """The options of a dataclass whose fields were made by `option`.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     epochs: int = option(1, "how", "passes over the images", minimum=1)
    ...     milestones: tuple[float, ...] = option((), "how", "epochs", minimum=0)
    >>> options_of(Example)["epochs"].expectation, options_of(Example)["milestones"].many
    ('a whole number >= 1', True)
    """
    found = {}
    for name, hint in get_type_hints(cls).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kind = next(kind for kind in kinds if kind is not NoneType)
        many = get_origin(kind) is tuple
        found[name] = Option(
            kind=get_args(kind)[0] if many else kind,
            optional=NoneType in kinds,
            many=many,
            **next(f.metadata for f in fields(cls) if f.name == name),
        )
    return found


def checked(option: Option, value: Any) -> Any:
    """`value` as the option's type: whole numbers become floats, lists tuples, where asked for.

    Raises:
        ValueError: it is not what the option expects.

    >>> checked(Option("how", "rate", float, above=0), 1)
    1.0
    >>> checked(Option("how", "rate", float, above=0), -1)
    Traceback (most recent call last):
    ...
    ValueError: expected a number > 0, got -1
    """
    if value is None and option.optional:
        return None
    if option.many:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, each {option.expectation}, got {value!r}")
        value = tuple(_checked_one(option, one) for one in value)
    else:
        value = _checked_one(option, value)
    if option.check is not None:
        option.check(value)
    return value


def _checked_one(option: Option, value: Any) -> Any:
    kind = option.kind
    right = isinstance(value, int | float if kind is float else kind)
    right = right and isinstance(value, bool) == (kind is bool)
    if right and kind in (int, float):
        right = (
            math.isfinite(value)
            and (option.minimum is None or value >= option.minimum)
            and (option.maximum is None or value <= option.maximum)
            and (option.above is None or value > option.above)
        )
    if right and kind is str:  # texts become file names, lines of output and TOML
        right = not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value)
    if right and option.choices:
        right = value in option.choices
    if not right:
        raise ValueError(f"expected {option.expectation}, got {value!r}")
    return kind(value)


def parsed(option: Option, text: str) -> Any:
    """The value that `text` on a command line stands for; lists are separated by commas.

    >>> parsed(Option("how", "epochs", float, many=True), "30,60")
    (30.0, 60.0)
    """
    if option.many:
        texts = [part.strip() for part in text.split(",") if part.strip()]
        return checked(option, [_number(option, part) for part in texts])
    return checked(option, _number(option, text))


def _number(option: Option, text: str) -> Any:
    if option.kind not in (int, float):
        return text
    try:
        return option.kind(text)
    except ValueError:
        return text  # which `checked` will complain about


def add_arguments(
    parser: argparse.ArgumentParser, cls: type, names: Collection[str] | None = None
) -> None:
    """Give `parser` the options of `cls`, by group, or those of them that are in `names`.

    What the user does not give leaves no trace.
    """
    groups: dict[str, Any] = {}
    for name, one in options_of(cls).items():
        if names is not None and name not in names:
            continue
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        flag = f"--{name.replace('_', '-')}"
        arguments: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(one)}
        if one.kind is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            arguments["type"] = _argument_type(one)
            arguments["action"] = _Extend if one.many else "store"
            arguments["metavar"] = one.metavar or {int: "N", float: "X"}.get(one.kind, "NAME")
        groups[one.group].add_argument(flag, **arguments)


class _Extend(argparse.Action):
    """A list that is given twice has the entries of both."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *values))


def _help(one: Option) -> str:
    choices = f": {', '.join(map(str, one.choices))}" if one.choices else ""
    return f"{one.help}{choices}".replace("%", "%%")


def _argument_type(one: Option) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return parsed(one, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def read_toml(path: Path, cls: type) -> dict[str, Any]:
    """The options of `cls` that a TOML file gives, checked; dashes stand for underscores.

    Raises:
        MinidlError: the file cannot be read, is not TOML, has an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MinidlError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested without end
        raise MinidlError(f"{path}: not a TOML file ({error})") from error
    given = {}
    for key, value in values.items():
        try:
            name, one = find(options_of(cls), key.replace("-", "_"))
            given[name] = checked(one, value)
        except ValueError as error:
            raise MinidlError(f"{path}: {key}: {error}") from error
    return given


def find(options: Mapping[str, Option], name: str) -> tuple[str, Option]:
    """An option by its name.

    Raises:
        ValueError: there is none, and perhaps which one was meant.
    """
    if name not in options:
        close = difflib.get_close_matches(name, options, n=1)
        hint = f"did you mean {close[0]}?" if close else f"--help lists all {len(options)}"
        raise ValueError(f"unknown option; {hint}")
    return name, options[name]


def to_toml(settings: Any) -> str:
    """All options of a dataclass object as a TOML file, with what they mean as comments."""
    lines: list[str] = []
    group = ""
    for name, one in options_of(type(settings)).items():
        if one.group != group:
            group = one.group
            lines += ["", f"# {group}"]
        value = getattr(settings, name)
        text = f"# {name} =" if value is None else f"{name} = {_toml(value)}"
        lines.append(f"{text}  # {one.help}")
    return "\n".join(lines).lstrip() + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
