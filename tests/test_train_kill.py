"""A run that is killed again and again has the bits of one that was not.

MINIDL_TEST_KILLS=50 python -m pytest -s tests/test_train_kill.py kills more often.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

KILLS = int(os.environ.get("MINIDL_TEST_KILLS", "5"))
EPOCHS = 3 + KILLS  # of 4 steps, of which one life seldom has more than 4

# `python -m minidl.train`, which kills itself at the n-th of the moments in which the state of the
# files changes: before a file is flushed or renamed, and with half of a checkpoint written. It
# draws no curves, which would take longer than all the rest.
DRIVER = """
import importlib.util, os, signal, sys
from minidl.training import checkpoint
left = int(sys.argv[1])

def moment(prepare=lambda: None):
    global left
    left -= 1
    if left == 0:
        prepare()
        os.kill(os.getpid(), signal.SIGKILL)

def behind_a_moment(function):
    def called(*args):
        moment()
        return function(*args)
    return called

os.fsync, os.replace = map(behind_a_moment, (os.fsync, os.replace))
write = checkpoint.write_safetensors

def write_and_maybe_halve(path, *args):
    write(path, *args)
    moment(lambda: os.truncate(path, os.path.getsize(path) // 2))

checkpoint.write_safetensors = write_and_maybe_halve
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *p: None if name == "matplotlib" else find_spec(name, *p)
from minidl.train import main
sys.exit(main(sys.argv[2:]))
"""

# Dropout, drop-path and batch normalisation; averages, augmentation, a schedule that depends on
# what was; checkpoints after each step.
OPTIONS = [
    *("--arch", "fractalnet_thin_c1", "--image-size", "32", "--limit", "28", "--batch-size", "8"),
    *("--augment", "pad-crop:4,flip,colour:0.4", "--schedule", "plateau", "--patience", "0"),
    *("--optimizer", "sgd", "--lr", "0.05", "--average", "0.9", "--clip-norm", "2"),
    *("--accumulate", "2", "--label-smoothing", "0.1", "--keep", "2", "--save-every", "0.00001"),
    *("--epochs", str(EPOCHS), "--threads", "1"),
]  # fmt: skip


def start(run, at_moment=0):
    """Begin the run, or go on with it."""
    options = ["--resume", str(run)] if (run / "last.safetensors").exists() else OPTIONS
    command = [sys.executable, "-c", DRIVER, str(at_moment), *options, "--out", str(run)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(process, condition):
    """Wait until the process has ended or the condition holds."""
    while process.poll() is None and not condition():
        time.sleep(0.0005)


def lines_of_metrics(run):
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_somewhere(run, choice):
    """Let the run go on, and kill it at a random moment; returns whether it was killed."""
    how = choice.choice(["by time", "while writing", "at a moment"])
    if how == "at a moment":
        process = start(run, at_moment=choice.randint(1, 40))
    else:
        process = start(run)
        before = lines_of_metrics(run)
        # The process reads and rewrites the metrics first; then a few steps are let through.
        steps = choice.randint(0, 2)
        wait_for(process, lambda: (run / "environment.json").exists())
        wait_for(process, lambda: lines_of_metrics(run) > before + steps)
        if how == "by time":
            time.sleep(choice.uniform(0, 0.1))
        else:
            number = choice.randint(1, 3)
            for _ in range(number):
                wait_for(process, lambda: not list(run.glob(".*.partial")))
                wait_for(process, lambda: list(run.glob(".*.partial")))
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def without_times(values):
    """A record or a state but for what a clock says."""
    if isinstance(values, list):
        return [without_times(value) for value in values]
    if not isinstance(values, dict):
        return values
    clock = ("seconds", "epoch_start", "images_per_second")
    return {name: without_times(value) for name, value in values.items() if name not in clock}


def metrics(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    begun = time.monotonic()
    process = start(whole)
    assert process.communicate()[1] == ""
    uninterrupted = time.monotonic() - begun

    choice = random.Random()
    for kills in range(KILLS):
        assert kill_somewhere(parts, choice), f"the run was over after {kills} kills"
    process = start(parts)
    assert process.communicate()[1] == ""
    print(
        f"\n{KILLS} kills in {time.monotonic() - begun - uninterrupted:.0f} s; without any the run "
        f"takes {uninterrupted:.0f} s"
    )

    assert metrics(parts) == metrics(whole)
    rates = {record["lr"] for record in metrics(whole)}
    assert len(rates) > 1, "the plateau schedule had nothing to do"
    assert sorted(path.name for path in parts.iterdir()) == sorted(
        path.name for path in whole.iterdir()
    )
    checkpoints = sorted(path.name for path in whole.glob("*.safetensors"))
    kept = [f"epoch-{number:04}.safetensors" for number in (EPOCHS - 1, EPOCHS)]
    assert checkpoints == ["best.safetensors", *kept, "last.safetensors"]
    for name in checkpoints:
        expected, found = load_file(whole / name), load_file(parts / name)
        assert expected.keys() == found.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array, err_msg=f"{name}: {key}")
        states = (
            json.loads((run / name).with_suffix(".json").read_text()) for run in (whole, parts)
        )
        assert without_times(next(states)) == without_times(next(states))
    assert any(key.startswith("average/") for key in load_file(whole / "last.safetensors"))
