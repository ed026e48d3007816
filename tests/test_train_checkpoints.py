"""What a run keeps: the last epochs, averages, the history; when it saves, and when it ends."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_runs import LENET, complaint, step_losses

import minidl as md
import minidl.functional as F
from minidl.models import LeNet5
from minidl.nn import BatchNorm2d
from minidl.train import main
from minidl.training import Trainer

# All that a resumed run has to take up again; 64 images make 2 steps an epoch.
EVERYTHING = [
    *("--arch", "lenet5", "--limit", "64", "--batch-size", "32", "--epochs", "3"),
    *("--average", "0.9", "--clip-norm", "1", "--accumulate", "2", "--label-smoothing", "0.1"),
    *("--schedule", "plateau", "--patience", "0", "--keep", "2"),
]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("minidl.training.run_folder.RunFolder.plot", lambda run, title: None)
    monkeypatch.setattr("minidl.train.write_report", lambda runs, path: None)


def files(run, pattern="*.safetensors"):
    return sorted(path.name for path in run.glob(pattern))


def epochs_of(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second")
    return [
        {name: value for name, value in record.items() if name not in timed}
        for record in records
        if record["kind"] == "epoch"
    ]


def stop_after_every_step(monkeypatch):
    step = Trainer.step

    def stopping(self, images, labels):
        loss = step(self, images, labels)
        self.stop.requested = True
        return loss

    monkeypatch.setattr(Trainer, "step", stopping)


def test_resumed_after_every_step_a_run_has_the_same_bits(tmp_path, capsys, monkeypatch):
    forward = LeNet5.forward
    monkeypatch.setattr(
        LeNet5, "forward", lambda self, x: forward(self, F.dropout(x, 0.2, self.training))
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*EVERYTHING, "--out", str(whole)]) == 0
    with monkeypatch.context() as patch:
        stop_after_every_step(patch)
        command = EVERYTHING
        for step in range(1, 7):
            line = complaint(capsys, *command, "--out", str(parts))
            assert f"after step {step} and saved" in line
            command = ["--resume", str(parts)]
    assert main(["--resume", str(parts)]) == 0
    assert step_losses(parts) == step_losses(whole)
    assert epochs_of(parts) == epochs_of(whole)
    assert files(parts) == files(whole)
    for name in files(whole):
        found = load_file(parts / name)
        for key, array in load_file(whole / name).items():
            np.testing.assert_array_equal(found[key], array, err_msg=f"{name}: {key}")


def test_the_last_epochs_are_kept_and_can_be_gone_on_from(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*LENET, "--epochs", "4", "--keep", "2", "--out", str(run)]) == 0
    kept = ["epoch-0003.safetensors", "epoch-0004.safetensors"]
    assert files(run, "epoch-*.safetensors") == kept
    assert files(run, "epoch-*.json") == ["epoch-0003.json", "epoch-0004.json"]
    last = load_file(run / "last.safetensors")
    for key, array in load_file(run / kept[1]).items():
        np.testing.assert_array_equal(last[key], array)

    third = str(run / kept[0])
    assert "say with --out where" in complaint(capsys, "--resume", third)
    again = tmp_path / "again"
    assert main(["--resume", third, "--out", str(again)]) == 0
    assert epochs_of(again) == epochs_of(run)
    for key, array in load_file(again / "last.safetensors").items():
        np.testing.assert_array_equal(last[key], array)

    assert main(["--resume", str(run), "--epochs", "5", "--keep", "1"]) == 0
    assert files(run, "epoch-*.safetensors") == ["epoch-0005.safetensors"]


def test_a_checkpoint_holds_the_history(tmp_path):
    run, lone = tmp_path / "run", tmp_path / "lone.safetensors"
    assert main([*LENET, "--out", str(run)]) == 0
    shutil.copy(run / "last.safetensors", lone)
    assert main(["--resume", str(lone), "--epochs", "3", "--out", str(tmp_path / "on")]) == 0
    assert epochs_of(tmp_path / "on")[:2] == epochs_of(run)
    assert len((tmp_path / "on" / "metrics.csv").read_text().splitlines()) == 4


def test_the_best_checkpoint_holds_the_averages(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*LENET, "--average", "0.5", "--out", str(run)]) == 0
    last, best = load_file(run / "last.safetensors"), load_file(run / "best.safetensors")
    assert not [name for name in best if "/" in name and not name.startswith("preprocess/")]
    names = [name for name in best if "/" not in name]
    assert any(np.any(last[name] != last[f"average/{name}"]) for name in names)
    accuracies = [record["val_accuracy"] for record in epochs_of(run)]
    if accuracies[-1] > accuracies[0]:
        for name in names:
            np.testing.assert_array_equal(best[name], last[f"average/{name}"])
    for name, tensor in md.load(run / "last.safetensors").items():
        np.testing.assert_array_equal(tensor.numpy(), last[f"average/{name}"])
    capsys.readouterr()
    assert main(["--eval-only", "--resume", str(run)]) == 0
    assert f"{accuracies[-1]:.1%}" in capsys.readouterr().out.splitlines()[-1]


def test_a_run_ends_early(tmp_path, capsys, monkeypatch):
    evaluate = Trainer.evaluate

    def getting_worse_after_two(self, reporter):
        tally = evaluate(self, reporter)
        tally.correct = {0: 10, 1: 20}.get(self.progress.epoch, 15)
        return tally

    monkeypatch.setattr(Trainer, "evaluate", getting_worse_after_two)
    run = tmp_path / "run"
    options = ["--epochs", "9", "--early-stop", "2", "--limit", "32"]
    assert main(["--arch", "lenet5", *options, "--out", str(run)]) == 0
    output = capsys.readouterr().out
    assert "stopped early: 2 epochs without a better test accuracy" in output
    assert "(best, after epoch 2)" in output.splitlines()[-1]
    assert len(epochs_of(run)) == 4
    assert main(["--resume", str(run)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "nothing left to do after 4 epochs" in line
    assert "raise --early-stop" in line
    assert main(["--resume", str(run), "--early-stop", "3"]) == 0
    assert len(epochs_of(run)) == 5


def test_long_epochs_are_saved_within(tmp_path, monkeypatch):
    saved, save = [], Trainer.save

    def observed(self):
        saved.append((self.progress.epoch, self.progress.batch))
        save(self)

    monkeypatch.setattr(Trainer, "save", observed)
    assert main([*LENET, "--epochs", "1", "--out", str(tmp_path / "rarely")]) == 0
    assert saved == [(0, 4), (1, 0)]  # before the first evaluation, and after it
    saved.clear()
    often = [*LENET, "--epochs", "1", "--save-every", "0.000001"]
    assert main([*often, "--out", str(tmp_path / "often")]) == 0
    assert saved == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert main([*LENET, "--out", str(run)]) == 0
    before = (run / "last.safetensors").read_bytes()
    step = Trainer.step

    def spoiling(self, images, labels):
        loss = step(self, images, labels)
        self.model.classifier.fc1.bias.data[0] = np.inf
        self.stop.requested = True
        return loss

    monkeypatch.setattr(Trainer, "step", spoiling)
    line = complaint(capsys, "--resume", str(run), "--epochs", "3")
    assert "last.safetensors: not written, because classifier.fc1.bias is not finite" in line
    assert (run / "last.safetensors").read_bytes() == before


def test_nan_is_reported_with_its_layer_or_left_out(tmp_path, capsys, monkeypatch):
    step = Trainer.step

    def with_nan_in_the_second_batch(self, images, labels):
        if self.progress.step == 1:
            images.data[0, 0, 0, 0] = np.nan
        return step(self, images, labels)

    monkeypatch.setattr(Trainer, "step", with_nan_in_the_second_batch)
    line = complaint(capsys, *LENET, "--out", str(tmp_path / "stop"))
    assert "the loss became nan in step 2 (epoch 1, learning rate " in line
    assert line.endswith("first in the images of the batch; try a smaller --lr")
    run = tmp_path / "skip"
    assert main([*LENET, "--on-nan", "skip", "--out", str(run)]) == 0
    assert "steps left out so far: 1" in capsys.readouterr().out
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [1, 3, 4, 5, 6, 7, 8]
    (skipped,) = (record for record in records if record["kind"] == "skip")
    assert (skipped["epoch"], skipped["step"]) == (1, 2)
    assert "the images of the batch" in skipped["reason"]
    assert [r["skipped"] for r in records if r["kind"] == "epoch"] == [1, 1]
    assert all(r["grad_norm"] > 0 for r in records if r["kind"] == "step")


def test_nan_in_the_evaluation_is_reported_with_its_layer(tmp_path, capsys, monkeypatch):
    forward = BatchNorm2d.forward

    def spoiling(self, x):
        if not self.training and self.num_features == 32:
            self.running_var.data[3] = np.nan
        return forward(self, x)

    monkeypatch.setattr(BatchNorm2d, "forward", spoiling)
    options = ["--arch", "resnet20_cifar", "--limit", "16", "--batch-size", "8", "--epochs", "1"]
    line = complaint(capsys, *options, "--out", str(tmp_path / "run"))
    assert "the test loss became nan after step 2 (epoch 1), first in the output of " in line
    assert "(BatchNorm2d); try a smaller --lr" in line
