"""Thousands of wrong command lines, configuration files and checkpoints.

Whatever they are, `python -m minidl.train` must do what it is told or refuse it: exit status 0, or
2 with one line on standard error, in reasonable time, and without leaving anything behind.
"""

import contextlib
import functools
import io
import json
import random
import shutil
import signal
import tomllib
import zipfile

import numpy as np
import pytest
from conftest import oracle

import minidl as md
import minidl.train
from minidl.errors import CheckpointError
from minidl.training import Settings, Trainer
from minidl.training.options import options_of, to_toml

SECONDS = 20  # for a case; most take some milliseconds

JUNK = [
    "", " ", "0", "-1", "1", "2", "3", "8", "0.5", "1.5", "-0", "+2", "1e3", "1e-9", "1e999",
    "nan", "inf", "-inf", "1_0", "0x10", "９", "1" * 25, "7" * 5000, "true", "none", "None", "off",
    "x" * 5000, "é", "日本", "a b", "\n", "two\nlines", "\udcff", "\x1b[31m",
    "%s", "{}", "'", '"', ",", ",,", "a,b", "1,2", "2,1", "0.1,0.5", "=", "a=", "=1", "*=2", "*",
    "?", "[", "[!]", "[a-", "**", "features", "features.*=0.1", "classifier=nan", "-", "--", "-5",
    "/", "..", "/dev/null", "~", ".", "/nonexistent/x", "folder:", "folder:/dev",
    "mnist:/nonexistent", "cifar10:", "cifar100:.", ":", "fashion-mnist:/nonexistent", "imagenet",
    "cuda", "cuda:99", "cuda:-1", "cuda:x", "cpu:0", "gpu", "bf16", "fp16", "sgd", "adam",
    "cosine", "plateau", "multistep", "lenet5", "lenet-5", "LENET5", "inception_naive", "flip",
    "crop", "none,flip", "pad-crop:4", "pad-crop:-1", "zca", "gcn+pca", "resized-crop:0.08:1",
    "resized-crop:2:1", "scale:8:4", "he_normal", "normal:0.01", "normal:x", "*.weight=zeros",
    "skip", "fail", "stop", "tiny", "cifar", "paper",
]  # fmt: skip


class Overtime(BaseException):
    """A case takes too long. Not an Exception: nothing may catch it."""


class Training(BaseException):
    """Everything is in order, and training would begin now."""


def begin(*args):
    raise Training


@contextlib.contextmanager
def time_limit():
    def stop(number, frame):
        raise Overtime

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def attempt(arguments):
    """The output of a command line that is well done, or None for one that is well refused."""
    # As Python opens them: standard output refuses what is not Unicode, standard error does not.
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), time_limit():
        try:
            status = minidl.train.main(arguments)
        except SystemExit as stop:
            status = stop.code or 0
        except Training:
            status = 0
        finally:
            md.set_num_threads(1)
    for stream in (output, errors):
        stream.flush()
    printed, complaint = (s.buffer.getvalue().decode() for s in (output, errors))
    assert status in (0, 2), (status, complaint)
    if status == 0:
        assert complaint == ""
        return printed
    assert complaint.startswith("minidl.train: ")
    assert len(complaint.splitlines()) == 1, complaint
    assert complaint.endswith("\n")
    assert len(complaint) < 20_000
    return None


def contents(folder):
    """All files below a folder with what is in them."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def cheap(monkeypatch, tmp_path):
    """An empty working folder; data are opened once, and training ends before it begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(minidl.train.data, "load", functools.cache(minidl.train.data.load))
    monkeypatch.setattr(Trainer, "train", begin)
    return tmp_path


def check(cases, fuzz):
    """Run `fuzz(rng)` with as many generators; a failure says which one it was."""
    refused = 0
    for case in range(cases):
        try:
            refused += fuzz(random.Random(case)) is None
        except BaseException as error:
            raise AssertionError(f"case {case}: {type(error).__name__}: {error}") from error
    assert 0 < refused < cases  # both happen, or the cases are badly chosen


# ---- command lines ----

SMALL = {  # values that are fine, and cheap
    "arch": [*["lenet5"] * 5, "lenet5_orig", "resnet20_cifar"],
    "data": ["fashion-mnist-small"],
    "image_size": ["32", "28", "36", "16"],
    "threads": ["1", "2"],
    "batch_size": ["2", "8"],
    "num_classes": ["10", "12"],
}


def some_value(rng, name, option):
    if rng.random() < 0.4:
        return rng.choice(JUNK)
    if name in SMALL:
        return rng.choice(SMALL[name])
    if option.choices:
        return str(rng.choice(option.choices))
    if option.kind is int:
        return str(rng.choice([0, 1, 2, 3, 10, 2**31, 2**63, 10**30]))
    if option.kind is float:
        return str(rng.choice([0.0, 0.1, 0.5, 0.999, 1.0, 3, 1e-300, 1e300]))
    return rng.choice(JUNK)


def some_flag(rng, name):
    flag = f"--{name.replace('_', '-')}"
    if rng.random() < 0.05:
        at = rng.randrange(len(flag))
        flag = flag[:at] + rng.choice(["", "-", "x", flag[at] * 2, "="]) + flag[at + 1 :]
    return flag


def some_command_line(rng):
    options = options_of(Settings)
    arguments = [] if rng.random() < 0.05 else ["--arch", rng.choice(SMALL["arch"])]
    for name in rng.sample(list(options), rng.randrange(4)):
        if name == "arch" and rng.random() < 0.7:
            continue
        flag = some_flag(rng, name)
        if options[name].kind is bool:
            arguments.append(flag if rng.random() < 0.8 else flag.replace("--", "--no-", 1))
        elif rng.random() < 0.3:
            arguments.append(f"{flag}={some_value(rng, name, options[name])}")
        else:
            arguments += [flag, some_value(rng, name, options[name])]
    for flag in ("--config", "--out", "--resume"):
        if rng.random() < 0.06:
            arguments += [flag, rng.choice(JUNK)]
    modes = ["--dry-run", "--print-config", "--list-archs", "--eval-only", "--profile"]
    if rng.random() < 0.7:
        arguments.append(rng.choice([*modes[:2], *modes[:2], *modes]))
    if not any(argument.startswith("--limit") for argument in arguments):
        arguments += ["--limit", "8"]
    if rng.random() < 0.1:
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(JUNK))
    return arguments


@pytest.mark.parametrize("cases", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_command_lines(cheap, cases):
    def fuzz(rng):
        arguments = some_command_line(rng)
        try:
            printed = attempt(arguments)
            left = contents(cheap)
            assert printed is not None or not left
        except BaseException as error:
            error.add_note(repr(arguments))
            raise
        for path in cheap.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return printed

    check(cases, fuzz)


@pytest.mark.parametrize(
    ("arguments", "done"),
    [
        (["--limit", "8", "--rch", "two\nlines"], False),
        (["--freeze=\udcff", "--print-config"], False),
        (["--data=folder:a\tb", "--print-config"], False),
        (["--limit", "8", "--out", "\udcff"], True),  # a name of Linux, though not of Unicode
    ],
)
def test_what_has_been_found(cheap, arguments, done):
    assert (attempt(["--arch", "lenet5", *arguments]) is not None) == done


def test_options_that_do_not_go_together_with_a_checkpoint(cheap, finished):
    evaluation = ["--resume", str(finished), "--eval-only", "--limit", "8"]
    assert attempt(evaluation) is not None
    assert attempt([*evaluation, "--gamma", "0.5,0.1"]) is None


def test_header_of_an_array_that_is_no_literal(tmp_path):
    """NumPy reads it as Python, and lets the errors of Python's own reader through."""
    array = io.BytesIO()
    np.save(array, np.zeros((2, 3), np.float32))
    for wrong in (b"{", b"  x", b"{[]: 1}"):
        content = array.getvalue()
        start = content.index(b"{'descr'")
        with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
            header = (wrong + content[start:128])[: 128 - start]
            archive.writestr("x.npy", content[:start] + header + content[128:])
        with pytest.raises(CheckpointError, match=r"w\.npz: damaged or refused \.npz file"):
            md.load(tmp_path / "w.npz")


# ---- configuration files ----

TOML_VALUES = [
    "0", "-1", "1", "9223372036854775807", "9" * 30, "0x1F", "1_000", "1.5", "-0.0", "1e308",
    "1e999", "nan", "-inf", "inf", "true", "false", '""', '"x"', '"\\u0000"', '"nan"',
    "'''a\nb'''", "[]", "[1]", "[0.5, 0.1]", '["a", 1]', "[[1]]", "{}", "{a = 1}", "1979-05-27",
    "07:32:00", "[nan]", "[true]", "1979-05-27T07:32:00Z", '["features.*"]', '["features=0.1"]',
    '"lenet5"', "[1, 2, 3, 4]", "", "=",
]  # fmt: skip


def some_config(rng):
    """A file that is right, with some values exchanged, lines added and bytes damaged."""
    lines = to_toml(Settings("lenet5", in_channels=1)).splitlines()
    names = list(options_of(Settings))
    for _ in range(rng.randrange(4)):
        name = rng.choice(names)
        at = [i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{name} =")]
        lines[at[0] if at else 0] = f"{name} = {rng.choice(TOML_VALUES)}"
    if rng.random() < 0.3:
        key = rng.choice(
            [*names, "epoch", "batch-size", "a.b", '"', "[x]", "[[x]]", "settings", "ü"]
        )
        lines.insert(rng.randrange(len(lines)), f"{key} = {rng.choice(TOML_VALUES)}")
    if rng.random() < 0.02:
        lines.append("x = " + "[" * 3000)
    return (
        damaged(rng, "\n".join(lines).encode(), 3)
        if rng.random() < 0.5
        else "\n".join(lines).encode()
    )


def damaged(rng, content, most):
    """Up to `most` changes: bytes replaced, left out, put in or repeated, or the end cut off."""
    content = bytearray(content)
    for _ in range(rng.randrange(1, most + 1)):
        at, size = rng.randrange(len(content) + 1), rng.choice([1, 1, 2, 8, 100])
        match rng.randrange(5):
            case 0:
                content[at : at + size] = rng.randbytes(size)
            case 1:
                del content[at : at + size]
            case 2:
                content[at:at] = rng.choice(
                    [b"\x00", b"\xff", b"\n", b'"', b"9" * size, b"[", b"{"]
                )
            case 3:
                content[at:at] = content[max(at - size, 0) : at]
            case 4:
                del content[rng.randrange(len(content) + 1) :]
    return bytes(content)


@pytest.mark.parametrize("cases", [150, pytest.param(2500, marks=pytest.mark.slow)])
def test_configuration_files(cheap, cases):
    """What is accepted is printed in full, and says the same when it is read again."""
    config, again = cheap / "run.toml", cheap / "again.toml"

    def fuzz(rng):
        config.write_bytes(some_config(rng))
        printed = attempt(["--config", str(config), "--print-config"])
        if printed is not None:
            tomllib.loads(printed)
            again.write_text(printed, encoding="utf-8")
            assert attempt(["--config", str(again), "--print-config"]) == printed
        return printed

    check(cases, fuzz)


# ---- checkpoints and weights ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a small run."""
    run = tmp_path_factory.mktemp("fuzz") / "run"
    options = ["--arch", "lenet5", "--limit", "8", "--epochs", "1", "--batch-size", "4"]
    assert attempt([*options, "--average", "0.9", "--out", str(run)]) is not None
    return run


def some_checkpoint(rng, content):
    """A checkpoint whose header or end is damaged, or says something else than what is true."""
    size = int.from_bytes(content[:8], "little")
    start, header, numbers = content[:8], content[8 : 8 + size], content[8 + size :]
    kind = rng.randrange(7)
    if kind == 6:  # a weight, or nothing
        at = 8 + size + rng.randrange(len(numbers))
        return (
            content[:at] + rng.choice([content[at : at + 1], rng.randbytes(1)]) + content[at + 1 :]
        )
    if kind == 0:  # the length of the header
        claimed = rng.choice([0, 1, size - 1, size + 1, len(content), 2**31, 2**63, 2**64 - 1])
        return claimed.to_bytes(8, "little") + header + numbers
    if kind == 1:
        return start + damaged(rng, header, 3) + numbers
    if kind == 2:
        return damaged(rng, content, 2)
    if kind == 3:
        return content[: rng.choice([0, 7, 8, 9, 100, size, 8 + size, len(content) - 1])]
    fields = json.loads(header)
    if kind == 4:  # shapes, types, places and names of tensors
        change_something(rng, fields, depth=2)
    else:  # settings, progress, state of the optimiser, of the schedule, of the random numbers
        state = json.loads(fields["__metadata__"]["minidl"])
        change_something(rng, state, depth=4)
        fields["__metadata__"]["minidl"] = json.dumps(state)
    changed = json.dumps(fields).encode()
    return len(changed).to_bytes(8, "little") + changed + numbers


PLAIN = [
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, -1e-300, "", "x",
    "nan", "lenet5", "/", [], [1], [[]], {}, {"x": 1}, "F64", "BF16", "I8", float("nan"),
    float("inf"),
]  # fmt: skip


def change_something(rng, value, depth):
    """Exchange, leave out, add or rename an entry of nested dicts and lists."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and depth and rng.random() < 0.9:
        change_something(rng, value[key], depth - 1)
    elif rng.random() < 0.7:
        value[key] = rng.choice(PLAIN)
    elif rng.random() < 0.5 or not isinstance(value, dict):
        del value[key]
    else:
        value[f"{key}{rng.choice(['x', '.y', '/z', ' '])}"] = value.pop(key)


@pytest.mark.parametrize("cases", [80, pytest.param(1500, marks=pytest.mark.slow)])
def test_checkpoints(cheap, finished, cases):
    """Evaluated, resumed, and taken as weights to begin with, with other options too."""
    content = (finished / "last.safetensors").read_bytes()
    run = cheap / "run"

    def fuzz(rng):
        run.mkdir()
        path = run / "last.safetensors"
        path.write_bytes(some_checkpoint(rng, content))
        resume = ["--resume", str(run if rng.random() < 0.5 else path), "--limit", "8"]
        arguments = rng.choice(
            [
                [*resume, "--eval-only"],
                [*resume, "--eval-only"],
                [*resume[:2], "--epochs", "2"],
                ["--arch", "lenet5", "--limit", "8", "--weights", str(path), "--dry-run"],
            ]
        )
        options = options_of(Settings)
        for name in rng.sample(list(options), rng.choice([0, 0, 1, 2, 3])):
            if options[name].kind is not bool:
                arguments = [*arguments, some_flag(rng, name), some_value(rng, name, options[name])]
        before = contents(cheap)
        printed = attempt(arguments)
        if printed is None:
            assert contents(cheap) == before
        shutil.rmtree(run)
        return printed

    check(cases, fuzz)


@pytest.mark.parametrize("kind", ["npz", "pth", "old pth", "safetensors"])
@pytest.mark.parametrize("cases", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_weights(cheap, cases, kind):
    path = cheap / "weights"
    rng = np.random.default_rng(0)
    shapes = {n: t.shape for n, t in md.models.create("lenet5").state_dict().items()}
    arrays = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    if kind.endswith("pth"):
        torch = oracle()
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "pth")
    else:
        md.save(arrays, cheap / f"intact.{kind}")
        (cheap / f"intact.{kind}").rename(path)
    content = path.read_bytes()
    numbers = arrays["features.conv2.weight"].tobytes()
    begin = content.index(numbers) if numbers in content else 0

    def fuzz(rng):
        # Most damage to where there is structure: in front of the largest arrays, and behind them.
        part = rng.choice(["front", "end", "anywhere"])
        where = {"front": (0, begin or 3000), "end": (len(content) - 3000, len(content))}
        first, last = where.get(part, (0, len(content)))
        changed = damaged(rng, content[first:last], 2) if rng.random() < 0.8 else b""
        path.write_bytes(content[:first] + (changed or content[first:last]) + content[last:])
        return attempt(["--arch", "lenet5", "--weights", str(path), "--limit", "8", "--dry-run"])

    check(cases, fuzz)
