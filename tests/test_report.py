"""`python -m minidl.report`: what the page says, and what it refuses."""

import html.parser
import importlib.util
import json
import os
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from training_runs import refusal

from minidl.errors import MinidlError
from minidl.report import main
from minidl.reporting import (
    Confusion,
    plot_confusion,
    plot_epochs,
    plot_filters,
    plot_learning_rate,
    plot_steps,
    read_run,
)
from minidl.reporting.curves import moving_mean
from minidl.reporting.figures import as_svg
from minidl.reporting.filters import filter_grid, filter_pixels, read_first_layer
from minidl.reporting.page import page
from minidl.reporting.run import read_confusion, write_confusion

ACCURACIES = (0.5, 0.75, 0.625)
COUNTS = np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]])
HOSTILE = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "$\\frac\n&amp;\x00")


@pytest.fixture
def matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("CI must draw the figures, but matplotlib is not installed")
        pytest.skip("matplotlib is not installed: no figure and no report is drawn")


def make_run(path: Path, epochs: int = 3, **config: object) -> Path:
    """The folder of a run of 4 steps an epoch, as `minidl.train` writes it."""
    path.mkdir()
    settings = {"arch": "lenet5", "data": "digits", "in_channels": 1, "epochs": 3, "lr": 0.1}
    (path / "config.json").write_text(json.dumps(settings | config))
    environment = {"command": "python -m minidl.train --arch lenet5", "Python": "3.11"}
    (path / "environment.json").write_text(json.dumps(environment))
    records = []
    for step in range(1, 4 * epochs + 3):
        epoch = (step + 3) // 4
        rate = 0.1 if step <= 4 else 0.01
        records.append({"kind": "step", "epoch": epoch, "step": step, "lr": rate, "loss": 9 / step})
        if step % 4 == 0:
            values = {"train_loss": 2 / epoch, "train_accuracy": 0.9, "val_loss": 3 / epoch}
            values |= {"val_accuracy": ACCURACIES[epoch - 1], "seconds": 40.0}
            values |= {"images_per_second": 100.0 * epoch, "clipped": None}
            records.append({"kind": "epoch", "epoch": epoch, "step": step, "lr": rate} | values)
    half = '{"kind": "step", "epoch": 4, "st'  # it is being written
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (path / "metrics.jsonl").write_text(lines + half)
    weight = np.linspace(-1, 1, 6 * 25, dtype=np.float32).reshape(6, 1, 5, 5)
    save_file({"features.conv1.weight": weight}, path / "best.safetensors")
    write_confusion(path / "confusion.csv", Confusion(("cat", "dog", "eel"), COUNTS))
    return path


class Elements(html.parser.HTMLParser):
    """The elements of a page in order, and the text of its tables' rows."""

    VOID = ("meta", "img")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data


complaint = partial(refusal, main)


# ---- reading a run ----


def test_a_run_is_read_up_to_the_line_that_is_being_written(tmp_path):
    run = read_run(make_run(tmp_path / "a"))
    assert (run.name, len(run.steps), len(run.epochs)) == ("a", 14, 3)
    assert run.best is run.epochs[1]
    assert run.confusion is not None
    assert run.confusion.classes == ("cat", "dog", "eel")
    np.testing.assert_array_equal(run.confusion.counts, COUNTS)
    assert run.filters is not None
    assert run.filters.shape == (6, 1, 5, 5)


def test_a_run_in_its_first_epoch_can_be_read(tmp_path):
    path = make_run(tmp_path / "a", epochs=0)
    (path / "best.safetensors").unlink()
    (path / "confusion.csv").unlink()
    run = read_run(path)
    assert (run.best, run.confusion, run.filters, len(run.steps)) == (None, None, None, 2)


EPOCH = '{"kind": "epoch", "epoch": 1, "step": 4, "lr": 1, "train_loss": 1, "train_accuracy": 1, '
DAMAGE = {
    "config.json": {
        "": "config.json: not a JSON file (Expecting value",
        "[1]": "config.json: expected names and values, in braces",
        '{"arch": ': "config.json: not a JSON file",
        "[" * 100_000: "config.json: not a JSON file",
        None: "not the folder of a run (it has no config.json)",
    },
    "environment.json": {
        "\x00": "environment.json: not a JSON file",
        None: "not the folder of a run (it has no environment.json)",
    },
    "metrics.jsonl": {
        "": "metrics.jsonl: no step has been logged yet",
        None: "nothing has been logged yet (there is no metrics.jsonl)",
        "{}\n": "metrics.jsonl: line 1 is not a record of a run",
        "[]\n": "line 1 is not a record",
        '{"kind": ["step"]}\n': "line 1 is not a record",
        '{"kind": "step", "epoch": 1, "step": 1, "lr": 1}\n': "line 1 is not a record",
        '{"kind": "step", "epoch": 1, "step": 1, "lr": 1, "loss": "0.5"}\n': "line 1 is not",
        '{"kind": "step", "epoch": 1, "step": 1, "lr": 1, "loss": NaN}\n': "line 1 is not",
        '{"kind": "step", "epoch": 1, "step": 1, "lr": 1, "loss": 1e999}\n': "line 1 is not",
        f'{{"kind": "step", "epoch": 1, "step": 1{"0" * 400}, "lr": 1, "loss": 1}}\n': "line 1 is",
        EPOCH + '"val_loss": 1, "val_accuracy": 1, "seconds": true}\n': "line 1 is not",
        EPOCH + '"val_loss": 1, "val_accuracy": 1, "seconds": "1"}\n': "line 1 is not",
        EPOCH + '"val_loss": 1}\n': "line 1 is not a record",
    },
    "best.safetensors": {"": "best.safetensors: not a complete safetensors file"},
    "confusion.csv": {
        "": "confusion.csv: not a square of counts with the classes' names",
        ",a\na,1.5\n": "not a square of counts",
        ",a\na,-1\n": "not a square of counts",
        ",a\nb,1\n": "not a square of counts",
        ",a,b\na,1,2\nb,1\n": "not a square of counts",
        f",a\na,{10**30}\n": "not a square of counts",
    },
}


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [(name, content, text) for name, cases in DAMAGE.items() for content, text in cases.items()],
    ids=lambda value: str(value)[:30],
)
def test_damaged_runs_are_refused_in_one_line(tmp_path, capsys, name, content, text):
    path = make_run(tmp_path / "a")
    (path / name).unlink()
    if content is not None:
        (path / name).write_text(content)
    line = complaint(capsys, path)
    assert text in line
    assert str(path) in line
    assert not (path / "report.html").exists()


def test_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    run, file, empty = make_run(tmp_path / "a"), tmp_path / "file", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    assert "no-such-run: there is no such run" in complaint(capsys, tmp_path / "no-such-run")
    assert "file: not a folder" in complaint(capsys, file)
    assert "empty: not the folder of a run (it has no config.json)" in complaint(capsys, empty)
    assert "the same run is named twice" in complaint(capsys, run, f"{run}/../a")
    assert "at most 10 runs side by side, got 11" in complaint(capsys, *[run] * 11)
    assert "the following arguments are required: RUN" in complaint(capsys)


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_damage_is_met_with_another_error(tmp_path, count):
    path, random = make_run(tmp_path / "a"), np.random.default_rng(count)
    whole = {name: (path / name).read_bytes() for name in DAMAGE}
    refused = 0
    for _ in range(count):
        name = str(random.choice(list(DAMAGE)))
        content = bytearray(whole[name])
        for _ in range(random.integers(1, 4)):
            place = random.integers(len(content))
            content[place : place + random.integers(20)] = random.bytes(random.integers(8))
        (path / name).write_bytes(content)
        try:
            read_run(path)
        except MinidlError as error:
            refused += "\n" not in str(error)
        (path / name).write_bytes(whole[name])
    assert refused > count / 4


# ---- the page ----


def test_the_page_about_a_run(tmp_path, capsys, matplotlib):
    path = make_run(tmp_path / "a", threads=None, milestones=[30, 60])
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path / 'report.html'}\n"
    content = (path / "report.html").read_text(encoding="utf-8")
    assert len(content) < 100_000
    elements = Elements(content)
    rows = elements.rows
    assert "lenet5 on digits: 75.0% of the test images right after epoch 2" in elements.text
    assert ["best test accuracy", "75.00%"] in rows
    assert ["trained", "3 epochs, 14 steps"] in rows
    assert ["time", "2 min 0 s"] in rows
    assert ["images/s (median epoch)", "200"] in rows
    assert ["cat", "3", "1", ""] in rows
    assert ["dog", "eel", "2"] in rows
    assert ["dog", "4", "50.0%"] in rows
    assert [row[0] for row in rows if row[-1].endswith("0%") and row[1] == "4"] == ["dog", "cat"]
    epoch = ["2", "8", "0.01", "1.000", "90.00%", "1.500", "75.00%", "40.0", "200", "–"]
    assert epoch in rows
    assert ["milestones", "30, 60"] in rows
    assert ["threads", "–"] in rows
    assert ["command", "python -m minidl.train --arch lenet5"] in rows
    names = [name for name, _ in elements.found]
    assert names.count("svg") == 4
    for name, attributes in elements.found:
        about = {"svg": "aria-label", "img": "alt"}.get(name)
        assert about is None or "6 grey filters" in attributes[about] or "a: " in attributes[about]


def test_a_page_loads_nothing_and_what_runs_hold_stays_text(tmp_path, matplotlib):
    name, other, value = HOSTILE
    path = make_run(tmp_path / "<b>bold<b>", arch=name, data=other, **{name: value, "x": [other]})
    write_confusion(path / "confusion.csv", Confusion(HOSTILE, COUNTS))
    (path / "environment.json").write_text(json.dumps({name: other, "\ud800": "\ud800"}))
    content = page([read_run(path), read_run(make_run(tmp_path / "$\\frac"))])
    elements = Elements(content)
    assert not {"script", "link", "iframe", "object", "b"} & {name for name, _ in elements.found}
    for _, attributes in elements.found:
        assert not any(attribute.startswith("on") for attribute in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert name in elements.text
    assert "http:" not in content.replace("http://www.w3.org/", "")
    assert "default-src 'none'" in content
    identifiers = [f"#{a['id']}" for _, a in elements.found if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    used = {a["href"] for _, a in elements.found if "href" in a}
    used |= {a["clip-path"][4:-1] for name, a in elements.found if "clip-path" in a}
    assert used
    assert used <= set(identifiers)


def test_runs_side_by_side(tmp_path, capsys, monkeypatch, matplotlib):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    one, two = make_run(Path("a")), make_run(Path("more", "a"), epochs=0, lr=0.2)
    (two / "confusion.csv").unlink()
    (two / "best.safetensors").unlink()
    assert main([str(one), str(two)]) == 0
    assert capsys.readouterr().out == "wrote report.html\n"
    elements = Elements(Path("report.html").read_text(encoding="utf-8"))
    assert ["", "a", "more/a"] in elements.rows
    assert ["≠ lr", "0.1", "0.2"] in elements.rows
    assert ["arch", "lenet5", "lenet5"] in elements.rows
    assert ["trained", "3 epochs, 14 steps", "0 of 3 epochs, 2 steps"] in elements.rows
    marked = [
        attributes for _, attributes in elements.found if attributes.get("class") == "differs"
    ]
    assert len(marked) == 1
    assert "No confusion matrix has been recorded." in elements.text


def test_what_cannot_be_written_or_drawn_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    path = make_run(tmp_path / "a")
    if importlib.util.find_spec("matplotlib") is not None:
        line = complaint(capsys, path, "--out", tmp_path / "none" / "report.html")
        assert "none/report.html: cannot write (No such file or directory)" in line
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'minidl[viz]'" in complaint(capsys, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]


# ---- the figures ----


def test_figures_show_the_numbers(tmp_path, matplotlib):
    run = read_run(make_run(tmp_path / "a"))
    test, training = plot_epochs({"a": run.epochs}, "accuracy").axes[0].get_lines()
    assert test.get_ydata().tolist() == list(ACCURACIES)
    assert training.get_ydata().tolist() == [0.9] * 3
    steps = plot_steps({"a": run.steps}).axes[0].get_lines()[0]
    assert steps.get_ydata().tolist() == [9 / step for step in range(1, 15)]
    assert plot_learning_rate({"a": run.steps}).axes[0].get_yscale() == "linear"
    long = [{"step": step, "lr": 0.1 ** (step // 100)} for step in range(400)]
    assert plot_learning_rate({"a": long}).axes[0].get_yscale() == "log"
    two = plot_epochs({"$\\frac": run.epochs, "b": []}, "loss")
    assert [text.get_text() for text in two.axes[0].get_legend().get_texts()] == [
        "$\\frac", "b", "training",
    ]  # fmt: skip
    svg = ET.fromstring(as_svg(two, "two", "<"))
    assert svg.get("aria-label") == "<"
    assert [
        text.get_text() for text in plot_confusion(Confusion(tuple("abc"), COUNTS)).axes[0].texts
    ] == list("3122")
    many = Confusion(tuple(map(str, range(40))), np.eye(40, dtype=int))
    (image,) = plot_confusion(many).axes[0].get_images()
    np.testing.assert_array_equal(image.get_array()[..., 3], np.eye(40))
    (image,) = plot_filters(run.filters).axes[0].get_images()
    np.testing.assert_array_equal(image.get_array(), filter_grid(run.filters))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.integers(1, 50))
def test_moving_mean_of_the_neighbours(values, width):
    means = moving_mean(np.array(values), width)
    for number, mean in enumerate(means):
        near = values[max(0, number - width // 2) : number + (width + 1) // 2]
        assert mean == pytest.approx(np.mean(near), abs=1e-9)


def test_filters_keep_their_colours_signs_and_relative_strengths():
    weight = np.zeros((3, 3, 2, 2), np.float32)
    weight[0, 0] = 2  # red
    weight[1, 0] = -2  # the absence of red
    weight[2] = 1  # half as strong, without colour
    pixels = filter_pixels(weight)
    assert pixels[:, 0, 0].tolist() == [[1, 0.5, 0.5], [0, 0.5, 0.5], [0.75, 0.75, 0.75]]
    assert filter_pixels(np.zeros((1, 1, 3, 3))).tolist() == np.full((1, 3, 3, 3), 0.5).tolist()
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4, 3, 3\), expected \(filters, 1"):
        filter_pixels(np.zeros((2, 4, 3, 3)))


def test_the_first_layer_is_the_one_that_sees_the_image(tmp_path):
    shapes = {
        "classifier.weight": (10, 3), "features.10.weight": (8, 3, 3, 3), "mean": (3, 32, 32),
        "features.2.weight": (4, 3, 7, 7), "features.1.weight": (4, 16, 3, 3),
    }  # fmt: skip
    arrays = {name: np.full(shape, len(name), np.float32) for name, shape in shapes.items()}
    save_file(arrays, tmp_path / "best.safetensors")
    weight = read_first_layer(tmp_path / "best.safetensors", channels=3)
    assert weight is not None
    assert weight.shape == (4, 3, 7, 7)
    assert read_first_layer(tmp_path / "best.safetensors", channels=1) is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_confusion_matrices_survive_their_file(tmp_path_factory, classes):
    path = tmp_path_factory.mktemp("confusion") / "confusion.csv"
    counts = np.arange(len(classes) ** 2).reshape(len(classes), -1)
    write_confusion(path, Confusion(tuple(classes), counts))
    read = read_confusion(path)
    assert read.classes == tuple(classes)
    np.testing.assert_array_equal(read.counts, counts)
