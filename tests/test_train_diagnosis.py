"""What looks at a training before it is run: rates, one batch by heart, a profile."""

import csv
import importlib.util

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_runs import LENET, complaint

import minidl as md
from minidl.data import load
from minidl.errors import DivergedError, MinidlError
from minidl.train import main
from minidl.training import Settings, Trainer
from minidl.training.lr_finder import RangeTest, range_test, write_range_test
from minidl.training.overfitting import overfit_batch


def trainer_of(**options):
    settings = Settings("lenet5", in_channels=1, image_size=32, num_classes=10, **options)
    md.manual_seed(0)
    model = md.models.create("lenet5")
    return Trainer(settings, load(settings.data, 32, 1), model)


def test_rates_rise_by_a_factor_and_groups_keep_theirs(monkeypatch):
    trainer = trainer_of(
        limit=20, batch_size=8, lr=0.1, optimizer="sgd", lr_scale=("features=0.5",), schedule="step"
    )
    seen, images = [], []

    def step(self, batch, labels):
        seen.append([group["lr"] for group in self.optimizer.param_groups])
        images.append(len(labels))
        self.schedule.step()  # which must not matter
        return 1.0

    monkeypatch.setattr(Trainer, "step", step)
    result = range_test(trainer, steps=8)
    np.testing.assert_allclose(result.rates, 10.0 ** np.arange(-6, 2))
    np.testing.assert_allclose([lr for lr, _ in seen], result.rates)
    np.testing.assert_allclose([lr for _, lr in seen], 0.5 * result.rates)
    assert images == [8, 8, 4, 8, 8, 4, 8, 8]  # one epoch after the other
    with pytest.raises(MinidlError, match="no learning rate from 1e-06 to 10 lets the loss fall"):
        _ = result.suggestion


@pytest.mark.parametrize("diverges", [False, True])
def test_the_steepest_fall_is_suggested_and_an_explosion_ends_the_test(monkeypatch, diverges):
    """A loss that falls like a logistic curve of log10(rate) around 1e-3, and explodes at 1."""
    noise = np.random.default_rng(0)

    def step(self, batch, labels):
        exponent = np.log10(self.optimizer.param_groups[0]["lr"])
        if exponent > 0:
            if diverges:
                raise DivergedError("the loss became nan")
            return 100.0
        return 0.5 + 1.8 / (1 + np.exp(4 * (exponent + 3))) + 0.02 * noise.standard_normal()

    monkeypatch.setattr(Trainer, "step", step)
    result = range_test(trainer_of(limit=8, batch_size=8))
    assert result.rates[-1] == pytest.approx(1.0, rel=0.2)
    assert 3e-4 < result.suggestion < 3e-3
    assert result.suggestion < result.lowest


def test_a_loss_that_is_not_finite_from_the_start(monkeypatch):
    trainer = trainer_of(limit=8, batch_size=8)
    trainer.model.classifier.fc3.bias.data[0] = np.nan
    with pytest.raises(DivergedError, match="in step 1"):
        range_test(trainer)


def test_smoothing_is_not_behind():
    rates = np.geomspace(1e-3, 1, 50)
    line = np.linspace(3, 1, 50)
    smoothed = RangeTest(rates, line).smoothed
    np.testing.assert_allclose(smoothed[3:-3], line[3:-3])


def test_find_lr_writes_table_and_plot(tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--arch", "lenet5", "--batch-size", "16", "--find-lr"]
    assert main([*options, "--out", str(out)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    with open(out / "lr_finder.csv") as file:
        rows = [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    suggestion = float(last.split()[2])
    assert last.startswith("suggestion: --lr ")
    assert 1e-4 < suggestion < 1e-2  # Adam learns with its usual 1e-3
    assert any(rate == pytest.approx(suggestion, rel=0.06) for rate, _, _ in rows)
    written = " and ".join(sorted(path.name for path in out.iterdir()))
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert written == "lr_finder.csv" + " and lr_finder.png" * drawn
    assert last.endswith(f"(see {written} in {out})")
    assert "exists already" in complaint(capsys, *options, "--out", str(out))


def test_without_matplotlib_only_the_table_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = RangeTest(np.array([1e-3, 1e-2, 1e-1]), np.array([2.0, 1.0, 3.0]))
    assert write_range_test(tmp_path, "lenet5", result) == ["lr_finder.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["lr_finder.csv"]


def test_a_batch_is_learned_by_heart_or_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    schedule = ["--schedule", "multistep", "--milestones", "1,2", "--gamma", "0.5,0.1"]
    assert main(["--arch", "lenet5", "--batch-size", "8", "--overfit-batch", *schedule]) == 0
    assert "lenet5 learned 8 images by heart in " in capsys.readouterr().out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    trainer = trainer_of(batch_size=8, lr=1e-9)
    lines = []
    with pytest.raises(MinidlError) as caught:
        overfit_batch(
            trainer.settings, load("fashion-mnist-small", 32, 1), trainer.model, 3, lines.append
        )
    assert "lenet5 did not learn 8 images by heart in 3 steps: loss 2." in str(caught.value)
    assert "expected below 0.05" in str(caught.value)
    assert [line.split()[:2] for line in lines] == [["step", "1"], ["step", "2"]]


def test_learning_by_heart_is_without_dropout_and_decay(monkeypatch):
    """A step of it is a plain step: the same images each time, whatever the settings add."""
    seen = []

    def step(self, images, labels):
        dropouts = [m.training for m in self.model.modules() if isinstance(m, md.nn.Dropout)]
        norms = [m.training for m in self.model.modules() if isinstance(m, md.nn.BatchNorm2d)]
        seen.append((images.data.copy(), self.optimizer.param_groups[0], dropouts, norms))
        return 1.0 / len(seen) ** 4

    monkeypatch.setattr(Trainer, "step", step)
    settings = Settings("vgg11_bn", image_size=32, num_classes=10, batch_size=4, weight_decay=0.1)
    model = md.models.create("vgg11_bn", 10, image_size=32)
    overfit_batch(settings, load(settings.data, 32, 3), model, show=lambda line: None)
    images, group, dropouts, norms = seen[-1]
    np.testing.assert_array_equal(images, seen[0][0])
    assert group["weight_decay"] == 0
    assert group["lr"] == settings.lr
    assert dropouts
    assert not any(dropouts)
    assert all(norms)


def test_profile_of_a_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--arch", "lenet5", "--batch-size", "4", "--profile", "--freeze", "features"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("features.")}
    assert rows["features.conv2"][4] == "0.00"  # its backward pass: frozen
    assert lines[-2].startswith("one step of 4 images (median): ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["--find-lr", "--overfit-batch", "--profile"])
def test_a_look_ahead_begins_anew(tmp_path, capsys, mode):
    run = tmp_path / "run"
    assert main([*LENET[:2], "--limit", "8", "--epochs", "1", "--out", str(run)]) == 0
    before = load_file(run / "last.safetensors")
    assert f"{mode} begins anew" in complaint(capsys, mode, "--resume", str(run))
    assert f"argument {mode}: not allowed with argument --dry-run" in complaint(
        capsys, *LENET, "--dry-run", mode
    )
    after = load_file(run / "last.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)
