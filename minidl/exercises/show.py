"""What learners see: verdicts, the list, hints; with colours in a terminal, plain elsewhere."""

import shutil
import sys
import textwrap
from collections.abc import Iterable

from . import capstone
from .catalogue import EXERCISES
from .folder import Folder
from .format import CHAPTERS, Exercise
from .verdict import CRASHED, FORBIDDEN, NOT_STARTED, PASSED, TIMED_OUT, WRONG, Verdict

COMMAND = "python -m minidl.exercises"
STYLES = {
    PASSED: "bold green",
    WRONG: "bold red",
    FORBIDDEN: "bold red",
    CRASHED: "bold magenta",
    TIMED_OUT: "bold magenta",
    NOT_STARTED: "bold yellow",
}

Line = tuple[str, str]  # a style of rich, and text of at most `width` columns


def width() -> int:
    """The columns to write in: the terminal's, 80 at most, 50 at least."""
    return min(80, max(50, shutil.get_terminal_size().columns))


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
            print(text, flush=True)  # `watch | tee` shows each verdict at once


def wrap(text: str, style: str = "", indent: str = "  ") -> list[Line]:
    """A paragraph."""
    filled = textwrap.wrap(
        text, width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [(style, line) for line in filled]


def brief_lines(verdict: Verdict) -> list[Line]:
    """The gist of a verdict."""
    exercise = EXERCISES.get(verdict.exercise)
    number = f"{exercise.number}  " if exercise else ""
    title = f"{number}{verdict.exercise}: {verdict.status}"
    text = verdict.headline
    first = text.partition(" ")[0]
    is_name = first in (exercise.outputs if exercise else ()) or (len(first) == 1 and first != "a")
    text = text if is_name else text[:1].upper() + text[1:]
    text += "" if text.endswith((".", "?", "!")) else "."
    return [(STYLES[verdict.status], title), *wrap(text, "bold")]


def verdict_lines(verdict: Verdict, printed: bool = True) -> list[Line]:
    """A verdict as a person reads it."""
    lines = brief_lines(verdict)
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
        lines += [
            ("dim", f"  | {line[: width() - 4]}") for line in verdict.printed.splitlines()[:12]
        ]
    return lines


def next_lines(folder: Folder, verdict: Verdict) -> list[Line]:
    """What to do after a verdict."""
    name = verdict.exercise
    if verdict.status != PASSED and name in EXERCISES:
        level = min(folder.of(name).hint + 1, 3)
        return [
            ("", ""),
            ("dim", f"  edit   {folder.show(name)}"),
            ("dim", f"  hint   {COMMAND} hint {name}   (level {level} of 3)"),
        ]
    following = folder.next()
    if following in EXERCISES:
        return [("", ""), ("dim", f"  next   {folder.show(following)}")]
    if folder.of(capstone.NAME).status == PASSED:
        return [("", ""), ("green", "  That was all. Well done.")]
    return [("", ""), ("dim", f"  next   {COMMAND} check {capstone.NAME}")]


def list_lines(folder: Folder | None) -> list[Line]:
    """All exercises by chapter, with what has been done."""
    rows = [(ex.chapter, str(ex.number), ex.name, ex.title) for ex in EXERCISES.values()]
    rows.append((CHAPTERS[-1], "", capstone.NAME, capstone.TITLE))
    lines: list[Line] = []
    passed, chapter = 0, ""
    room = min(39, width() - 39)  # beside the other columns
    for belongs, number, name, title in rows:
        if belongs != chapter:
            lines.append(("bold", belongs))
            chapter = belongs
        status = folder.of(name).status if folder else NOT_STARTED
        passed += status == PASSED
        style = STYLES[status].removeprefix("bold ") if status != NOT_STARTED else ""
        short = textwrap.shorten(title, room, placeholder="...")
        lines.append((style, f"  {number:>2}  {name:20} {short:{room}} {status}"))
    lines += [("", ""), ("", f"{passed} of {len(rows)} passed")]
    if folder is None:
        lines += wrap(f"`{COMMAND} start` writes them into a folder to fill in", "dim", "")
    elif passed < len(rows):
        lines.append(("dim", f"next: {folder.show(folder.next())}"))
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
