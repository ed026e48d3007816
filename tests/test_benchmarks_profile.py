"""The profile adds up, counts operations as the summary does, and prints what it says it prints."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import minidl as md
from benchmarks import measure, profile
from minidl.counting import summary_of


@pytest.fixture
def used(monkeypatch):
    """The numbers of threads that were set, in turn; the tests' own stays."""
    counts = []
    monkeypatch.setattr(md, "set_num_threads", counts.append)
    return counts


def test_time_is_that_of_the_kernels_and_what_is_outside(used, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(profile, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow_relu(x):
        clock.now += 6.0 / used[-1]
        return x

    monkeypatch.setattr(profile.cpu, "relu_forward", slow_relu)
    x = md.ones(2)

    def work():
        clock.now += 1.0 if len(used) <= 2 else 3.0  # the machine slows down
        md.functional.relu(md.functional.relu(x))

    turns = profile.take_profiles(work, [1, 3], rounds=2)
    assert used == [1, 3, 1, 3]
    relu, outside, total = profile.make_rows(turns, shapes=1)
    assert (relu.name, relu.calls) == ("relu_forward", 2)
    assert relu.seconds == {"1": [12.0, 12.0], "3": [4.0, 4.0]}
    assert (outside.name, outside.calls) == ("outside kernels", 0)
    assert outside.seconds == {"1": [1.0, 3.0], "3": [1.0, 3.0]}
    assert (total.name, total.calls) == ("total", 2)
    assert total.seconds == {"1": [13.0, 15.0], "3": [5.0, 7.0]}
    line = profile.line(relu, {1: 240.0, 3: 700.0})
    assert line.split() == ["relu_forward", "2", "12000.00", "4000.00", "3.00"]
    assert profile.cpu.relu_forward is slow_relu  # nothing is left in its place


def test_convolutions_and_products_are_named_and_counted():
    conv = measure.Convolution((4, 9, 8), (6, 2, 3, 2), (2, 1), (1, 0), 2)
    rng = np.random.default_rng(0)
    shapes = (5, 4, 9, 8), conv.weight_shape, (5, 6, 5, 7)
    x, weight, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    works = measure.convolution_works(conv, measure.MINIDL, x, weight, dy)
    with profile.recorded() as calls:
        for work in works.values():
            work()
        profile.cpu.matmul(np.ones((2, 3, 4)), np.ones((2, 4, 6)))
    operations = 2 * (5 * 6 * 5 * 7) * (2 * 3 * 2)
    kernels = "conv2d_forward", "conv2d_input_grad", "conv2d_weight_grad"
    assert [(call.kernel, *call[2:]) for call in calls] == [
        *((kernel, str(conv), operations) for kernel in kernels),
        ("matmul", "2x3x4 @ 2x4x6", 2 * (2 * 3 * 6) * 4),
    ]


@pytest.mark.parametrize("work", measure.NETWORK_WORKS)
def test_table_fits_80_columns_and_json_has_all_times(work, used, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "ceiling", lambda threads: 240.0 * threads)
    path = tmp_path / "profile.json"
    options = ["--work", work, "--threads", "2", "1", "--batch-size", "2", "--image-size", "32"]
    options += ["--rounds", "3", "--shapes", "2", "--json", str(path)]
    assert profile.main(["resnet18", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"resnet18, {work}, batch 2, 32 x 32, median of 3 rounds"
    assert used[-6:] == [1, 2] * 3
    rows = json.loads(path.read_text())["figures"]
    assert all(len(times) == 3 for row in rows for times in row["seconds"].values())
    assert len([row for row in rows if row["work"]]) == 2
    names = {row["name"]: row for row in rows if not row["work"]}
    assert all(any(line.startswith(name) for line in lines) for name in names)
    macs = 2 * summary_of("resnet18", image_size=32).macs
    if work == "step":
        assert "sgd_step" in names
        first = 2 * 2 * 16 * 16 * 64 * 3 * 7 * 7  # the images' gradient is not computed
        assert names["total"]["operations"] == 3 * 2 * macs - first
    else:
        assert names["conv2d_forward"]["calls"] == 20
        assert names["total"]["operations"] == 2 * macs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["vgg"], "argument NAME: invalid choice: 'vgg'"),
        (["vgg16", "--threads", "0"], "expected a whole number >= 1, got '0'"),
        (["vgg16", "--threads", "1", "5000"], "expected a whole number from 1 to 1024, got 5000"),
        (["vgg16", "--image-size", "31"], "--image-size must be at least 32 for vgg16"),
    ],
)
def test_wrong_options_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        profile.main(options)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
