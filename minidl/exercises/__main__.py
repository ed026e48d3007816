"""`python -m minidl.exercises`: write backward passes, and be told what is wrong with them."""

import argparse
import contextlib
import difflib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..commands import Parser
from . import capstone, course, selfcheck, show
from .catalogue import EXERCISES, find
from .folder import Folder, FolderError, NoFolderError
from .format import Exercise
from .report import FORMATS, report
from .sandbox import SECONDS, check_in_process
from .sources import answer
from .verdict import NOT_STARTED, PASSED, TIMED_OUT, Verdict

POLL_SECONDS = 0.5


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(
        prog=show.COMMAND,
        description="Twenty functions to fill in, from numerical gradients to the layers of "
        "LeNet. A wrong answer is told what is wrong with it.",
        epilog="exit status of check: 0 passed, 1 wrong, 2 not started, 3 crashed or timed out",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, *, exercise: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        if exercise:
            added.add_argument("name", help="name or number of an exercise")
        return added

    here = "folder of the exercises (default: the one you are in)"
    listing = command("list", "all exercises and what has been done")
    start = command("start", "write the exercises to fill in into a folder")
    start.add_argument("folder", nargs="?", help="default: minidl-exercises")
    check = command("check", "check one answer, by default the next that has not passed")
    check.add_argument("name", nargs="?", help="name or number of an exercise")
    check.add_argument("--all", action="store_true", help="check all of them")
    watch = command("watch", "check again whenever a file changes, until Ctrl-C")
    hint = command("hint", "one more hint each time", exercise=True)
    hint.add_argument("--level", type=int, choices=(1, 2, 3), help="all hints up to this level")
    solution = command("solution", "show the solution", exercise=True)
    diff = command("diff", "compare your answer with the solution", exercise=True)
    reset = command("reset", "put the empty function back, keep your answer", exercise=True)
    reporting = command("report", "what has been done, as text, HTML or JSON")
    reporting.add_argument("--format", choices=FORMATS, default="text")
    for added in (listing, check, watch, hint, solution, diff, reset, reporting):
        added.add_argument("--dir", dest="folder", help=here)
    for added in (check, watch):
        added.add_argument(
            "--seconds", type=_positive, help=f"time limit of a check (default: {SECONDS:g})"
        )
        added.add_argument("--seed", type=_seed, default=0, help="other numbers and shapes")
    export = command("export-course", "for lecturers: write a course folder")
    export.add_argument("folder", help="a new folder")
    grading = command("grade", "for lecturers: grade a folder of submissions")
    grading.add_argument("submissions", help="a folder that holds a folder for each student")
    grading.add_argument("--course", required=True, help="the folder that export-course wrote")
    grading.add_argument("--out", required=True, help="folder for the results")
    grading.add_argument(
        "--single", action="store_true", help="SUBMISSIONS is one student's folder"
    )
    grading.add_argument("--jobs", type=int, default=1, help="students at a time (%(default)s)")
    develop = command("dev-check", "for authors: check the exercises themselves")
    develop.add_argument("name", nargs="?", help="name or number of an exercise (default: all)")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds > 0, got {text!r}")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    >>> main(["hint", "4", "--level", "1"])
    Hint 1 of 3 to linear_backward
      Each of the three results is d joined with what multiplied the argument in
      the forward pass: for dx that is w, for dw it is x, for db it is 1.
    0
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        return COMMANDS[options.command](options)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (FolderError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print()
        return 130


def _list(options: argparse.Namespace) -> int:
    show.emit(show.list_lines(_folder_if_any(options)))
    return 0


def _folder_if_any(options: argparse.Namespace) -> Folder | None:
    """Without --dir, commands that only show something work outside a folder too."""
    try:
        return Folder.find(options.folder)
    except NoFolderError:
        if options.folder:
            raise
        return None


def _start(options: argparse.Namespace) -> int:
    folder, new = Folder.start(options.folder)
    first = folder.next()
    lines = [
        ("", f"{folder.path}: {new} new files of {len(EXERCISES)}"),
        ("", ""),
        ("", f"Open {folder.show(first)}, read the task,"),
        ("", "fill in the function, then"),
        ("bold", f"  cd {folder.path}"),
        ("bold", f"  {show.COMMAND} check"),
    ]
    show.emit(lines)
    return 0


def check(folder: Folder, name: str, seconds: float | None, seed: int = 0) -> Verdict:
    """Check one answer, or the capstone, and keep what came of it."""
    file = folder.file_of(name)
    usual = capstone.SECONDS if name == capstone.NAME else SECONDS
    if file.exists():
        if name == capstone.NAME:
            show.emit([("dim", f"training, for {seconds or usual:g} s at most")])
        verdict = check_in_process(name, file, seed, seconds or usual)
    else:
        text = f"there is no {file.name}; `start` writes what is missing"
        verdict = Verdict(name, NOT_STARTED, text)
    folder.record(verdict)
    return verdict


def _check(options: argparse.Namespace) -> int:
    folder = Folder.find(options.folder)
    if options.all and options.name:
        raise ValueError(f"check: name one exercise or take --all, got {options.name} and --all")
    if options.all:
        verdicts: list[Verdict] = []
        for name in (*EXERCISES, capstone.NAME):
            endless = [verdict.exercise for verdict in verdicts if verdict.status == TIMED_OUT]
            called = [used for used in capstone.uses() if used in endless]
            if name == capstone.NAME and called:
                text = f"not trained, as it calls {' and '.join(called)}"
                verdicts.append(Verdict(name, TIMED_OUT, text))
            else:
                verdicts.append(check(folder, name, options.seconds, options.seed))
            show.emit(show.brief_lines(verdicts[-1]))
        passed = sum(verdict.status == PASSED for verdict in verdicts)
        show.emit([("", ""), ("bold", f"{passed} of {len(verdicts)} passed")])
        return max(verdict.exit_code for verdict in verdicts)
    if options.name == capstone.NAME:
        name = capstone.NAME
    else:
        name = find(options.name).name if options.name else folder.next()
    verdict = check(folder, name, options.seconds, options.seed)
    show.emit(show.verdict_lines(verdict) + show.next_lines(folder, verdict))
    return verdict.exit_code


def _watch(options: argparse.Namespace) -> int:
    """Compare contents, not times or events: network drives report neither reliably."""
    folder = Folder.find(options.folder)
    show.emit([("dim", f"watching {folder.path}, Ctrl-C ends it")])
    contents = _contents(folder)
    due = [folder.next()]
    try:
        while True:
            folder = Folder(folder.path)  # hints may have been asked for meanwhile
            for name in due:
                verdict = check(folder, name, options.seconds, options.seed)
                show.emit([("", ""), *show.verdict_lines(verdict)])
                show.emit(show.next_lines(folder, verdict))
            if folder.next() == capstone.NAME:
                if folder.of(capstone.NAME).status == PASSED:
                    break
                if capstone.NAME not in due:
                    due = [capstone.NAME]
                    continue
            before = contents
            while contents == before:
                time.sleep(POLL_SECONDS)
                contents = _contents(folder)
            due = [name for name in contents if contents[name] != before[name]]
    except KeyboardInterrupt:
        print()
    return 0


def _contents(folder: Folder) -> dict[str, bytes]:
    """What stands in each file; nothing where an editor is just replacing it."""
    contents = dict.fromkeys(EXERCISES, b"")
    for name, exercise in EXERCISES.items():
        with contextlib.suppress(FileNotFoundError):
            contents[name] = folder.file(exercise).read_bytes()
    return contents


def _to_fill_in(name: str) -> Exercise:
    """An exercise by name; the capstone has no hints, no solution and no stub."""
    if name == capstone.NAME:
        raise ValueError(
            f"the {name} is {capstone.FILE}, where nothing is to be filled in: it calls your "
            f"answers, and `check {name}` runs it"
        )
    return find(name)


def _hint(options: argparse.Namespace) -> int:
    exercise = _to_fill_in(options.name)
    folder = _folder_if_any(options)
    level = options.level or (min(folder.of(exercise.name).hint + 1, 3) if folder else 1)
    show.emit(show.hint_lines(exercise, level))
    if folder:
        folder.of(exercise.name).hint = max(level, folder.of(exercise.name).hint)
        folder.save()
    return 0


def _solution(options: argparse.Namespace) -> int:
    exercise = _to_fill_in(options.name)
    _remember_solution(_folder_if_any(options), exercise)
    show.emit(show.code_lines(answer(exercise)))
    return 0


def _remember_solution(folder: Folder | None, exercise: Exercise) -> None:
    if folder:
        folder.of(exercise.name).solution_seen = True
        folder.save()


def _diff(options: argparse.Namespace) -> int:
    exercise = _to_fill_in(options.name)
    folder = Folder.find(options.folder)
    _remember_solution(folder, exercise)
    yours = folder.file(exercise).read_text(errors="replace").splitlines(keepends=True)
    ours = answer(exercise).splitlines(keepends=True)
    lines = list(difflib.unified_diff(yours, ours, "your answer", "the solution"))
    show.emit(show.diff_lines(lines) or [("", "Your file is the solution, to the letter.")])
    return 0


def _reset(options: argparse.Namespace) -> int:
    exercise = _to_fill_in(options.name)
    kept = Folder.find(options.folder).reset(exercise)
    note = f"; your answer is kept as {kept.name}" if kept else ""
    show.emit([("", f"{exercise.file} is empty again{note}")])
    return 0


def _report(options: argparse.Namespace) -> int:
    print(report(Folder.find(options.folder), options.format))
    return 0


def _export_course(options: argparse.Namespace) -> int:
    course.export_course(Path(options.folder))
    show.emit([("", f"{options.folder}: {len(EXERCISES)} exercises, README.md says what is what")])
    return 0


def _grade(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {options.jobs}")
    places = Path(options.submissions), Path(options.course), Path(options.out)
    lines = course.grade(*places, single=options.single, jobs=options.jobs)
    show.emit([("", line) for line in lines])
    return 0


def _dev_check(options: argparse.Namespace) -> int:
    chosen = [find(options.name)] if options.name else list(EXERCISES.values())
    found = 0
    for exercise in chosen:
        start = time.perf_counter()
        faults = [*selfcheck.faults(exercise), *selfcheck.misnamed(exercise)]
        faults += selfcheck.faults_in_a_folder(exercise)
        found += len(faults)
        counts = f"{len(exercise.cases)} cases, {len(exercise.mistakes)} mistakes"
        took = f"{time.perf_counter() - start:.1f} s"
        status = "faulty" if faults else "sound"
        lines = [("", f"{exercise.number:2}  {exercise.name:20} {counts:23} {status}, {took}")]
        show.emit(lines + [line for fault in faults for line in show.wrap(fault, "red", "    ")])
    mistakes = sum(len(exercise.mistakes) for exercise in chosen)
    show.emit([("bold", f"{len(chosen)} exercises, {mistakes} mistakes, {found} faults")])
    return 1 if found else 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "start": _start,
    "check": _check,
    "watch": _watch,
    "hint": _hint,
    "solution": _solution,
    "diff": _diff,
    "reset": _reset,
    "report": _report,
    "export-course": _export_course,
    "grade": _grade,
    "dev-check": _dev_check,
}


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when `| head` has seen enough
    sys.exit(main())
