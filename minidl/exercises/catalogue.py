"""All exercises, in the order in which they are done."""

import difflib
import importlib
import pkgutil

from . import tasks
from .format import Exercise


def _load() -> dict[str, Exercise]:
    modules = sorted(info.name for info in pkgutil.iter_modules(tasks.__path__))
    found = [
        importlib.import_module(f"{tasks.__name__}.{name}").EXERCISE
        for name in modules
        if name.startswith("e")
    ]
    return {exercise.name: exercise for exercise in found}


EXERCISES: dict[str, Exercise] = _load()


def find(text: str) -> Exercise:
    """The exercise called ``text``: its name, number or file.

    Raises :class:`ValueError`, with the nearest name, where there is none.

    >>> find("4").name, find("e04").name, find("e04_linear_backward.py").name
    ('linear_backward', 'linear_backward', 'linear_backward')
    >>> find("linear_bakward")
    Traceback (most recent call last):
    ValueError: there is no exercise 'linear_bakward'; did you mean 'linear_backward'?
    >>> find("residual")
    Traceback (most recent call last):
    ValueError: there is no exercise 'residual'; did you mean 'residual_backward'?
    """
    for exercise in EXERCISES.values():
        stem = exercise.file.removesuffix(".py")
        if text in (exercise.name, exercise.file, stem, stem[:3], str(exercise.number)):
            return exercise
    near = difflib.get_close_matches(text, EXERCISES, n=1)
    near += [name for name in EXERCISES if text and text in name]
    advice = f"did you mean {near[0]!r}?" if near else "`list` shows them"
    raise ValueError(f"there is no exercise {text!r}; {advice}")
