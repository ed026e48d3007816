"""`--tensorboard`: what a reader of the event files finds."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from training_runs import LENET, complaint

from minidl.reporting.tensorboard import EVENT_FILES, EventLog
from minidl.train import main

pytest.importorskip("tensorboardX")


def read_events(folder: Path) -> list[Any]:
    """All events of a run in the order in which TensorBoard reads them; half a record ends a file.

    A record is its length (8 bytes), a checksum (4), the event, and a checksum (4).
    """
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.glob(EVENT_FILES)):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            if place + length + 16 > len(content):
                break
            events.append(Event.FromString(content[place + 12 : place + 12 + length]))
            place += length + 16
    return events


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each point of each curve; a start takes back its step and later ones."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(folder):
        if event.HasField("session_log"):
            for tag, points in curves.items():
                curves[tag] = [point for point in points if point[0] < event.step]
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def logged(folder: Path, kind: str, name: str) -> list[tuple[int, float]]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(r["step"], pytest.approx(r[name])) for r in records if r["kind"] == kind]


def assert_all_logged(folder: Path) -> None:
    curves = read_scalars(folder)
    assert curves["loss/step"] == logged(folder, "step", "loss")
    assert curves["lr"] == logged(folder, "step", "lr")
    assert curves["loss/training"] == logged(folder, "epoch", "train_loss")
    assert curves["loss/test"] == logged(folder, "epoch", "val_loss")
    assert curves["accuracy/training"] == logged(folder, "epoch", "train_accuracy")
    assert curves["accuracy/test"] == logged(folder, "epoch", "val_accuracy")
    assert curves["images_per_second"] == logged(folder, "epoch", "images_per_second")


def test_a_run_and_its_continuation_are_one_curve(tmp_path):
    pytest.importorskip("matplotlib")
    run = tmp_path / "run"
    assert main([*LENET, "--epochs", "1", "--tensorboard", "--out", str(run)]) == 0
    assert_all_logged(run)
    with open(next(run.glob(EVENT_FILES)), "ab") as file:
        file.write(struct.pack("<Q", 99) + b"killed here")
    assert main(["--resume", str(run), "--epochs", "2"]) == 0
    assert_all_logged(run)
    assert len(list(run.glob(EVENT_FILES))) == 2
    copy = tmp_path / "copy"
    assert main(["--resume", str(run), "--epochs", "3", "--out", str(copy)]) == 0
    assert_all_logged(copy)
    assert len(logged(copy, "epoch", "val_loss")) == 3
    images = {
        v.tag: v.image for e in read_events(run) for v in e.summary.value if v.HasField("image")
    }
    assert "first layer" in images
    for image in images.values():
        assert image.encoded_image_string.startswith(b"\x89PNG")
        assert image.width > 100
        assert image.height > 100


def test_steps_that_come_again_take_the_place_of_the_first(tmp_path):
    for first, last, loss in ((1, 9, 1.0), (5, 7, 2.0)):  # killed after step 9, saved after 4
        events = EventLog(tmp_path, first)
        for step in range(first, last):
            record = {"kind": "step", "epoch": 1, "step": step, "lr": 0.1, "loss": loss}
            events.record(record | {"note": "text", "clipped": None})
        events.close()
    curves = read_scalars(tmp_path)
    assert set(curves) == {"loss/step", "lr"}
    assert curves["loss/step"] == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)]


def test_without_tensorboardx_it_is_said_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = complaint(capsys, *LENET, "--tensorboard", "--out", str(tmp_path / "run"))
    assert "--tensorboard needs tensorboardX; install it with: pip install" in line
    assert not (tmp_path / "run").exists()
