"""What learners see: verdicts, the list, hints; with colours in a terminal, plain elsewhere."""

import sys
import textwrap
from collections.abc import Iterable

from .catalogue import EXERCISES
from .folder import Folder
from .format import CHAPTERS, Exercise
from .verdict import CRASHED, FORBIDDEN, NOT_STARTED, PASSED, TIMED_OUT, WRONG, Verdict

WIDTH = 80
COMMAND = "python -m minidl.exercises"
STYLES = {
    PASSED: "bold green",
    WRONG: "bold red",
    FORBIDDEN: "bold red",
    CRASHED: "bold magenta",
    TIMED_OUT: "bold magenta",
    NOT_STARTED: "bold yellow",
}

Line = tuple[str, str]  # a style of rich, and text of at most WIDTH columns


def emit(lines: Iterable[Line]) -> None:
    """Print lines, with their styles if this is a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        for style, text in lines:
            console.print(Text(text, style), soft_wrap=True)
    else:
        for _, text in lines:
            print(text)


def wrap(text: str, style: str = "", indent: str = "  ") -> list[Line]:
    """A paragraph."""
    filled = textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [(style, line) for line in filled]


def verdict_lines(verdict: Verdict, printed: bool = True) -> list[Line]:
    """A verdict as a person reads it."""
    style = STYLES[verdict.status]
    number = EXERCISES[verdict.exercise].number if verdict.exercise in EXERCISES else 0
    label = f"{number}  {verdict.exercise}" if number else verdict.exercise
    lines: list[Line] = [(style, f"{label}: {verdict.status}")]
    lines += wrap(_sentence(verdict.headline), "bold")
    for text in verdict.details:
        lines += wrap(text)
    if verdict.ladder and verdict.status != PASSED:
        lines.append(("", ""))
        for case, text in verdict.ladder:
            lines.append(("green", f"  right  {case}") if not text else ("red", f"  wrong  {case}"))
            if text:
                lines += wrap(text, "", " " * 9)
    if verdict.worst:
        lines += [("", ""), *wrap(f"Furthest off: {verdict.worst}.")]
    if verdict.printed and printed:
        lines += [("", ""), ("dim", "  It printed:")]
        lines += [("dim", f"  | {line[: WIDTH - 4]}") for line in verdict.printed.splitlines()[:12]]
    return lines


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def next_lines(folder: Folder, verdict: Verdict) -> list[Line]:
    """What to do after a verdict."""
    name = verdict.exercise
    if verdict.status != PASSED:
        level = min(folder.of(name).hint + 1, 3)
        file = folder.show(EXERCISES[name]) if name in EXERCISES else folder.path
        return [
            ("", ""),
            ("dim", f"  edit   {file}"),
            ("dim", f"  hint   {COMMAND} hint {name}   (level {level} of 3)"),
        ]
    exercise = folder.next()
    if exercise is None:
        return [("", ""), ("green", "All exercises have passed.")]
    return [("", ""), ("dim", f"  next   exercise {exercise.number}: {folder.show(exercise)}")]


def list_lines(folder: Folder | None) -> list[Line]:
    """All exercises by chapter, with what has been done."""
    lines: list[Line] = []
    passed = 0
    for chapter in CHAPTERS:
        exercises = [ex for ex in EXERCISES.values() if ex.chapter == chapter]
        if exercises:
            lines.append(("bold", chapter))
        for exercise in exercises:
            status = folder.of(exercise.name).status if folder else NOT_STARTED
            passed += status == PASSED
            style = STYLES[status].removeprefix("bold ") if status != NOT_STARTED else ""
            row = f"  {exercise.number:2}  {exercise.name:20} {exercise.title:39} {status}"
            lines.append((style, row))
    lines += [("", ""), ("", f"{passed} of {len(EXERCISES)} passed")]
    if folder is None:
        lines.append(("dim", f"`{COMMAND} start` writes them into a folder to fill in"))
    elif (exercise_left := folder.next()) is not None:
        lines.append(("dim", f"next: {folder.show(exercise_left)}"))
    return lines


def hint_lines(exercise: Exercise, level: int) -> list[Line]:
    """The hints of an exercise up to a level."""
    lines: list[Line] = []
    for number, text in enumerate(exercise.hints[:level], 1):
        lines += [("bold", f"Hint {number} of 3 to {exercise.name}"), *wrap(text)]
    return lines


def code_lines(code: str) -> list[Line]:
    """Source text as it is."""
    return [("", line) for line in code.rstrip().splitlines()]


def diff_lines(lines: Iterable[str]) -> list[Line]:
    """A unified diff, additions green and removals red."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    return [(styles.get(line[:1], ""), line.rstrip("\n")) for line in lines]
