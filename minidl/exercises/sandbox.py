"""Checking a learner's file in a process of its own, which may hang, crash or print for ever."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from .catalogue import EXERCISES
from .verdict import CRASHED, TIMED_OUT, Verdict

SECONDS = 10.0
PRINTED_CHARACTERS = 2000


def check_in_process(name: str, file: Path, seed: int = 0, seconds: float = SECONDS) -> Verdict:
    """The verdict on the exercise ``name`` as answered in ``file``, after at most ``seconds``."""
    command = [sys.executable, "-m", "minidl.exercises.child"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [str(file.resolve()), name, str(seed), str(seconds), scratch]
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=scratch,
            start_new_session=True,
            bufsize=0,
        )
        printed: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(process.stdout, printed), daemon=True)
        reader.start()
        try:
            # The process ends itself in time; the other seconds are for starting Python.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds + 20)
        finally:
            _end(process)
        reader.join(2)
        verdict = _read(name, file.resolve(), Path(scratch), process.returncode, seconds)
    text = b"".join(printed).decode(errors="replace")
    cut = "\n... (more was printed)" if len(text) > PRINTED_CHARACTERS else ""
    verdict.printed = text[:PRINTED_CHARACTERS].rstrip() + cut
    return verdict


def _drain(stream: IO[bytes], kept: list[bytes]) -> None:
    """Read everything, keep the beginning."""
    size = 0
    with stream:
        while chunk := stream.read(65536):
            if size <= PRINTED_CHARACTERS:
                kept.append(chunk[: PRINTED_CHARACTERS + 1])
                size += len(chunk)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(name: str, file: Path, scratch: Path, code: int, seconds: float) -> Verdict:
    """The verdict that the process left, or one on how it ended."""
    written = scratch / "verdict.json"
    if written.exists():
        content = json.loads(written.read_text())
        content["ladder"] = [tuple(rung) for rung in content["ladder"]]
        return Verdict(**content)
    case = _text(scratch / "case")
    where = f", in the case {case}" if case else ""
    trace = _text(scratch / "trace")
    place = _place(trace, file.parent)
    if "Timeout" in trace or code == -signal.SIGKILL:
        text = f"not done after {seconds:g} s{where}: does a loop never end?"
        return Verdict(name, TIMED_OUT, text, place)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Verdict(name, CRASHED, f"the Python interpreter ended ({how}){where}", place)


def _place(trace: str, folder: Path) -> list[str]:
    """Where in the learner's folder it was, as a sentence, by a trace with the last call first."""
    found = re.search(rf'File "{re.escape(str(folder))}/([^"/]+)", line (\d+)', trace)
    if found is None:
        return []
    name, line = found.groups()
    exercise = next((each for each in EXERCISES.values() if each.file == name), None)
    whose = f" ({exercise.name}, exercise {exercise.number})" if exercise else ""
    return [f"It was in line {line} of {name}{whose}."]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
