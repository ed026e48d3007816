"""Runs that are stopped, killed, resumed, out of space; checkpoints that are damaged or foreign."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from training_runs import LENET, complaint, step_losses

from minidl.train import main
from minidl.training import Trainer


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished run of lenet5."""
    run = tmp_path / "finished"
    assert main([*LENET, "--out", str(run)]) == 0
    return run


@pytest.fixture
def stop_after(monkeypatch):
    """A function that lets runs be asked to stop, as by Ctrl-C, after the step of that number."""
    step = Trainer.step

    def arrange(number):
        def interrupting(self, images, labels):
            loss = step(self, images, labels)
            self.stop.requested = self.progress.step == number
            return loss

        monkeypatch.setattr(Trainer, "step", interrupting)

    return arrange


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", ["plateau", "multistep", "step"])
def test_resumed_run_has_the_bits_of_an_uninterrupted_one(
    tmp_path, capsys, stop_after, optimizer, schedule
):
    # lenet5 takes batches of 32: 64 images make 2 steps an epoch, so step 1 is within the first.
    options = ["--arch", "lenet5", "--limit", "64", "--optimizer", optimizer]
    options += ["--schedule", schedule, "--epochs", "3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*options, "--out", str(whole)]) == 0
    for number, command in ((1, [*options, "--out"]), (3, ["--resume"])):
        stop_after(number)
        assert f"--resume {parts}" in complaint(capsys, *command, str(parts))
        assert len(step_losses(parts)) == number
        json.loads((parts / "last.json").read_text(), parse_constant=pytest.fail)
    assert main(["--resume", str(parts)]) == 0
    assert step_losses(parts) == step_losses(whole)
    for name, array in load_file(whole / "last.safetensors").items():
        np.testing.assert_array_equal(load_file(parts / "last.safetensors")[name], array)


def test_stop_during_evaluation_evaluates_again(tmp_path, capsys, monkeypatch):
    run, evaluate = tmp_path / "run", Trainer.evaluate

    def interrupted(self, reporter):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, reporter)

    monkeypatch.setattr(Trainer, "evaluate", interrupted)
    assert "stopped in epoch 1 after step 4 and saved" in complaint(
        capsys, *LENET, "--out", str(run)
    )
    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    assert main(["--resume", str(run)]) == 0
    assert len(step_losses(run)) == 8
    assert [row.split(",")[:2] for row in (run / "metrics.csv").read_text().split()[1:]] == [
        ["1", "4"], ["2", "8"],
    ]  # fmt: skip


def test_second_interrupt_stops_at_once_and_keeps_the_last_checkpoint(
    finished, capsys, monkeypatch
):
    before = (finished / "last.safetensors").read_bytes()

    def interrupted(self, images, labels):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", interrupted)
    line = complaint(capsys, "--resume", str(finished), "--epochs", "3")
    assert (
        f"stopped at once, without saving; go on with: python -m minidl.train --resume {finished}"
        in line
    )
    assert (finished / "last.safetensors").read_bytes() == before


def test_finished_run_says_that_nothing_is_left(finished, capsys):
    before = {path: path.read_bytes() for path in finished.iterdir()}
    for epochs in ("2", "1"):
        capsys.readouterr()
        assert main(["--resume", str(finished), "--epochs", epochs]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("nothing left to do after 2 epochs (best test accuracy ")
        assert last.endswith("to go further, raise --epochs above 2")
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_resume_into_another_folder_takes_the_history_along(finished, tmp_path, capsys):
    before = {path: path.read_bytes() for path in finished.iterdir()}
    other = tmp_path / "other"
    assert main(["--resume", str(finished), "--epochs", "3", "--out", str(other)]) == 0
    assert len(step_losses(other)) == 12
    assert len((other / "metrics.csv").read_text().splitlines()) == 4
    assert (other / "best.safetensors").exists()
    assert {path: path.read_bytes() for path in finished.iterdir()} == before

    # A checkpoint alone: no history, and the best is chosen anew.
    lone = tmp_path / "lone.safetensors"
    shutil.copy(finished / "last.safetensors", lone)
    assert "say with --out where" in complaint(capsys, "--resume", str(lone), "--epochs", "3")
    assert main(["--resume", str(lone), "--epochs", "3", "--out", str(tmp_path / "new")]) == 0
    assert "(best, after epoch 3)" in capsys.readouterr().out
    assert (tmp_path / "new" / "best.safetensors").exists()


def test_resume_finds_data_that_have_moved(tmp_path, capsys):
    for split in ("train", "val"):
        for name, colour in (("cat", "red"), ("dog", "blue")):
            folder = tmp_path / "my images" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 50), colour).save(folder / "1.png")
    run = tmp_path / "run"
    before, after = f"folder:{tmp_path / 'my images'}", f"folder:{tmp_path / 'moved'}"
    options = ["--arch", "lenet5", "--image-size", "32", "--epochs", "1", "--data", before]
    assert main([*options, "--out", str(run)]) == 0
    (tmp_path / "my images").rename(tmp_path / "moved")
    resume = ["--resume", str(run), "--epochs", "2"]
    assert "my images does not exist" in complaint(capsys, *resume)
    assert "not with cifar10:x" in complaint(capsys, *resume, "--data", "cifar10:x")
    assert main([*resume, "--data", after]) == 0
    assert json.loads((run / "config.json").read_text())["data"] == after


def test_what_a_killed_run_leaves_is_cleared_away(finished):
    with open(finished / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "epoch": 3, "step": 9, "lr": 0.1, "loss": 1}\n{"kind": "st')
    for name in (".last.safetensors.partial", ".tmpAbCdEf"):
        (finished / name).write_bytes(b"half a checkpoint")
    assert main(["--resume", str(finished), "--epochs", "3"]) == 0
    assert len(step_losses(finished)) == 12
    assert not list(finished.glob(".*"))


def test_folder_without_a_checkpoint_can_be_used_again(tmp_path, capsys):
    run = tmp_path / "run"
    diverging = [*LENET, "--optimizer", "sgd", "--lr", "1e30", "--out", str(run)]
    assert "loss became" in complaint(capsys, *diverging)
    assert not (run / "last.safetensors").exists()
    (run / "notes.txt").write_text("mine")
    assert "exists already" in complaint(capsys, *LENET, "--out", str(run))
    (run / "notes.txt").unlink()
    assert main([*LENET, "--out", str(run)]) == 0
    assert len(step_losses(run)) == 8


def test_wrong_checkpoints_are_refused_in_one_line(finished, tmp_path, capsys):
    capsys.readouterr()
    last = finished / "last.safetensors"
    line = complaint(capsys, "--resume", str(finished), "--arch", "vgg16")
    assert "arch lenet5, not vgg16" in line
    line = complaint(capsys, "--resume", str(finished), "--batch-size", "7")
    assert "batch-size 32, not 7; a run that goes on can change --epochs" in line
    assert "no such checkpoint" in complaint(capsys, "--resume", str(tmp_path / "none"))
    assert "weights only" in complaint(capsys, "--resume", str(finished / "best.safetensors"))
    assert "exists already" in complaint(capsys, *LENET, "--out", str(finished))

    whole = last.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        last.write_bytes(whole[:length])
        assert "not a complete safetensors file" in complaint(capsys, "--resume", str(last))
    last.write_bytes(b"\x80\x04\x95 a pickle, say")
    assert "not a complete safetensors file" in complaint(capsys, "--resume", str(last))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, s: s.update(settings={}), "damaged settings (.*arch"),
        (lambda t, s: s["settings"].update(epochs="3"), "epochs: expected .* >= 1, got '3'"),
        (lambda t, s: s["settings"].update(optimizer="newton"), "optimizer: .*got 'newton'"),
        (lambda t, s: s["settings"].update(batch_size=0), "batch_size: .* >= 1, got 0"),
        (lambda t, s: s["settings"].update(arch="vgg11"), "names or shapes do not match"),
        (lambda t, s: s.update(format=99), "a checkpoint of format 99"),
        (lambda t, s: s.update(progress={"epoch": None}), "epoch is None, expected int"),
        (lambda t, s: s.update(optimizer={"0": {"step": "many"}}), "header is damaged"),
        (lambda t, s: s.update(schedule={}), "header is damaged (KeyError: 'base_lrs')"),
        (lambda t, s: s.update(random=None), "header is damaged"),
        (lambda t, s: t.update({"optimizer/99/exp_avg": np.zeros(1)}), "header is damaged"),
        (lambda t, s: t.pop("features.conv1.weight"), "missing (1): features.conv1.weight"),
        (lambda t, s: t["features.conv1.weight"].fill(np.nan), "conv1.weight holds NaN"),
        (
            lambda t, s: t.update({"features.conv1.bias": np.zeros(6)}),
            "features.conv1.bias is float64, expected float32",
        ),
    ],
)  # fmt: skip
def test_damaged_state_is_refused_in_one_line(finished, capsys, change, message):
    last = finished / "last.safetensors"
    with safe_open(last, framework="numpy") as file:
        state = json.loads(file.metadata()["minidl"])
    tensors = load_file(last)
    change(tensors, state)
    save_file(tensors, last, metadata={"minidl": json.dumps(state)})
    line = complaint(capsys, "--resume", str(finished), "--epochs", "3")
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), line), line
    assert str(last) in line


def test_files_of_other_programs_are_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "last.safetensors"
    for metadata in (None, {"format": "pt"}, {"minidl": "[1]"}, {"minidl": "{"}):
        save_file({"conv1.weight": np.zeros((2, 2), np.float32)}, path, metadata=metadata)
        assert "without the state of a minidl run" in complaint(capsys, "--resume", str(path))


def run_limited(command: list[str], file_size: int) -> subprocess.CompletedProcess[str]:
    """Run with a limit on the size of files: writing beyond it fails as a full disk does."""
    prelude = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_size}, {file_size}))\n"
        "from minidl.train import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", prelude, *command], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("keep", "complaint"),
    [
        ("0", "last.safetensors: cannot write .*; the previous checkpoint is unchanged"),
        ("1", "epoch-0003.safetensors: cannot write .*; nothing was written"),
    ],
)
def test_full_disk_leaves_the_previous_checkpoint(finished, keep, complaint):
    last = finished / "last.safetensors"
    before = last.read_bytes()
    options = ["--resume", str(finished), "--epochs", "3", "--keep", keep]
    run = run_limited(options, len(before) // 2)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert re.search(complaint, run.stderr), run.stderr
    assert last.read_bytes() == before
    assert not list(finished.glob("epoch-*"))
    assert not list(finished.glob("*.partial")) + list(finished.glob(".*.partial"))


@pytest.mark.parametrize("size", [0, 100, 450, 20_000])
def test_full_disk_is_one_line_whatever_is_being_written(tmp_path, size):
    """`size` ends the run in config.json, in the metrics, in the plot, or in a checkpoint."""
    run = run_limited([*LENET, "--out", str(tmp_path / "run")], size)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert "cannot write" in run.stderr
    assert not list(tmp_path.glob("run/*.safetensors"))
    assert not list(tmp_path.glob("run/.*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_saves_and_says_how_to_resume(tmp_path, number):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "minidl.train", "--arch", "lenet5", "--epochs", "1000"]
    process = subprocess.Popen(
        [*command, "--limit", "256", "--out", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(stderr.splitlines()) == 1, stderr
    assert f"go on with: python -m minidl.train --resume {run}" in stderr
    done = len(step_losses(run))
    epochs = str(done // 8 + 2)  # 8 steps an epoch
    assert main(["--resume", str(run), "--epochs", epochs]) == 0
    assert len(step_losses(run)) == 8 * int(epochs)
