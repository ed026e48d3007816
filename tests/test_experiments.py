"""`python -m minidl.experiments`: tables against independent counts, runs that are kept, errors."""

import csv
import json
import signal
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from training_runs import refusal

import minidl as md
from minidl import nn
from minidl.experiments import activations, batch_norm, dropout, figures, inception
from minidl.experiments.__main__ import EXPERIMENTS, main
from minidl.experiments.lab import Lab, Part, Scale
from minidl.training import Interrupted, Trainer

TINY = ["--quick", "--limit", "12", "--epochs", "1"]


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """Checkpoints that survive a power cut are tested elsewhere."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def perform(name, out, *options):
    """Do a tiny experiment; the rows of its table, and its facts."""
    assert main([name, *TINY, "--out", str(out), *options]) == 0
    with open(out / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    record = json.loads((out / f"{name}.json").read_text())
    assert len(rows) == len(record["rows"])
    report = (out / f"{name}.md").read_text()
    assert report.count("\n|") == len(rows) + 2
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for fact in record["facts"].values():
        assert fact in report
    return rows, record["facts"]


complaint = partial(refusal, main)


def test_without_a_name_they_are_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "degradation", "activations", "batch-norm", "dropout", "stacks", "vgg-depth", "inception",
    ]  # fmt: skip
    assert all(len(line) < 100 for line in lines)


def test_degradation_compares_networks_of_the_same_parameters(tmp_path, capsys):
    rows, facts = perform("degradation", tmp_path / "out", "--seed", "3")
    assert [row["network"] for row in rows] == ["plain20", "plain56", "resnet20", "resnet56"]
    widths = EXPERIMENTS["degradation"].quick.model["widths"]
    for row in rows:
        n = (int(row["network"][-2:]) - 2) // 6
        before, count = widths[0], 27 * widths[0] + 2 * widths[0]
        for width in widths:  # 2n convolutions each, and as many batch normalisations
            count += 9 * width * (before + (2 * n - 1) * width) + 2 * 2 * n * width
            before = width
        assert int(row["params"]) == count + 10 * before + 10
        assert 0 <= float(row["train_error"]) <= 1
    assert rows[0]["macs"] == rows[2]["macs"]
    assert facts["training"].startswith("1 epoch in batches of 64, 1 step a run; optimizer sgd, lr")
    assert facts["training"].endswith("seed 3")
    assert "at most 12 of each, shown as 3x28x28; inputs: standardise" in facts["data"]


def test_activations_measures_what_numpy_does(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS["activations"].quick.model, "width", 64)
    rows, _ = perform("activations", tmp_path / "out")
    assert len(rows) == 12
    by_name = {(row["activation"], row["initialiser"]): row for row in rows}
    fading = by_name["tanh", "std 0.01"]
    assert float(fading["last"]) < 1e-9 * float(fading["first"])
    kept = by_name["relu", "He 2/n"]
    assert 0.02 < float(kept["last"]) / float(kept["first"]) < 5

    scale = Scale({"image_size": 28, "in_channels": 1, "limit": 12}, {"width": 16})
    lab = Lab(tmp_path / "lab", scale, {})
    md.manual_seed(0)
    network = activations.make_network(lab, "tanh", "glorot")
    count = activations.IMAGES
    x = lab.splits.train.batch(np.arange(count) * 5000 // count)[0].reshape(count, -1)
    expected = []
    for layer in [layer for layer in network if isinstance(layer, nn.Linear)][:-1]:
        weight, bias = layer.weight.data, layer.bias.data
        x = np.tanh(x @ weight.T + bias)  # (N, width)
        expected.append(x.var(axis=0).mean())
    np.testing.assert_allclose(activations.variances(lab, network), expected, rtol=1e-3)


def test_batch_norm_reports_a_run_that_diverges(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch_norm, "RATES", {0.01: figures.BLUE, 1e20: figures.ORANGE})
    out = tmp_path / "out"
    rows, facts = perform("batch-norm", out, "--epochs", "3")
    assert [(row["kind"], float(row["lr"])) for row in rows] == [
        ("without", 0.01), ("without", 1e20), ("with", 0.01), ("with", 1e20),
    ]  # fmt: skip
    assert "became" in rows[1]["end"]
    assert rows[1]["train_loss"] == rows[1]["val_error"] == ""
    assert rows[0]["end"] == rows[2]["end"] == "finished"
    assert "lr 0.01 / 1e+20" in facts["training"]
    capsys.readouterr()
    again, _ = perform("batch-norm", out, "--epochs", "3")
    assert again == rows
    assert capsys.readouterr().out.count("done before") == 4
    lab = Lab(tmp_path, Scale({}, {"widths": (4, 8)}), {})
    sizes = [
        sum(p.size for p in batch_norm.make_network(lab, kind).parameters())
        for kind in (False, True)
    ]
    assert sizes[1] - sizes[0] == 4 + 4 + 8 + 8  # two vectors in the place of the bias


def test_dropout_compares_errors_of_the_same_network(tmp_path):
    rows, _ = perform("dropout", tmp_path / "out")
    for row in rows:
        assert float(row["gap"]) == pytest.approx(
            float(row["val_error"]) - float(row["train_error"])
        )
    lab = Lab(tmp_path, Scale({"limit": 30, "batch_size": 7}, {"maps": 2, "hidden": 4}), {})
    md.manual_seed(0)
    network = dropout.make_network(lab, 0.5).eval()
    images, labels = lab.splits.train.batch(np.arange(30) * 5000 // 30)
    logits = network(md.from_numpy(images)).detach().numpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(30), labels]
    measured = dropout.on_training_images(lab, network)
    assert measured["train_error"] == pytest.approx(np.mean(logits.argmax(axis=1) != labels))
    assert measured["train_loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_stacks_count_27_and_49_times_the_square_of_the_width(tmp_path):
    rows, _ = perform("stacks", tmp_path / "out")
    width = EXPERIMENTS["stacks"].quick.model["width"]
    for row, squares, field in zip(rows, (25, 18, 49, 27), (5, 5, 7, 7), strict=True):
        assert row["weights_of_c"] == f"{squares} C²"
        assert int(row["weights"]) == squares * width**2
        assert int(row["macs"]) == squares * width**2 * 14 * 14
        assert row["field"] == f"{field}x{field}"
        assert float(row["lowest"]) <= float(row["val_error"]) <= float(row["highest"])
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 12


def test_vgg_depth_has_the_columns_of_the_paper(tmp_path):
    rows, _ = perform("vgg-depth", tmp_path / "out")
    depths = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}
    assert {row["column"]: int(row["layers"]) for row in rows} == depths
    stages = {"A": (1, 1, 2, 2, 2), "B": (2,) * 5, "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
    for row in rows:
        if row["column"] in stages:
            before, count = 3, 0
            for depth, width in zip(stages[row["column"]], (8, 16, 32, 64, 64), strict=True):
                for _ in range(depth):
                    count += 9 * before * width + width
                    before = width
            count += 64 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
            assert int(row["params"]) == count
    assert rows[0]["params"] == rows[1]["params"]


def test_inception_counts_what_the_lectures_do(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "TIMED_STEPS", 1)
    monkeypatch.setattr(inception, "BATCH", 1)
    rows, _ = perform("inception", tmp_path / "out")
    numbers = [[int(row[f"module_{key}"]) for key in ("params", "macs", "maps")] for row in rows]
    assert numbers == [[1_089_536, 854_196_224, 672], [346_112, 271_351_808, 480]]
    assert float(rows[0]["module_ms"]) > 0
    x = md.rand(2, 6, 5, 5)
    module = inception.NaiveInception(6, (1, 9, 2, 9, 3, 9))
    y = module(x)
    assert y.shape == (2, 1 + 2 + 3 + 6, 5, 5)
    pooled = nn.MaxPool2d(3, stride=1, padding=1)(x).numpy()
    np.testing.assert_array_equal(y.detach().numpy()[:, 6:], pooled)


def make_lab(out):
    settings = {"image_size": 28, "limit": 48, "batch_size": 16, "epochs": 2}
    return Lab(out, Scale(settings), {})


def parts(lab, after=lambda model: {}):
    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 10), nn.Dropout(0.1))

    return [Part("one", make), Part("two", make, {"lr": 0.01}, measure=after)]


def test_an_interrupted_experiment_goes_on_where_it_was(tmp_path, monkeypatch):
    """Between two runs, and in the middle of one: the results are those without interruption."""
    lab = make_lab(tmp_path / "whole")
    whole = lab.train(parts(lab))

    def stop(model):
        raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="the same command goes on from here"):
        make_lab(out).train(parts(lab, after=stop))
    assert (out / "one" / "result.json").exists()
    assert not (out / "two" / "result.json").exists()
    (out / "one" / "result.json").unlink()
    (out / "one" / "last.safetensors").unlink()  # as if killed before its first checkpoint

    step = Trainer.step

    def step_and_interrupt(self, *batch):
        value = step(self, *batch)
        if self.progress.step == 4:
            signal.raise_signal(signal.SIGINT)
        return value

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step_and_interrupt)
        with pytest.raises(Interrupted):
            make_lab(out).train(parts(lab))
    resumed = make_lab(out).train(parts(lab))
    for name in ("one", "two"):
        for quantity in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert resumed[name].curve(quantity) == whole[name].curve(quantity)
        assert resumed[name].steps == whole[name].steps == 6
        metrics = (out / name / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in metrics if '"step",' in line]
        assert steps == list(range(1, 7))


def test_a_folder_with_another_run_is_refused(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["dropout", *TINY, "--out", out]) == 0
    line = complaint(capsys, "dropout", *TINY, "--epochs", "2", "--out", out)
    assert "p0: begun with epochs 1, not 2; choose another --out" in line
    assert "begun with limit 12, not 13" in complaint(
        capsys, "dropout", *TINY, "--limit", "13", "--out", out
    )
    assert main(["dropout", *TINY, "--threads", "1", "--out", out]) == 0  # changes no result
    result = tmp_path / "out" / "p0" / "result.json"
    values = json.loads(result.read_text())
    result.write_text(json.dumps(values | {"params": 1}))
    assert "holds a run of another network, of 1 parameters" in complaint(
        capsys, "dropout", *TINY, "--out", out
    )
    for text, word in (("{", "cannot be read"), ("[]", "damaged"), ("{}", "not a result")):
        result.write_text(text)
        assert word in complaint(capsys, "dropout", *TINY, "--out", out)


def test_wrong_options_are_told_in_one_line(tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert "invalid choice: 'stack'" in complaint(capsys, "stack")
    assert "expected a whole number >= 1, got 0" in complaint(capsys, "stacks", "--epochs", "0")
    assert "unrecognized arguments: --lr" in complaint(capsys, "stacks", "--lr", "1")
    assert "stacks: at full size it needs a data set, --data cifar10:DIR say" in complaint(
        capsys, "stacks", *out
    )
    assert "does not exist" in complaint(capsys, "stacks", "--data", f"cifar10:{tmp_path}/no", *out)
    assert "image_size must be at least 32" in complaint(
        capsys, "vgg-depth", *TINY, "--image-size", "16", *out
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert "file" in complaint(capsys, "stacks", *TINY, "--out", str(tmp_path / "file"))
    monkeypatch.setattr(figures.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'minidl[viz]'" in complaint(capsys, "stacks", *TINY, *out)


def test_names_beside_lines_do_not_lie_on_each_other():
    figure = figures.new_figure(4, 3, "")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 100])
    figures.name_ends(
        figure, {axes: [(1, y, f"line at {y}", "black") for y in (50.0, 50.5, 51.0, 90.0)]}
    )
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(low.y1 <= high.y0 + 3 for low, high in pairwise(boxes))
