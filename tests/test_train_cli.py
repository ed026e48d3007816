"""`python -m minidl.train` as a person meets it: what it writes, prints, and refuses."""

import csv
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from minidl.train import main

LENET = ["--arch", "lenet5", "--limit", "128", "--epochs", "2"]
RUN_FILES = {
    "config.json", "environment.json", "metrics.jsonl", "metrics.csv",
    "last.safetensors", "last.json", "best.safetensors", "best.json",
}  # fmt: skip


def step_losses(run: Path) -> list[float]:
    """The losses of all steps that a run has logged."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == list(
        range(1, 1 + sum(r["kind"] == "step" for r in records))
    )
    return [record["loss"] for record in records if record["kind"] == "step"]


def complaint(capsys, *arguments: str) -> str:
    """The one line on standard error with which the command refuses `arguments`."""
    try:
        status = main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished run of lenet5."""
    run = tmp_path / "finished"
    assert main([*LENET, "--out", str(run)]) == 0
    return run


def test_run_leaves_its_files_and_ends_with_one_line(tmp_path, capsys):
    finished = tmp_path / "run"
    assert main([*LENET, "--out", str(finished)]) == 0
    output = capsys.readouterr().out.splitlines()
    assert RUN_FILES <= {path.name for path in finished.iterdir()} <= RUN_FILES | {"curves.png"}
    assert output[-1].startswith("test accuracy ")
    assert output[-1].endswith(str(finished / "best.safetensors"))
    assert "input 1 x 32 x 32, 10 classes" in "\n".join(output)

    with open(finished / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    assert json.loads((finished / "config.json").read_text())["batch_size"] == 32
    assert "NumPy" in json.loads((finished / "environment.json").read_text())
    assert len(step_losses(finished)) == 8
    assert "features.conv1.weight" in load_file(finished / "best.safetensors")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", ["plateau", "multistep", "step"])
def test_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path, optimizer, schedule):
    options = ["--arch", "lenet5", "--limit", "64", "--optimizer", optimizer]
    options += ["--schedule", schedule]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*options, "--epochs", "3", "--out", str(whole)]) == 0
    # The schedule spans the run, so the first part is stopped rather than made shorter.
    script = (
        "import sys; from minidl import train, training\n"
        "step = training.Trainer.step\n"
        "def interrupting(self, images, labels):\n"
        "    loss = step(self, images, labels)\n"
        "    self.stop.requested = self.progress.step == 3\n"
        "    return loss\n"
        "training.Trainer.step = interrupting\n"
        "sys.exit(train.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *options, "--epochs", "3", "--out", str(parts)]
    stopped = subprocess.run(command, capture_output=True, text=True)
    assert stopped.returncode == 2
    assert f"--resume {parts}" in stopped.stderr
    assert len(step_losses(parts)) == 3
    assert main(["--resume", str(parts)]) == 0
    assert step_losses(parts) == step_losses(whole)
    for name, array in load_file(whole / "last.safetensors").items():
        np.testing.assert_array_equal(load_file(parts / "last.safetensors")[name], array)


def test_same_seed_same_bits_for_any_number_of_threads(tmp_path):
    losses = []
    for number, threads in enumerate(("1", "2", "2")):
        run = tmp_path / str(number)
        arguments = ["--arch", "vgg11_bn", "--limit", "32", "--epochs", "1", "--batch-size", "8"]
        assert main([*arguments, "--threads", threads, "--out", str(run)]) == 0
        losses.append(step_losses(run))
    assert losses[0] == losses[1] == losses[2]


def test_another_seed_gives_another_run(tmp_path):
    for seed in ("1", "2"):
        arguments = ["--arch", "lenet5", "--limit", "32", "--epochs", "1", "--seed", seed]
        assert main([*arguments, "--out", str(tmp_path / seed)]) == 0
    assert step_losses(tmp_path / "1") != step_losses(tmp_path / "2")


def test_eval_only_repeats_the_accuracy(finished, capsys):
    capsys.readouterr()
    checkpoint = str(finished / "best.safetensors")
    assert main(["--eval-only", "--resume", checkpoint]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    accuracy = json.loads((finished / "best.json").read_text())["progress"]["best_accuracy"]
    assert last.startswith(f"test accuracy {accuracy:.1%}")


def test_dry_run_prints_a_step_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--arch", "alexnet", "--dry-run", "--batch-size", "2"]) == 0
    output = capsys.readouterr().out
    assert "input 3 x 64 x 64, 10 classes" in output
    assert max(map(len, output.splitlines())) <= 80
    assert "2x64x15x15" in output
    assert "images/s" in output
    assert list(tmp_path.iterdir()) == []


def test_list_archs(capsys):
    assert main(["--list-archs"]) == 0
    names = capsys.readouterr().out.split()
    assert {"alexnet", "lenet5", "vgg11", "vgg16", "vgg19_bn"} <= set(names)


def test_folder_and_cifar_and_idx_train(tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                pixels = generator.integers(0, 256, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    cifar = tmp_path / "cifar"
    cifar.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        records = generator.integers(0, 256, (10, 3073), np.uint8)
        records[:, 0] = np.arange(10)
        (cifar / f"{name}.bin").write_bytes(records.tobytes())
    mnist = tmp_path / "mnist"
    mnist.mkdir()
    for split in ("train", "t10k"):
        pixels = generator.integers(0, 256, (20, 28, 28), np.uint8)
        header = struct.pack(">4i", 2051, *pixels.shape)
        with gzip.open(mnist / f"{split}-images-idx3-ubyte.gz", "wb") as file:
            file.write(header + pixels.tobytes())
        labels = np.arange(20, dtype=np.uint8) % 10
        (mnist / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, 20) + labels.tobytes()
        )
    for number, (spec, size) in enumerate(
        ((f"folder:{tmp_path / 'images'}", ["--image-size", "32"]),
         (f"cifar10:{cifar}", []), (f"mnist:{mnist}", []))
    ):  # fmt: skip
        run = tmp_path / f"run{number}"
        arguments = ["--arch", "lenet5", "--data", spec, "--epochs", "1", *size]
        assert main([*arguments, "--out", str(run)]) == 0, spec


def test_wrong_options_are_refused_in_one_line(tmp_path, capsys):
    assert "did you mean 'vgg16'" in complaint(capsys, "--arch", "vgg_16")
    assert "--arch is required" in complaint(capsys)
    assert "whole number >= 1, got 'many'" in complaint(capsys, *LENET, "--batch-size", "many")
    assert "number > 0, got '-1'" in complaint(capsys, *LENET, "--lr", "-1")
    assert "unrecognized arguments: --epoch" in complaint(capsys, *LENET, "--epoch", "3")
    assert "fast" in complaint(capsys, *LENET, "--schedule", "fast")
    assert "--resume" in complaint(capsys, "--eval-only", "--arch", "lenet5")
    assert "device" in complaint(capsys, *LENET, "--device", "tpu")
    small = complaint(capsys, "--arch", "vgg16", "--image-size", "31", "--out", str(tmp_path / "x"))
    assert "31" in small
    assert "at least 32" in small
    assert list(tmp_path.iterdir()) == []


def test_wrong_data_is_refused_in_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    missing = tmp_path / "nowhere"
    for kind in ("folder", "mnist", "cifar10"):
        line = complaint(capsys, *LENET, "--data", f"{kind}:{missing}", *out)
        assert str(missing) in line
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "empty" / "val" / "cat").mkdir(parents=True)
    assert "cat" in complaint(capsys, *LENET, "--data", f"folder:{tmp_path / 'empty'}", *out)

    idx = tmp_path / "idx"
    idx.mkdir()
    for split in ("train", "t10k"):
        (idx / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, 10, 28, 28) + bytes(5000)
        )
        (idx / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 10) + bytes(10))
    line = complaint(capsys, *LENET, "--data", f"mnist:{idx}", *out)
    assert "train-images-idx3-ubyte" in line
    for split in ("train", "t10k"):
        (idx / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, 10, 28, 28) + bytes(7840)
        )
        (idx / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, 10) + bytes([3] * 9 + [77])
        )
    assert "77" in complaint(capsys, *LENET, "--data", f"mnist:{idx}", *out)
    assert "out of range" in complaint(capsys, *LENET, "--num-classes", "3", *out)

    broken = tmp_path / "broken"
    for split in ("train", "val"):
        (broken / split / "cat").mkdir(parents=True)
        (broken / split / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    line = complaint(capsys, *LENET, "--data", f"folder:{broken}", "--image-size", "32", *out)
    assert "torn.jpg" in line
    assert not (tmp_path / "run" / "last.safetensors").exists()


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


def run_limited(command: list[str], file_size: int) -> subprocess.CompletedProcess[str]:
    """Run with a limit on the size of files: writing beyond it fails as a full disk does."""
    prelude = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_size}, {file_size}))\n"
        "from minidl.train import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", prelude, *command], capture_output=True, text=True)


def test_full_disk_leaves_the_previous_checkpoint(finished):
    last = finished / "last.safetensors"
    before = last.read_bytes()
    run = run_limited(["--resume", str(finished), "--epochs", "3"], len(before) // 2)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert "cannot write the checkpoint" in run.stderr
    assert "the previous checkpoint is unchanged" in run.stderr
    assert last.read_bytes() == before
    assert not list(finished.glob("*.partial")) + list(finished.glob(".*.partial"))


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
