"""From the source of an exercise to the learner's stub, the answer, and the planted mistakes."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from .catalogue import EXERCISES
from .format import Exercise, Mistake

NOT_YET = "    raise NotImplementedError\n"


def stub(exercise: Exercise) -> str:
    """The learner's file: task, imports, given code, and the function without its body.

    >>> print(stub(EXERCISES["linear_backward"])[-31:])
        raise NotImplementedError
    """
    return _head(exercise) + "\n\n" + empty_code(exercise)


def answer(exercise: Exercise) -> str:
    """The learner's file with the solution in the place of the stub."""
    return _head(exercise) + "\n\n" + solved_code(exercise)


def empty_code(exercise: Exercise) -> str:
    """What is given, and the function without its body."""
    source = inspect.getsource(exercise.solution)
    docstring = ast.parse(source).body[0].body[0]  # type: ignore[attr-defined]
    return (
        _given(exercise)
        + "".join(source.splitlines(keepends=True)[: docstring.end_lineno])
        + NOT_YET
    )


def solved_code(exercise: Exercise) -> str:
    """What is given, and the solution."""
    return _given(exercise) + inspect.getsource(exercise.solution)


def _given(exercise: Exercise) -> str:
    return "".join(f"{inspect.getsource(part)}\n\n" for part in exercise.given)


def _head(exercise: Exercise) -> str:
    """Task and imports."""
    title = f"Exercise {exercise.number}: {exercise.title}"
    imports = ["import numpy as np\n"]
    if exercise.uses:
        imports.append("\n")
        for name in exercise.uses:
            module = EXERCISES[name].file.removesuffix(".py")
            imports.append(f"from {module} import {name}\n")
    docstring = f'"""{title}\n{"=" * len(title)}\n\n{exercise.task}\n"""\n'
    if "\\" in docstring:
        docstring = "r" + docstring
    return docstring + "\n" + "".join(imports)


def mistaken_source(exercise: Exercise, *mistakes: Mistake) -> str:
    """The solution's source with mistakes planted in it."""
    source = textwrap.dedent(inspect.getsource(exercise.solution))
    for mistake in mistakes:
        for old, new in mistake.edits:
            if source.count(old) != 1:
                raise ValueError(
                    f"{exercise.name}, mistake {mistake.name}: {old!r} stands "
                    f"{source.count(old)} times in the solution, not once"
                )
            source = source.replace(old, new)
    return source


def plant(exercise: Exercise, *mistakes: Mistake) -> Callable[..., Any]:
    """The solution with mistakes planted in it, ready to call."""
    if len(mistakes) == 1 and mistakes[0].function is not None:
        return mistakes[0].function
    namespace = dict(vars(exercise.module))
    code = compile(mistaken_source(exercise, *mistakes), f"<{exercise.name}>", "exec")
    exec(code, namespace)
    return namespace[exercise.name]
