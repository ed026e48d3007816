"""`python -m minidl.train` as a person meets it: what it writes, prints, and refuses."""

import csv
import fcntl
import gzip
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_runs import LENET, complaint, step_losses

import minidl as md
from minidl.reporting.run import read_confusion
from minidl.train import main
from minidl.training import RunFolder
from minidl.training.progress import PlainReporter, Tally

RUN_FILES = {
    "config.json", "environment.json", "metrics.jsonl", "metrics.csv",
    "last.safetensors", "last.json", "best.safetensors", "best.json", "confusion.csv",
}  # fmt: skip


def test_run_leaves_its_files_and_ends_with_one_line(tmp_path, capsys):
    finished = tmp_path / "run"
    assert main([*LENET, "--out", str(finished)]) == 0
    output = capsys.readouterr().out.splitlines()
    drawn = {"curves.png", "report.html"} if importlib.util.find_spec("matplotlib") else set()
    assert {path.name for path in finished.iterdir()} == RUN_FILES | drawn
    assert output[-1].startswith("test accuracy ")
    assert output[-1].endswith(str(finished / "best.safetensors"))
    assert "input 1x32x32, 10 classes" in "\n".join(output)

    with open(finished / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    assert json.loads((finished / "config.json").read_text())["batch_size"] == 32
    assert "NumPy" in json.loads((finished / "environment.json").read_text())
    assert len(step_losses(finished)) == 8
    assert "features.conv1.weight" in load_file(finished / "best.safetensors")


def test_columns_stay_where_they_are_and_within_80(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RunFolder, "plot", lambda *_: None)  # takes most of the time
    arguments = ["--arch", "lenet5", "--limit", "8", "--epochs", "10", "--out", str(tmp_path / "r")]
    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "  test loss " in line]
    number = r"(?=.{6}  acc ) *[\d.]+"
    form = rf"epoch [ \d]\d/10  loss {number}  acc .{{5}}  test loss {number}  acc .{{5}}  [\d.]+ s"
    assert len(lines) == 10
    assert all(re.fullmatch(form, line) and len(line) <= 80 for line in lines), lines


def test_lines_of_an_epoch_keep_their_columns(capsys, monkeypatch):
    monkeypatch.setattr("minidl.training.progress.PLAIN_INTERVAL", 0.0)
    reporter = PlainReporter()
    reporter.start("epoch 1/9", 200, 0)
    for done in (1, 99, 200):
        reporter.update(Tally(64, 64 * (done > 1), 64.0 * done), 1000.0, done)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" images/s")[0] for line in lines] == [
        "epoch 1/9    1/200  loss 1.0000  acc  0.0%  1000",
        "epoch 1/9   99/200  loss  99.00  acc  100%  1000",
        "epoch 1/9  200/200  loss  200.0  acc  100%  1000",
    ]


def test_the_confusion_matrix_is_the_best_epoch_s(tmp_path):
    run = tmp_path / "run"
    assert main([*LENET, "--num-classes", "12", "--out", str(run)]) == 0
    confusion = read_confusion(run / "confusion.csv")
    with open(run / "metrics.csv") as file:
        best = max(float(row["val_accuracy"]) for row in csv.DictReader(file))
    assert confusion.counts.trace() / 128 == pytest.approx(best)
    test = md.data.load().val
    ((_, labels),) = md.data.DataLoader(test, batch_size=128, limit=128).batches(0)
    counts = np.bincount(labels, minlength=len(confusion.classes))
    np.testing.assert_array_equal(confusion.counts.sum(axis=1), counts)
    assert confusion.classes[:10] == test.classes


def test_same_seed_same_bits_for_any_number_of_threads(tmp_path):
    losses = []
    for number, threads in enumerate(("1", "2", "2")):
        run = tmp_path / str(number)
        arguments = ["--arch", "vgg11_bn", "--limit", "16", "--epochs", "1", "--batch-size", "8"]
        assert main([*arguments, "--threads", threads, "--out", str(run)]) == 0
        losses.append(step_losses(run))
    assert losses[0] == losses[1] == losses[2]


def test_another_seed_gives_another_run(tmp_path):
    for seed in ("1", "2"):
        arguments = ["--arch", "lenet5", "--limit", "32", "--epochs", "1", "--seed", seed]
        assert main([*arguments, "--out", str(tmp_path / seed)]) == 0
    assert step_losses(tmp_path / "1") != step_losses(tmp_path / "2")


def test_eval_only_repeats_the_accuracy(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*LENET, "--out", str(run)]) == 0
    best = json.loads((run / "best.json").read_text())["progress"]["best_accuracy"]
    with open(run / "metrics.csv") as file:
        last = float(list(csv.DictReader(file))[-1]["val_accuracy"])
    for path, accuracy in ((run / "best.safetensors", best), (run, last)):
        capsys.readouterr()
        assert main(["--eval-only", "--resume", str(path)]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith(f"test accuracy {accuracy:.1%}, loss ")
        assert line.endswith(f"checkpoint {path if path.is_file() else run / 'last.safetensors'}")
    assert "arch lenet5, not vgg11" in complaint(
        capsys, "--eval-only", "--resume", str(run), "--arch", "vgg11"
    )


@pytest.mark.parametrize(
    ("arch", "layer"), [("vgg11", "2x64x32x32"), ("densenet_bc_100_12_cifar", "2x24x32x32")]
)
def test_dry_run_prints_a_step_and_writes_nothing(tmp_path, monkeypatch, capsys, arch, layer):
    monkeypatch.chdir(tmp_path)
    assert main(["--arch", arch, "--dry-run", "--batch-size", "2"]) == 0
    output = capsys.readouterr().out
    assert "input 3x32x32, 10 classes" in output
    assert layer in output
    assert max(map(len, output.splitlines())) <= 80
    assert "images/s" in output
    assert list(tmp_path.iterdir()) == []


def test_list_archs(capsys):
    assert main(["--list-archs"]) == 0
    names = capsys.readouterr().out.split()
    assert {"alexnet", "lenet5", "vgg11", "vgg16", "vgg19_bn", "googlenet_aux"} <= set(names)
    assert "inception_naive" not in names
    for options in ([], ["--dry-run", "--num-classes", "10"]):
        line = complaint(capsys, "--arch", "inception_naive", *options)
        assert "inception_naive: a part of a network, without classes to learn" in line


def test_auxiliary_heads_take_part_in_training_only(tmp_path):
    """A step moves them; the logged loss is the main head's, as in the evaluation."""
    options = ["--arch", "googlenet_aux", "--limit", "2", "--epochs", "1", "--out"]
    assert main([*options, str(tmp_path / "run")]) == 0
    weights = load_file(tmp_path / "run" / "best.safetensors")
    md.manual_seed(0)
    fresh = md.models.create("googlenet_aux", 10, 3, 32)
    for name, value in fresh.named_parameters():
        assert np.any(weights[name] != value.data) or "bias" in name, name
    assert 1.0 < step_losses(tmp_path / "run")[0] < 4.0


def test_folder_and_cifar_and_idx_train(tmp_path, capsys):
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
    specs = (f"folder:{tmp_path / 'images'}", f"cifar10:{cifar}", f"mnist:{mnist}")
    for number, spec in enumerate(specs):
        run = tmp_path / f"run{number}"
        arguments = ["--arch", "lenet5", "--data", spec, "--epochs", "1", "--out", str(run)]
        assert main(arguments) == 0, spec
        assert "input 1x32x32" in capsys.readouterr().out  # the network's own size


def test_wrong_options_are_refused_in_one_line(tmp_path, capsys):
    assert "did you mean 'vgg16'" in complaint(capsys, "--arch", "vgg_16")
    assert "--arch is required" in complaint(capsys)
    assert "whole number >= 1, got 'many'" in complaint(capsys, *LENET, "--batch-size", "many")
    assert "number > 0, got -1.0" in complaint(capsys, *LENET, "--lr", "-1")
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


def test_options_that_do_not_go_together(tmp_path, capsys):
    assert "not allowed with" in complaint(capsys, *LENET, "--dry-run", "--list-archs")
    assert "--momentum is for sgd, rmsprop, not for adam" in complaint(
        capsys, *LENET, "--momentum", "0.5"
    )
    assert "<= 1024, got 100000" in complaint(capsys, *LENET, "--threads", "100000")


def test_folders_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    assert "runs/lenet5-" in complaint(capsys, *LENET)
    assert "exists already; choose another --out" in complaint(capsys, *LENET, "--out", "runs")
    assert "(Not a directory)" in complaint(capsys, *LENET, "--out", "runs/deeper")
    assert "(File name too long)" in complaint(capsys, *LENET, "--out", "x" * 300)
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [RunFolder.create_unnamed("lenet5-20260101-120000").path for _ in range(3)]
    assert [folder.name[22:] for folder in folders] == ["", "-2", "-3"]


def test_odd_numbers_of_images(tmp_path, capsys):
    """One image in all; fewer than a batch; one left over, which a 1 x 1 batch norm cannot take."""
    lenet, resnet = ["--arch", "lenet5"], ["--arch", "resnet18", "--batch-size", "2"]
    for number, (options, steps) in enumerate(
        [
            ([*lenet, "--limit", "1"], 1),
            ([*lenet, "--limit", "40", "--batch-size", "500"], 1),
            ([*resnet, "--limit", "3"], 1),
        ]
    ):
        run = tmp_path / str(number)
        assert main([*options, "--epochs", "1", "--out", str(run)]) == 0
        assert len(step_losses(run)) == steps
    line = complaint(capsys, *resnet, "--limit", "1", "--out", str(tmp_path / "x"))
    assert "resnet18: batch_norm: training needs more than one value per channel" in line


def test_a_pipe_that_closes_and_a_full_disk_behind_standard_output(tmp_path):
    command = [sys.executable, "-m", "minidl.train", *LENET, "--out"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "pipe")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 2
    process.stderr.close()
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [*command, str(tmp_path / "full")], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert run.returncode == 2
    assert run.stderr == "minidl.train: [Errno 28] No space left on device\n"


def read_until(terminal: int, text: bytes | None) -> bytes:
    """What a program writes to its pseudo-terminal, up to `text` or (None) to its end."""
    written = b""
    while text is None or text not in written:
        try:
            written += os.read(terminal, 4096)
        except OSError:  # how Linux says that no writer is left
            assert text is None, written.decode()
            break
    return written


@pytest.mark.filterwarnings("ignore:os.fork")  # by JAX, where another test has loaded it
def test_bar_fits_80_columns_and_leaves_the_terminal_clean(tmp_path):
    """On a pseudo-terminal no line is wider than 80, ^C behind the bar and all; none is left."""
    run = tmp_path / "run"
    arguments = ["--arch", "lenet5", "--limit", "640", "--epochs", "1000", "--out", str(run)]
    terminal, inside = os.openpty()
    termios.tcsetwinsize(inside, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-m", "minidl.train", *arguments],
        stdin=inside, stdout=inside, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(inside)
        try:
            written = read_until(terminal, b"test loss") + read_until(terminal, b"img/s")
            os.write(terminal, b"\x03")
            written += read_until(terminal, None)
        finally:
            os.close(terminal)  # which ends the program, should it still run
        stderr = process.stderr.read()
    assert process.returncode == 2
    assert stderr.count("\n") == 1
    assert stderr.endswith(f"go on with: python -m minidl.train --resume {run}\n")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    lines = [line for line in re.split(r"[\r\n]+", text) if str(run) not in line]
    bars = [line for line in lines if re.search(r"loss [\d.]+  acc +[\d.]+%  \d+ img/s ETA", line)]
    assert bars
    assert max(len(bar.removesuffix("^C")) for bar in bars) <= 78
    assert max(map(len, lines)) <= 80
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l"), "the cursor is still hidden"
    assert written.endswith(b"\x1b[2K"), "the bar is still there"
