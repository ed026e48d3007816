"""The runner: answers that hang, crash, print, cheat; the commands and their exit codes."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minidl.exercises.__main__ import main
from minidl.exercises.catalogue import EXERCISES
from minidl.exercises.folder import STATE_FILE, Folder
from minidl.exercises.sandbox import check_in_process
from minidl.exercises.show import verdict_lines
from minidl.exercises.sources import answer, plant
from minidl.exercises.verdict import Verdict

RIGHT = """
    dx, dw, db = d @ w, d.T @ x, d.sum(axis=0)
"""

# What stands in the file, the status, and a part of the headline, details or what was printed.
HOSTILE = {
    "endless loop": ("    while True:\n        pass", "timed out", "of e04_linear_backward.py"),
    "endless loop in C": ("    sum(iter(int, 1))", "timed out", "does a loop never end"),
    "endless printing": (
        "    while True:\n        print('x' * 999)",
        "timed out",
        "more was printed",
    ),
    "os._exit": ("    import os\n    os._exit(0)", "crashed", "exit code 0"),
    "segfault": ("    import ctypes\n    ctypes.string_at(0)", "crashed", "SIGSEGV"),
    "sys.exit": ("    raise SystemExit(0)", "crashed", "SystemExit"),
    "abort": ("    import os\n    os.abort()", "crashed", "SIGABRT"),
    "kills its group": (
        "    import os, signal\n    os.killpg(0, signal.SIGTERM)",
        "crashed",
        "SIGTERM",
    ),
    "division by zero": ("    return 1 / 0", "crashed", "line 4: return 1 / 0"),
    "memory": ("    return bytearray(1 << 40)", "crashed", "MemoryError"),
    "list": (RIGHT + "    return dx.tolist(), dw, db", "wrong", "dx is a list"),
    "text": (RIGHT + "    return 'dx', dw, db", "wrong", "dx is a str"),
    "nothing": (RIGHT, "wrong", "returned None (is a `return` missing?)"),
    "two results": (RIGHT + "    return dx, dw", "wrong", "returned 2 values, expected dx, dw, db"),
    "one result": (RIGHT + "    return dx", "wrong", "returned one ndarray, expected dx, dw, db"),
    "float32": (RIGHT + "    return dx.astype('f4'), dw, db", "wrong", "dx is float32"),
    "nan": (RIGHT + "    return dx * np.nan, dw, db", "wrong", "dx holds inf or nan"),
    "mutation": (RIGHT + "    x *= 2\n    return dx, dw, db", "wrong", "x was changed"),
    "printing": (
        "    for i in range(9999): print('line', i)\n" + RIGHT + "    return dx, dw, db",
        "passed",
        "line 7",
    ),
    "threads": (
        "    import threading, time\n    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        + RIGHT
        + "    return dx, dw, db",
        "passed",
        "",
    ),
    "grandchildren": (
        "    import subprocess\n    subprocess.Popen(['sleep', '60'])\n"
        + RIGHT
        + "    return dx, dw, db",
        "passed",
        "",
    ),
    "kernels": (
        "    from minidl._kernels import reference\n    return reference.matmul(d, w)",
        "forbidden",
        "minidl (e04_linear_backward.py, line 4)",
    ),
    "kernels behind try": (
        "    try:\n        import minidl\n    except ImportError:\n        pass\n"
        + RIGHT
        + "    return dx, dw, db",
        "forbidden",
        "line 5",
    ),
    "importlib": (
        "    import importlib\n    importlib.import_module('torch')",
        "forbidden",
        "it imports torch",
    ),
    "sys.modules": ("    import sys\n    return sys.modules['minidl']", "crashed", "KeyError"),
}


def check_text(folder: Path, text: str, name: str = "linear_backward") -> Verdict:
    """The verdict on a file with this text, in a second or two."""
    file = folder / EXERCISES[name].file
    file.write_text(text)
    return check_in_process(name, file, seconds=1.0)


QUICK = {"endless loop", "segfault", "mutation", "kernels"}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in HOSTILE],
)
def test_the_runner_survives_and_says_what_happened(kind: str, tmp_path: Path) -> None:
    body, status, words = HOSTILE[kind]
    text = f"import numpy as np\n\ndef linear_backward(d, x, w):\n{body}\n"
    verdict = check_text(tmp_path, text)
    said = "\n".join([verdict.headline, *verdict.details, verdict.printed])
    assert (verdict.status, words in said) == (status, True), said
    assert len(verdict.printed) < 2100


def test_files_that_cannot_be_imported(tmp_path: Path) -> None:
    verdict = check_text(tmp_path, "def linear_backward(d, x, w:\n    return d\n")
    assert verdict.status == "crashed"
    assert "e04_linear_backward.py, line 1" in verdict.headline
    verdict = check_text(tmp_path, "import minidl.functional\n")
    assert verdict.status == "forbidden"
    assert "line 1" in verdict.headline
    verdict = check_text(tmp_path, "import no_such_package\n")
    assert verdict.status == "crashed"
    assert verdict.details == [
        "ModuleNotFoundError: No module named 'no_such_package', line 1: import no_such_package"
    ]
    verdict = check_text(tmp_path, "def linear_backwards():\n    pass\n")
    assert verdict.status == "wrong"
    assert verdict.headline == "e04_linear_backward.py defines no function linear_backward"


def test_an_endless_loop_is_placed_where_it_is(tmp_path: Path) -> None:
    """Also where it is in another exercise than the one that is checked."""
    loop = "    while True: pass\n"
    (tmp_path / "e09_im2col.py").write_text(f"def im2col(x, size, stride, padding):\n{loop}")
    place = ["It was in line 2 of e09_im2col.py (im2col, exercise 9)."]
    calls = "from e09_im2col import im2col\n\n\ndef conv2d_backward(*a, **k):\n"
    verdict = check_text(tmp_path, f"{calls}    im2col(a, 3, 1, 0)\n", "conv2d_backward")
    assert (verdict.status, verdict.details) == ("timed out", place)
    first = next(iter(EXERCISES["conv2d_backward"].cases))
    assert f", in the case '{first}': does" in verdict.headline
    verdict = check_text(tmp_path, f"{calls}    return a\n", "conv2d_backward")
    assert (verdict.status, verdict.details) == ("timed out", place)
    first = next(iter(EXERCISES["im2col"].cases))
    assert f", in the case '{first}' of im2col (exercise 9): does" in verdict.headline


def test_the_capstone_does_not_repeat_an_endless_loop(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verdict(name: str, *rest: object) -> Verdict:
        return Verdict(name, "timed out" if name == endless else "passed", "said")

    monkeypatch.setattr("minidl.exercises.__main__.check_in_process", verdict)
    endless = "linear_backward"
    assert main(["check", "--all"]) == 3
    out = capsys.readouterr().out
    assert "capstone: timed out\n  Not trained, as it calls linear_backward.\n" in out
    assert "19 of 21 passed" in out
    endless = "lrn_backward"  # of which LeNet has none
    assert main(["check", "--all"]) == 3
    out = capsys.readouterr().out
    assert "training, for 120 s at most\ncapstone: passed" in out


def test_two_mistakes_at_once_are_both_named(tmp_path: Path) -> None:
    text = "def linear_backward(d, x, w):\n    return d @ w, (x.T @ d), d.mean(0)\n"
    verdict = check_text(tmp_path, text)
    assert verdict.mistakes == ["dw-transposed", "db-averaged"]


def test_an_error_is_placed_and_an_unknown_mistake_climbs_the_ladder(tmp_path: Path) -> None:
    text = "def linear_backward(d, x, w):\n    return d @ w, d.T @ x * (-1) ** len(x), d.sum(0)\n"
    verdict = check_text(tmp_path, text)
    assert verdict.mistakes == []
    assert verdict.headline.startswith("wrong in ")
    assert "dw[" in verdict.worst


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A learner's folder, which is the working directory."""
    assert main(["start", str(tmp_path / "work")]) == 0
    monkeypatch.chdir(tmp_path / "work")
    return Folder.find()


def test_from_start_to_passed(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = EXERCISES["numerical_grad"]
    assert main(["check"]) == 2
    assert "Traceback" not in capsys.readouterr().out
    file = folder.file(exercise)
    wrong = exercise.mistakes[1]
    solution = answer(exercise)
    file.write_text(solution.replace("/ (2 * h)", "/ h"))
    assert main(["check", "1"]) == 1
    assert wrong.name in Folder.find().of(exercise.name).mistakes
    file.write_text(solution.replace("above = f(x)", "above = f(y)"))
    assert main(["check", "e01"]) == 3
    file.write_text(solution)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "half" not in out
    assert "numerical_grad: passed" in out
    assert max(map(len, out.splitlines())) <= 80
    entry = Folder.find().of(exercise.name)
    assert (entry.status, entry.attempts) == ("passed", 3)
    assert Folder.find().next() == "topo_backward"


def test_hints_climb_and_are_counted(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["hint", "linear_backward"]) == 0
    assert capsys.readouterr().out.count("Hint") == 1
    assert main(["hint", "linear_backward"]) == 0
    assert capsys.readouterr().out.count("Hint") == 2
    assert main(["hint", "linear_backward", "--level", "3"]) == 0
    assert "d.T @ x" in capsys.readouterr().out
    assert Folder.find().of("linear_backward").hint == 3


def test_solution_diff_and_reset(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = EXERCISES["linear_backward"]
    capsys.readouterr()
    assert main(["solution", "4"]) == 0
    solution = capsys.readouterr().out
    assert solution == answer(exercise)
    assert main(["diff", "4"]) == 0
    assert "-    raise NotImplementedError\n+    dx = d @ w" in capsys.readouterr().out
    folder.file(exercise).write_text(solution)
    assert main(["diff", "4"]) == 0
    assert "to the letter" in capsys.readouterr().out
    assert main(["reset", "4"]) == 0
    assert "e04_linear_backward.1.bak" in capsys.readouterr().out
    assert (folder.path / "e04_linear_backward.1.bak").read_text() == solution
    assert main(["check", "4"]) == 2
    assert main(["reset", "4"]) == 0
    assert len(list(folder.path.glob("*.bak"))) == 1


def test_a_file_that_is_no_text_can_be_compared_and_reset(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder.file(EXERCISES["linear_backward"])
    file.write_bytes(b"\xff\xfe")
    assert main(["check", "4"]) == 3
    assert main(["diff", "4"]) == 0
    assert main(["reset", "4"]) == 0
    assert "your answer is kept" in capsys.readouterr().out
    assert file.with_suffix(".1.bak").read_bytes() == b"\xff\xfe"
    assert main(["check", "4"]) == 2


def test_starting_again_overwrites_nothing(folder: Folder) -> None:
    file = folder.file(EXERCISES["linear_backward"])
    file.write_text("# mine\n")
    folder.file(EXERCISES["numerical_grad"]).unlink()
    assert main(["check", "1"]) == 2
    assert main(["start", "."]) == 0
    assert file.read_text() == "# mine\n"
    assert folder.file(EXERCISES["numerical_grad"]).exists()


def test_reports(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.file(EXERCISES["linear_backward"]).write_text(answer(EXERCISES["linear_backward"]))
    assert main(["check", "4"]) == 0
    capsys.readouterr()
    assert main(["report", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["passed"] == 1
    assert content["exercises"][3]["passed_at"]
    assert main(["report", "--format", "html"]) == 0
    page = capsys.readouterr().out
    assert '<td class="passed">passed</td>' in page
    assert main(["report"]) == 0
    text = capsys.readouterr().out
    assert "linear_backward      passed" in text
    assert max(map(len, text.splitlines())) <= 80
    assert main(["list"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines()[:-1])) <= 80


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Read what the process prints up to a line that has these words."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} was never printed, but\n{''.join(seen)}")


@pytest.mark.slow
def test_watch_checks_what_is_edited_until_it_is_interrupted(folder: Folder) -> None:
    exercise = EXERCISES["numerical_grad"]
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, "-m", "minidl.exercises", "watch"],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Jobs in the background of a shell ignore the interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        limit = threading.Timer(60, process.kill)
        limit.start()
        try:
            read_until(process, "numerical_grad: not started")
            folder.file(exercise).write_text(answer(exercise).replace("/ (2 * h)", "/ h"))
            read_until(process, "numerical_grad: wrong")
            read_until(process, "level 1 of 3")
            assert main(["hint", "1", "--level", "2"]) == 0
            folder.file(exercise).write_text(answer(exercise))
            read_until(process, "numerical_grad: passed")
            read_until(process, "e02_topo_backward.py")
            process.send_signal(signal.SIGINT)
            assert process.stdout.read().strip() == ""
            assert process.wait() == 0
        finally:
            limit.cancel()
            process.kill()
    entry = Folder.find().of(exercise.name)
    assert (entry.status, entry.attempts, entry.hint) == ("passed", 2, 2)


def test_watch_goes_on_to_the_capstone_and_waits_where_that_fails(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With verdicts and edits from a script."""
    for name in EXERCISES:
        folder.record(Verdict(name, "passed", ""))
    folder.of("sgd_momentum_step").status = "wrong"
    folder.save()
    checked = []

    def verdict(name: str, *rest: object) -> Verdict:
        checked.append(name)
        fails = name == "capstone" and len(checked) < 4
        return Verdict(name, "wrong" if fails else "passed", "said")

    def edit(seconds: float) -> None:
        file = folder.file(EXERCISES["linear_backward"])
        file.write_text(file.read_text() + "# once more\n")

    monkeypatch.setattr("minidl.exercises.__main__.check_in_process", verdict)
    monkeypatch.setattr("time.sleep", edit)
    assert main(["watch"]) == 0
    assert checked == ["sgd_momentum_step", "capstone", "linear_backward", "capstone"]
    assert "That was all" in capsys.readouterr().out


def test_what_cannot_be_done_is_one_line(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command, words in [
        (["check", "linear_bakward"], "did you mean 'linear_backward'?"),
        (["check", "99"], "`list` shows them"),
        (["check", "--dir", "/nowhere"], "is no folder of exercises"),
        (["check", "--seconds", "0"], "expected a number of seconds > 0"),
        (["check", "--seed", "-1"], "expected a whole number from 0, got '-1'"),
        (["check", "4", "--all"], "name one exercise or take --all"),
        (["hint", "residual"], "did you mean 'residual_backward'?"),
        (["reset", "capstone"], "nothing is to be filled in"),
        (["start", STATE_FILE], f"{STATE_FILE}: File exists"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            main(command)
        assert exit_info.value.code == 2
        assert words in capsys.readouterr().err
    (folder.path / STATE_FILE).write_text("{}")
    with pytest.raises(SystemExit):
        main(["list"])
    error = capsys.readouterr().err
    assert "cannot be read" in error
    assert "Traceback" not in error


def test_an_empty_earlier_answer_is_named(tmp_path: Path) -> None:
    """Where one answer calls another that is not there yet."""
    (tmp_path / EXERCISES["unbroadcast"].file).write_text(
        "def unbroadcast(g, shape):\n    raise NotImplementedError\n"
    )
    text = (
        "from e03_unbroadcast import unbroadcast\n"
        "def linear_backward(d, x, w):\n    return d @ w, d.T @ x, unbroadcast(d, (w.shape[0],))\n"
    )
    verdict = check_text(tmp_path, text)
    assert verdict.status == "not started"
    assert verdict.headline == "it calls unbroadcast, which is not started (exercise 3)"


def test_a_narrow_terminal_is_not_overrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert "   1  numerical_grad" in "\n".join(lines)
    assert sum(line.endswith(" not started") for line in lines) == 21
    assert main(["hint", "4", "--level", "3"]) == 0
    assert 50 < max(map(len, capsys.readouterr().out.splitlines())) <= 60


@pytest.mark.parametrize(("columns", "width"), [(30, 50), (60, 60), (200, 80)])
def test_texts_are_as_wide_as_the_terminal_within_bounds(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    verdict = Verdict("im2col", "wrong", "it is wrong", details=["a " * 200], printed="x" * 200)
    lines = [line for _, line in verdict_lines(verdict)]
    assert width - 2 < max(map(len, lines)) <= width
    assert f"  | {'x' * (width - 4)}" in lines


def test_plant_refuses_an_edit_that_does_not_fit() -> None:
    exercise = EXERCISES["linear_backward"]
    mistake = type(exercise.mistakes[0])("x", "x", "x", edits=(("no such text", ""),))
    with pytest.raises(ValueError, match="stands 0 times in the solution, not once"):
        plant(exercise, mistake)


@pytest.mark.slow
def test_the_capstone_learns_with_right_answers_and_not_with_wrong_ones(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "capstone"]) == 2
    assert "not started" in capsys.readouterr().out
    for exercise in EXERCISES.values():
        folder.file(exercise).write_text(answer(exercise))
    assert main(["check", "capstone"]) == 0
    out = capsys.readouterr().out
    assert "Your LeNet knows all 64 images" in out
    assert max(map(len, out.splitlines())) <= 80
    step = folder.file(EXERCISES["sgd_momentum_step"])
    step.write_text(step.read_text().replace("p - lr * v", "p + lr * v"))
    assert main(["check", "capstone"]) == 1
    assert "It calls sgd_momentum_step, which does not pass itself" in capsys.readouterr().out
