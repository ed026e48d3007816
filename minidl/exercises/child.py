"""The process in which an answer runs: `python -m minidl.exercises.child FILE NAME SEED ...`.

It keeps minidl and its likes out of the answer's reach and writes its verdict to a file, because
the answer may print what it likes. This protects learners from accidents, not graders from fraud.
"""

import contextlib
import faulthandler
import importlib.abc
import importlib.util
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from .catalogue import EXERCISES
from .checking import check_function, place_of
from .format import Exercise
from .verdict import CRASHED, FORBIDDEN, PASSED, WRONG, Verdict

FORBIDDEN_PACKAGES = frozenset(
    {"autograd", "cupy", "jax", "minidl", "mxnet", "paddle", "tensorflow", "tinygrad", "torch"}
)
MEMORY_BYTES = 6 << 30


class Guard(importlib.abc.MetaPathFinder):
    """Refuses imports of frameworks while an answer runs, and remembers where one was tried."""

    def __init__(self, file: Path) -> None:
        self.folder = str(file.parent)
        self.caught = ""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in FORBIDDEN_PACKAGES:
            line = ""
            for frame in traceback.extract_stack():
                if frame.filename.startswith(self.folder):
                    line = f" ({Path(frame.filename).name}, line {frame.lineno})"
            self.caught = f"{name}{line}"
            raise ImportError(f"{name} must not be imported in an exercise")
        return None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        hidden = {
            name: sys.modules.pop(name)
            for name in list(sys.modules)
            if name.partition(".")[0] in FORBIDDEN_PACKAGES
        }
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            sys.modules.update(hidden)


def load(file: Path, guard: Guard) -> ModuleType:
    """Run a learner's file as a module, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    with guard():
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
    return module


def check_file(
    exercise: Exercise, file: Path, seed: int, progress: Callable[[str], None]
) -> Verdict:
    """Load the learner's file and check the function in it."""
    guard = Guard(file)
    progress("importing the file")
    try:
        module = load(file, guard)
        function = getattr(module, exercise.name, None)
        if callable(function):
            verdict = check_function(exercise, function, seed, str(file), guard, progress)
        else:
            verdict = Verdict(
                exercise.name, WRONG, f"{file.name} defines no function {exercise.name}"
            )
    except SyntaxError as error:
        text = f"{error.msg}, {Path(error.filename or file).name}, line {error.lineno}"
        verdict = Verdict(exercise.name, CRASHED, f"Python cannot read the file: {text}")
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}{place_of(error, str(file))}"
        verdict = Verdict(exercise.name, CRASHED, "the file cannot be imported", [text])
    if guard.caught:
        return Verdict(
            exercise.name,
            FORBIDDEN,
            f"it imports {guard.caught}; the exercise is to do it with NumPy alone",
        )
    if verdict.status != PASSED:
        verdict.details[:0] = _unfinished(exercise, file.parent, seed, progress)
    return verdict


def _unfinished(
    exercise: Exercise, folder: Path, seed: int, progress: Callable[[str], None]
) -> list[str]:
    """Earlier answers that this one calls and that do not pass themselves."""
    return [
        f"It calls {name}, which does not pass itself: see exercise {used.number} first."
        for name in exercise.uses
        for used in [EXERCISES[name]]
        if check_file(used, folder / used.file, seed, progress).status != PASSED
    ]


def main(argv: Sequence[str]) -> None:
    """FILE NAME SEED SECONDS SCRATCH: check, leave the verdict in the folder SCRATCH."""
    file, name, seed, seconds, scratch = argv
    if sys.platform == "linux":  # elsewhere the limit does not work
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with open(Path(scratch, "trace"), "w") as trace:
        faulthandler.enable(trace)
        faulthandler.dump_traceback_later(float(seconds), exit=True, file=trace)
        path = Path(file)
        sys.path.insert(0, str(path.parent))

        def progress(label: str) -> None:
            Path(scratch, "case").write_text(label)

        verdict = check_file(EXERCISES[name], path, int(seed), progress)
        partial = Path(scratch, "partial.json")
        partial.write_text(json.dumps(verdict.as_dict()))
        partial.rename(Path(scratch, "verdict.json"))
        sys.stdout.flush()
        os._exit(0)  # whatever threads or exit handlers the answer has left


if __name__ == "__main__":
    main(sys.argv[1:])
