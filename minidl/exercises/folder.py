"""The learner's folder: their files, and one state file that keeps their progress."""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from . import capstone
from .catalogue import EXERCISES
from .format import Exercise
from .sources import stub
from .verdict import NOT_STARTED, PASSED, Verdict

STATE_FILE = ".minidl-exercises.json"
DEFAULT_FOLDER = "minidl-exercises"


class FolderError(Exception):
    """The state file of a folder of exercises cannot be read."""


class NoFolderError(FolderError):
    """There is no folder of exercises."""


@dataclass
class Progress:
    """What has happened with one exercise; ``hint`` is the highest level seen."""

    status: str = NOT_STARTED
    attempts: int = 0
    passed_at: str = ""
    hint: int = 0
    solution_seen: bool = False
    mistakes: list[str] = field(default_factory=list)


class Folder:
    """A learner's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.progress: dict[str, Progress] = {}
        state = path / STATE_FILE
        if state.exists():
            try:
                content = json.loads(state.read_text())
                self.progress = {
                    name: Progress(**entry) for name, entry in content["exercises"].items()
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FolderError(
                    f"{state} cannot be read ({error}); delete it to begin a new record, your "
                    "answers stay"
                ) from None

    @classmethod
    def find(cls, path: str | None = None) -> "Folder":
        """The folder given, or the one around the working directory, or the usual one in it.

        Raises :class:`NoFolderError` where there is none.
        """
        here = Path(path) if path else Path.cwd()
        places = [here] if path else [here, *here.parents, here / DEFAULT_FOLDER]
        for place in places:
            if (place / STATE_FILE).exists():
                return cls(place)
        raise NoFolderError(
            f"{here} is no folder of exercises; `python -m minidl.exercises start` makes one"
        )

    @classmethod
    def start(cls, path: str | None = None) -> tuple["Folder", int]:
        """Make a folder, or add what one lacks; nothing is overwritten. Also counts new files."""
        folder = cls(Path(path or DEFAULT_FOLDER))
        folder.path.mkdir(parents=True, exist_ok=True)
        new = [ex for ex in EXERCISES.values() if not folder.file(ex).exists()]
        for exercise in new:
            folder.file(exercise).write_text(stub(exercise))
        (folder.path / capstone.FILE).write_text(capstone.source())  # nothing to fill in there
        folder.save()
        return folder, len(new)

    def file(self, exercise: Exercise) -> Path:
        """Where the answer to an exercise stands."""
        return self.path / exercise.file

    def file_of(self, name: str) -> Path:
        """The same by name; the capstone has a file too."""
        return self.path / (capstone.FILE if name == capstone.NAME else EXERCISES[name].file)

    def show(self, name: str) -> str:
        """The same for people: from the working directory, where that is shorter."""
        file = self.file_of(name)
        return min(str(file), os.path.relpath(file), key=len)

    def of(self, name: str) -> Progress:
        """The record of one exercise, to read or to change."""
        return self.progress.setdefault(name, Progress())

    def record(self, verdict: Verdict) -> None:
        """Keep what came of a check."""
        entry = self.of(verdict.exercise)
        entry.status = verdict.status
        if verdict.status != NOT_STARTED:
            entry.attempts += 1
        if verdict.status == PASSED and not entry.passed_at:
            entry.passed_at = datetime.now().isoformat(timespec="seconds")
        entry.mistakes += [name for name in verdict.mistakes if name not in entry.mistakes]
        self.save()

    def reset(self, exercise: Exercise) -> Path | None:
        """Put the stub back; an answer that was there is kept beside it, at the path returned."""
        file = self.file(exercise)
        kept = None
        if file.exists() and file.read_text(errors="replace") != stub(exercise):
            number = 1
            while file.with_suffix(f".{number}.bak").exists():
                number += 1
            kept = file.rename(file.with_suffix(f".{number}.bak"))
        file.write_text(stub(exercise))
        self.of(exercise.name).status = NOT_STARTED
        self.save()
        return kept

    def next(self) -> str:
        """The first exercise that has not passed; after the last one, the capstone."""
        for name in EXERCISES:
            if self.of(name).status != PASSED:
                return name
        return capstone.NAME

    def save(self) -> None:
        """Write the state file, all of it or nothing."""
        entries = {name: asdict(entry) for name, entry in self.progress.items()}
        content: dict[str, Any] = {"version": 1, "exercises": entries}
        temporary = self.path / f"{STATE_FILE}.new"
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, self.path / STATE_FILE)
