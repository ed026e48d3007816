"""`--augment` and `--preprocess`: what a run measures, keeps, and goes on with."""

import json
import os
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_runs import complaint, step_losses

from minidl.train import main
from minidl.training import Trainer

RUN = [
    "--arch", "lenet5", "--limit", "96", "--epochs", "2",
    "--augment", "pad-crop:2,flip,colour:0.4,pca-colour:0.1", "--preprocess", "pixel-mean",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("inputs") / "run"
    assert main([*RUN, "--out", str(run)]) == 0
    return run


def test_what_was_measured_is_in_both_checkpoints(finished):
    for name in ("best", "last"):
        arrays = load_file(finished / f"{name}.safetensors")
        assert arrays["preprocess/shift"].shape == (1, 32, 32)
        assert arrays["augment/eigenvalues"].shape == (1,)
    config = json.loads((finished / "config.json").read_text())
    assert config["preprocess"] == "pixel-mean"
    assert config["augment"] == "pad-crop:2,flip,colour:0.4,pca-colour:0.1"


def test_stopped_and_resumed_is_the_uninterrupted_run(finished, tmp_path, capsys, monkeypatch):
    run, step = tmp_path / "run", Trainer.step

    def stopping(self, images, labels):
        if self.progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, images, labels)

    monkeypatch.setattr(Trainer, "step", stopping)
    assert "stopped in epoch 2 after step 5" in complaint(capsys, *RUN, "--out", str(run))
    monkeypatch.setattr(Trainer, "step", step)

    def measured_again(*arguments):
        pytest.fail("a resumed run goes on with what it measured")

    monkeypatch.setattr("minidl.data.preprocess._mean_image", measured_again)
    monkeypatch.setattr("minidl.data.colour.ColourComponents.fit", measured_again)
    assert main(["--resume", str(run)]) == 0
    assert step_losses(run) == step_losses(finished)
    for name, array in load_file(finished / "last.safetensors").items():
        np.testing.assert_array_equal(load_file(run / "last.safetensors")[name], array)


def test_an_evaluation_sees_images_as_the_run_did(finished, capsys):
    test = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    accuracy = [record["val_accuracy"] for record in test if record["kind"] == "epoch"][-1]
    assert main(["--resume", str(finished), "--eval-only"]) == 0
    output = capsys.readouterr().out
    assert "inputs: pixel-mean, in training pad-crop:2,flip,colour:0.4,pca-colour:0.1" in output
    assert f"test accuracy {accuracy:.1%}" in output


def test_the_default_is_said_in_the_head_of_a_run(tmp_path, capsys):
    assert main(["--arch", "lenet5", "--dry-run"]) == 0
    assert "inputs: standardise, in training flip\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--augment", "flop"], "--augment: unknown 'flop'; did you mean flip?"),
        (["--augment", "crop,pad-crop"], "--augment: two of a kind, crop and pad-crop"),
        (["--augment", "scale:20:30"], "scale:20:30: a shorter side of 20 pixels cannot be"),
        (["--preprocess", "zcb"], "--preprocess: expected one of standardise, mean,"),
        (["--preprocess", "zca", "--image-size", "96"], "whitening is for images of at most 8,192"),
    ],
)
def test_one_line_says_what_is_wrong(capsys, options, message):
    assert message in complaint(capsys, "--arch", "lenet5", *options)


def test_a_run_keeps_its_inputs(finished, capsys):
    line = complaint(capsys, "--resume", str(finished), "--preprocess", "mean", "--epochs", "3")
    assert "begun with preprocess pixel-mean, not mean" in line
    line = complaint(capsys, "--resume", str(finished), "--augment", "none", "--epochs", "3")
    assert "begun with augment pad-crop:2,flip,colour:0.4,pca-colour:0.1, not none" in line
    line = complaint(capsys, "--resume", str(finished), "--eval-only", "--preprocess", "mean")
    assert "begun with preprocess pixel-mean, not mean" in line
