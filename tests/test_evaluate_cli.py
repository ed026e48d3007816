"""`python -m minidl.evaluate` as a person meets it: figures, ensembles, features, refusals."""

import errno
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image
from training_runs import refusal

import minidl as md
from minidl import evaluation, train
from minidl.errors import MinidlError
from minidl.evaluate import main
from minidl.evaluation import Candidate, Protocol, extract, judge, predict
from minidl.io.npz import write_npz

FEW = ["--limit", "40"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs, of networks that take other images: in size and in preprocessing."""
    root = tmp_path_factory.mktemp("runs")
    short = ["--arch", "lenet5", "--limit", "256", "--batch-size", "16"]
    assert train.main([*short, "--epochs", "2", "--out", str(root / "a")]) == 0
    other = ["--epochs", "1", "--image-size", "28", "--preprocess", "pixel-mean"]
    assert train.main([*short, *other, "--average", "0.9", "--out", str(root / "b")]) == 0
    return root / "a", root / "b"


def evaluated(capsys, *arguments):
    """The lines that the command prints."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.splitlines()


complaint = partial(refusal, main)


@pytest.mark.parametrize("number", [0, 1])
def test_centre_repeats_the_runs_own_figures(runs, capsys, tmp_path, number):
    run, figures = runs[number], tmp_path / "figures.json"
    lines = evaluated(capsys, run, "--limit", "256", "--json", figures)
    best = json.loads((run / "best.json").read_text())["progress"]["best_accuracy"]
    written = json.loads(figures.read_text())
    assert written["top1"] == best
    assert written["images"] == 256
    assert written["checkpoints"] == [str(run / "best.safetensors")]
    assert sum(one["correct"] for one in written["classes"]) == round(256 * best)
    assert lines[-1].startswith(f"top-1 {best:.2%}, top-5 ")
    assert lines[-1].endswith(f": centre; checkpoint {run / 'best.safetensors'}")
    assert any(line.startswith("Ankle boot ") for line in lines)
    assert max(len(line) for line in lines[:-1] if str(run) not in line) <= 80


def test_statistics_are_those_of_the_training_run(runs, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        pixels = rng.integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(pixels).save(tmp_path / split / "cat" / "0.png")
    _, split = Candidate.of_run(runs[1], f"folder:{tmp_path}").open()
    images = md.data.load(image_size=28, channels=1).train.images
    (seen,) = split.batch([0])[0]
    mean = images.mean(axis=0)  # (1, 28, 28) in grey levels
    np.testing.assert_allclose(seen, split.pixels(np.array([0]))[0] - mean, atol=1e-3)


def test_a_run_without_best_checkpoint_gives_its_last(runs, capsys, tmp_path):
    """Of a run with averaged weights the averages, which the run itself evaluates."""
    last = tmp_path / "last.safetensors"
    last.write_bytes((runs[1] / last.name).read_bytes())
    progress = json.loads((runs[1] / "last.json").read_text())["progress"]
    line = evaluated(capsys, tmp_path, "--limit", "256")[-1]
    assert line.startswith(f"top-1 {progress['best_accuracy']:.2%}, ")
    assert line.endswith(f"checkpoint {last}")


def test_ensemble_of_one_is_the_network_and_of_two_the_mean(runs):
    candidates = [Candidate.of_run(run) for run in runs]
    protocol = Protocol("10-crop")
    alone = [predict(*candidate.open(), protocol, limit=40) for candidate in candidates]
    one = judge(candidates[:1], protocol, limit=40)
    np.testing.assert_array_equal(one.probabilities, alone[0])
    two = judge(candidates, protocol, limit=40)
    np.testing.assert_array_equal(two.probabilities, (alone[0] + alone[1]) / 2)
    assert two.image_sizes == (32, 28)
    np.testing.assert_array_equal(two.labels, candidates[0].open()[1].labels[::25])


def test_ensemble_and_files_on_the_command_line(runs, capsys, tmp_path):
    matrix = tmp_path / "confusion.csv"
    options = ["--protocol", "multi-scale", "--flip", "--confusion", matrix]
    lines = evaluated(capsys, *runs, *FEW, *options)
    assert lines[-1].endswith(
        "multi-scale of 32 out of 32, 37, 41, mirrored too and multi-scale of 28 out of 28, 32, "
        f"36, mirrored too; mean of 2 checkpoints {runs[0] / 'best.safetensors'}, "
        f"{runs[1] / 'best.safetensors'}"
    )
    rows = [line.split(",")[1:] for line in matrix.read_text().splitlines()[1:]]
    assert np.array(rows, int).sum() == 40


def test_dense_and_scales(runs, capsys):
    line = evaluated(capsys, runs[0], *FEW, "--protocol", "dense", "--scales", "36,40")[-1]
    assert ": dense at 36, 40; checkpoint " in line


def test_features_are_what_the_layer_puts_out(runs, capsys, tmp_path):
    out = tmp_path / "feats.npz"
    line = evaluated(capsys, runs[0], *FEW, "--features", "classifier.act4", "--out", out)[-1]
    assert line == (
        f"{out}: 84 features of 40 images from classifier.act4: centre; "
        f"checkpoint {runs[0] / 'best.safetensors'}"
    )
    model, split = Candidate.of_run(runs[0]).open()
    images, labels = split.batch(np.arange(0, 1000, 25))
    with md.no_grad():
        expected = model.classifier[:4](model.features(md.from_numpy(images))).data
    with np.load(out, allow_pickle=False) as file:
        assert file["features"].dtype == np.float32
        np.testing.assert_allclose(file["features"], expected, atol=1e-6)
        np.testing.assert_array_equal(file["labels"], labels)
        assert file["classes"].tolist() == list(split.classes)
        assert str(file["checkpoint"]) == str(runs[0] / "best.safetensors")
        assert (str(file["layer"]), str(file["protocol"])) == ("classifier.act4", "centre")
    assert list(tmp_path.iterdir()) == [out]


def test_features_of_views_are_averaged(runs):
    """Maps are laid out in a row; in dense evaluation they are averaged over all places."""
    model, split = Candidate.of_run(runs[0]).open()
    plain = extract(model, "features.pool2", split, Protocol(), limit=3)
    both = extract(model, "features.pool2", split, Protocol(flip=True), limit=3)
    split.images = split.images[..., ::-1]
    mirrored = extract(model, "features.pool2", split, Protocol(), limit=3)
    assert plain.shape == (3, 16 * 5 * 5)
    np.testing.assert_allclose(both, (plain + mirrored) / 2, atol=1e-6)
    dense = extract(model, "features.pool2", split, Protocol("dense", (32,)), limit=3)
    np.testing.assert_allclose(dense, mirrored.reshape(3, 16, 25).mean(2), atol=1e-6)
    assert extract(model, "classifier.fc3", split, Protocol("dense"), limit=3).shape == (3, 10)


def test_layers_go_by_the_papers_names_too():
    with md.nn.parameter.parameters_without_values():
        for name, fc7 in (("vgg16", "classifier.4"), ("alexnet_owt", "classifier.5")):
            model = md.models.create(name)
            assert evaluation.find_layer(model, "fc7") == fc7
            assert isinstance(dict(model.named_modules())[fc7], md.nn.ReLU)
            assert evaluation.find_layer(model, "fc8") == "classifier.6"
            pool5 = evaluation.find_layer(model, "pool5")
            assert isinstance(dict(model.named_modules())[pool5], md.nn.MaxPool2d)
        resnet = md.models.create("resnet18")
        with pytest.raises(MinidlError, match=r"no layer 'fc7'; did you mean fc\?"):
            evaluation.find_layer(resnet, "fc7")
        with pytest.raises(MinidlError, match=r"no layer 'xy'; there are conv1, bn1, .*, fc, and"):
            evaluation.find_layer(resnet, "xy")
    lenet = md.models.create("lenet5_orig")
    split = md.data.load(channels=1).val
    with pytest.raises(MinidlError, match="layer 'squash' is used 6 times for an image"):
        extract(lenet, "squash", split, Protocol(), limit=1)


def test_weights_of_an_architecture_on_a_folder(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (40, 30 + 9 * i, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    md.manual_seed(0)
    weights = tmp_path / "weights.npz"
    md.save(md.models.create("squeezenet1_1", num_classes=3, image_size=48), weights)
    options = ["--arch", "squeezenet1_1", "--weights", weights, "--data", f"folder:{tmp_path}"]
    options += ["--image-size", 48]
    lines = evaluated(capsys, *options, "--protocol", "10-crop")
    assert lines[1].endswith("parameters, input 3x48x48")
    assert lines[-1].endswith(f"(6 images): 10-crop of 48 out of 55; checkpoint {weights}")
    assert "top-5" not in lines[-1]
    own = tmp_path / "own.npz"
    md.save(md.models.create("resnet20_cifar", num_classes=3), own)
    small = ["--arch", "resnet20_cifar", "--weights", own, "--data", f"folder:{tmp_path}"]
    assert evaluated(capsys, *small)[1].endswith("parameters, input 3x32x32")
    md.save(md.models.create("squeezenet1_1", num_classes=2, image_size=48), weights)
    assert "does not fit squeezenet1_1" in complaint(capsys, *options)
    assert "part of a network" in complaint(
        capsys, "--arch", "inception_naive", "--weights", weights
    )


def test_wrong_options_are_refused_in_one_line(runs, capsys, tmp_path):
    def refused(*arguments):
        return complaint(capsys, *arguments, *FEW)

    out = ["--features", "classifier.fc2", "--out"]
    assert "name the folder of a run" in refused()
    assert "--arch and --weights go together" in refused(runs[0], "--arch", "lenet5")
    assert "evaluated alone" in refused(runs[0], "--arch", "lenet5", "--weights", "x")
    of_folder = refused("--arch", "lenet5", "--weights", runs[0])
    assert f"{runs[0]}: a folder; if it is a run's, evaluate it without --arch" in of_folder
    assert "a run has its own" in refused(runs[0], "--image-size", "40")
    assert "nowhere: there is no such checkpoint" in refused(runs[0], tmp_path / "nowhere")
    assert "expected one of centre" in refused(runs[0], "--protocol", "12-crop")
    assert "scale 20 is smaller" in refused(runs[0], "--scales", "20")
    assert "scale 20 is smaller" in refused(runs[0], "--scales", "20", *out, tmp_path / "x.npz")
    assert "different, got (40, 40)" in refused(runs[0], "--scales", "40,40")
    assert "device" in refused(runs[0], "--device", "tpu")
    assert "does not exist" in refused(runs[0], "--data", f"mnist:{tmp_path / 'nowhere'}")
    assert "go together" in refused(runs[0], "--features", "classifier.fc2")
    assert "not of 2" in refused(*runs, *out, tmp_path / "x.npz")
    assert "written as .npz" in refused(runs[0], *out, tmp_path / "x.csv")
    assert "--json and --confusion are for" in refused(
        runs[0], *out, tmp_path / "x.npz", "--json", tmp_path / "x.json"
    )
    assert "nowhere does not exist" in refused(runs[0], *out, tmp_path / "nowhere" / "x.npz")
    assert "did you mean classifier.fc2?" in refused(
        runs[0], "--features", "fc2", "--out", tmp_path / "x.npz"
    )
    assert "written as .csv or .png" in refused(runs[0], "--confusion", tmp_path / "x.pdf")
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz: is a folder" in refused(runs[0], *out, tmp_path / "folder.npz")
    assert "/: is a folder" in refused(runs[0], "--json", "/")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


def test_networks_that_cannot_be_compared_are_refused(runs, capsys, tmp_path):
    short = ["--arch", "lenet5", "--limit", "32", "--epochs", "1", "--out"]
    assert train.main([*short, str(tmp_path / "c"), "--num-classes", "12"]) == 0
    line = complaint(capsys, runs[0], tmp_path / "c")
    assert "num-classes is 12, expected 10 as of " in line
    (line,) = evaluated(capsys, tmp_path / "c", *FEW)[-1:]
    assert line.startswith("top-1 ")  # two outputs that no class belongs to

    folder = tmp_path / "pictures"
    for split in ("train", "val"):
        for i in range(11):
            (folder / split / f"class{i}").mkdir(parents=True)
            Image.new("L", (32, 32), i).save(folder / split / f"class{i}" / "0.png")
    line = complaint(capsys, runs[0], "--data", f"folder:{folder}")
    assert f"has 11 classes, {runs[0] / 'best.safetensors'} only 10" in line


def test_a_full_disk_leaves_the_older_file(runs, capsys, tmp_path, monkeypatch):
    out = tmp_path / "feats.npz"
    out.write_bytes(b"older")

    def full(path, arrays):
        write_npz(path, {"labels": arrays["labels"]})
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("minidl.evaluation.features.write_npz", full)
    line = complaint(capsys, runs[0], *FEW, "--features", "classifier.fc2", "--out", out)
    assert line.endswith(f"{out}: cannot write the features (No space left on device)")
    assert out.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [out]
