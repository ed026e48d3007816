"""Training on a folder with files that are no images."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from training_runs import complaint, step_losses

from minidl.train import main
from minidl.training import Trainer


@pytest.fixture
def command(tmp_path):
    """A run on 24 + 12 images of 2 classes, 2 + 1 of which are damaged."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02}.jpg")
    for name in ("train/cat/03.jpg", "train/dog/11.jpg", "val/dog/05.jpg"):
        path = tmp_path / "data" / name
        path.write_bytes(path.read_bytes()[:300])
    options = ["--arch", "lenet5", "--data", f"folder:{tmp_path / 'data'}", "--image-size", "32"]
    return [*options, "--batch-size", "8", "--epochs", "2", "--augment", "flip"]


def test_a_damaged_image_ends_the_run_in_one_line(command, tmp_path, capsys):
    line = complaint(capsys, *command, "--out", str(tmp_path / "run"))
    assert "11.jpg: unreadable image (" in line or "03.jpg: unreadable image (" in line


def test_a_run_goes_on_without_damaged_images_and_can_be_resumed(
    command, tmp_path, capsys, monkeypatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    skip = ["--on-bad-image", "skip"]
    assert main([*command, *skip, "--workers", "1", "--out", str(whole)]) == 0
    lines = capsys.readouterr().err.splitlines()
    for name in ("train/cat/03.jpg", "train/dog/11.jpg", "val/dog/05.jpg"):
        assert sum(name in line for line in lines) == 1
    for ending in ("2 of 24 images could not be decoded and were replaced", "1 of 12 images could"):
        assert sum(ending in line for line in lines) == 2  # epochs
    assert json.loads((whole / "config.json").read_text())["on_bad_image"] == "skip"
    step = Trainer.step

    def interrupting(self, images, labels):
        loss = step(self, images, labels)
        self.stop.requested = self.progress.step == 2
        return loss

    monkeypatch.setattr(Trainer, "step", interrupting)
    assert main([*command, *skip, "--workers", "3", "--out", str(parts)]) == 2
    monkeypatch.setattr(Trainer, "step", step)
    assert main(["--resume", str(parts), "--workers", "2"]) == 0
    assert step_losses(parts) == step_losses(whole)
    for name, array in load_file(whole / "last.safetensors").items():
        np.testing.assert_array_equal(load_file(parts / "last.safetensors")[name], array)
