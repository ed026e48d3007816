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

from . import capstone
from .catalogue import EXERCISES
from .checking import check_function, missing, place_of
from .format import Exercise
from .verdict import CRASHED, FORBIDDEN, NOT_STARTED, PASSED, WRONG, Verdict

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


def check_file(name: str, file: Path, seed: int, progress: Callable[[str], None]) -> Verdict:
    """Load the learner's file and check the function in it, or train the capstone's network.

    ``progress`` is told what runs, as ``'no momentum'`` or, where that is for another exercise that
    it calls, ``'no momentum' of sgd_momentum_step (exercise 20)``.
    """
    guard = Guard(file)
    verdict = _attempt(name, file, seed, guard, lambda label: progress(f"'{label}'"))
    if guard.caught:
        text = f"it imports {guard.caught}; the exercise is to do it with NumPy alone"
        return Verdict(name, FORBIDDEN, text)
    if verdict.status not in (PASSED, NOT_STARTED):
        uses = capstone.uses() if name == capstone.NAME else EXERCISES[name].uses
        verdict.details[:0] = [
            f"It calls {used}, which does not pass itself: see exercise {EXERCISES[used].number}."
            for used in uses
            if not _passes(EXERCISES[used], file.parent, seed, progress)
        ]
    return verdict


def _passes(exercise: Exercise, folder: Path, seed: int, progress: Callable[[str], None]) -> bool:
    whose = f" of {exercise.name} (exercise {exercise.number})"
    verdict = check_file(
        exercise.name, folder / exercise.file, seed, lambda label: progress(label + whose)
    )
    return verdict.status == PASSED


def _attempt(
    name: str, file: Path, seed: int, guard: Guard, progress: Callable[[str], None]
) -> Verdict:
    """The verdict on a file that may be no Python at all."""
    try:
        progress("importing the file")
        images = capstone.images() if name == capstone.NAME else None
        module = load(file, guard)
        if images is not None:
            progress("training")
            with guard():
                return capstone.judge(module, *images)
        function = getattr(module, name, None)
        if not callable(function):
            return Verdict(name, WRONG, f"{file.name} defines no function {name}")
        return check_function(EXERCISES[name], function, seed, str(file), guard, progress)
    except SyntaxError as error:
        text = f"{error.msg}, {Path(error.filename or file).name}, line {error.lineno}"
        return Verdict(name, CRASHED, f"Python cannot read the file: {text}")
    except NotImplementedError as error:
        return Verdict(name, NOT_STARTED, missing(error, str(file)))
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}{place_of(error, str(file))}"
        return Verdict(name, CRASHED, "the file cannot be run", [text])


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

        verdict = check_file(name, path, int(seed), progress)
        partial = Path(scratch, "partial.json")
        partial.write_text(json.dumps(verdict.as_dict()))
        partial.rename(Path(scratch, "verdict.json"))
        sys.stdout.flush()
        os._exit(0)  # whatever threads or exit handlers the answer has left


if __name__ == "__main__":
    main(sys.argv[1:])
