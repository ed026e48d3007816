"""For lecturers: a course folder to hand out, and grading of what comes back."""

import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import capstone, show
from .catalogue import EXERCISES
from .format import Exercise
from .sandbox import SECONDS, check_in_process
from .sources import answer, stub
from .verdict import NOT_STARTED, PASSED, Verdict

SETTINGS = "grading.json"
SEEDS = 3

README = """\
# A course of minidl's exercises

- `students/` is to be handed out: twenty files to fill in. No answers are among them.
- `grading.json` is not: its seeds decide the numbers and shapes that grading draws, and it says
  how many points each exercise gives. Change the points as you like, 0 leaves an exercise out.
- `gradescope/` is for an autograder: zip its two files together with `grading.json` and a source
  distribution of minidl (`minidl-*.tar.gz`), and upload the archive.

Put what comes back into one folder with a folder for each student, and grade all of them:

    python -m minidl.exercises grade SUBMISSIONS --course . --out results

`results/class.json` then holds everything, `results/NAME/results.json` one submission in
Gradescope's format.
"""

SETUP = """\
#!/usr/bin/env bash
set -e
apt-get update
apt-get install -y python3-dev python3-venv gcc
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install /autograder/source/minidl-*.tar.gz
"""

RUN = """\
#!/usr/bin/env bash
cd /autograder
venv/bin/python -m minidl.exercises grade submission --single --course source --out results
"""


def export_course(folder: Path) -> None:
    """Write a course folder; raises :class:`ValueError` if it holds anything already."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; a course gets a folder of its own")
    students, gradescope = folder / "students", folder / "gradescope"
    students.mkdir(parents=True)
    gradescope.mkdir()
    for exercise in EXERCISES.values():
        (students / exercise.file).write_text(stub(exercise))
    (students / capstone.FILE).write_text(capstone.source())
    settings = {
        "seeds": [secrets.randbelow(1 << 31) for _ in range(SEEDS)],
        "seconds": SECONDS,
        "points": dict.fromkeys(EXERCISES, 1.0),
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "README.md").write_text(README)
    for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
        (gradescope / name).write_text(text)
        (gradescope / name).chmod(0o755)


def read_settings(course: Path) -> dict[str, Any]:
    """The seeds, time limit and points of a course; ValueError for a damaged file."""
    file = course / SETTINGS
    if not file.exists():
        raise ValueError(f"{course} has no {SETTINGS}; `export-course` makes a course folder")
    try:
        settings = json.loads(file.read_text())
        seeds = [int(seed) for seed in settings["seeds"]]
        points = {name: float(value) for name, value in settings["points"].items()}
        seconds = float(settings["seconds"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {error!r}") from None
    unknown = sorted(points.keys() - EXERCISES.keys())
    if unknown or min(seeds, default=-1) < 0 or min(points.values(), default=0) < 0:
        raise ValueError(
            f"{file}: expected seeds and points >= 0 and known exercises, got {unknown}"
        )
    return {"seeds": seeds, "points": points, "seconds": seconds}


def grade_submission(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Grade one student's folder: every exercise with right answers to those it calls."""
    entries = []
    for name, points in settings["points"].items():
        if points:
            verdict = _grade(folder, EXERCISES[name], settings)
            score = points if verdict.status == PASSED else 0.0
            entries.append({**verdict.as_dict(), "score": score, "max_score": points})
    return {
        "name": folder.name,
        "score": sum(entry["score"] for entry in entries),
        "max_score": sum(entry["max_score"] for entry in entries),
        "exercises": entries,
    }


def _grade(folder: Path, exercise: Exercise, settings: dict[str, Any]) -> Verdict:
    """The first verdict, over the course's seeds, that is not "passed"."""
    submitted = next((path for path in sorted(folder.rglob(exercise.file)) if path.is_file()), None)
    if submitted is None:
        return Verdict(exercise.name, NOT_STARTED, f"there is no {exercise.file}")
    with tempfile.TemporaryDirectory() as path:
        for other in _needed(exercise):
            Path(path, other.file).write_text(answer(other))
        file = Path(shutil.copyfile(submitted, Path(path, exercise.file)))
        for seed in settings["seeds"]:
            verdict = check_in_process(exercise.name, file, seed, settings["seconds"])
            if verdict.status != PASSED:
                break
    return verdict


def _needed(exercise: Exercise) -> Iterator[Exercise]:
    """The exercises that one calls, and those that they call."""
    for name in exercise.uses:
        yield EXERCISES[name]
        yield from _needed(EXERCISES[name])


def gradescope_results(graded: dict[str, Any]) -> dict[str, Any]:
    """One submission in the format of Gradescope's results.json."""
    tests = []
    for entry in graded["exercises"]:
        fields = {key: entry[key] for key in Verdict.__dataclass_fields__}
        fields |= {"ladder": [], "worst": "", "printed": ""}  # shapes and numbers stay private
        lines = show.verdict_lines(Verdict(**fields))[1:]
        tests.append(
            {
                "name": entry["exercise"],
                "number": str(EXERCISES[entry["exercise"]].number),
                "score": entry["score"],
                "max_score": entry["max_score"],
                "status": "passed" if entry["status"] == PASSED else "failed",
                "output": "\n".join([entry["status"], *(text for _, text in lines)]),
                "visibility": "visible",
            }
        )
    return {"score": graded["score"], "stdout_visibility": "hidden", "tests": tests}


def grade(submissions: Path, course: Path, out: Path, single: bool, jobs: int) -> list[str]:
    """Grade a folder of submissions, or a single one; returns a line for each.

    Writes ``out/class.json`` and ``out/NAME/results.json``, or ``out/results.json`` for a single
    one. Raises :class:`ValueError` for folders that are not what they should be.
    """
    settings = read_settings(course)
    if not submissions.is_dir():
        raise ValueError(f"{submissions} is no folder")
    folders = [submissions] if single else sorted(p for p in submissions.iterdir() if p.is_dir())
    if not folders:
        raise ValueError(f"{submissions} holds no folders, one for each student")
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda folder: grade_submission(folder, settings), folders))
    out.mkdir(parents=True, exist_ok=True)
    for graded in results:
        place = out if single else out / graded["name"]
        place.mkdir(exist_ok=True)
        _write(place / "results.json", gradescope_results(graded))
    if not single:
        _write(out / "class.json", {"settings": settings, "submissions": results})
    return [f"{row['name']:40} {row['score']:g} of {row['max_score']:g}" for row in results]


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n")
