"""The loader's benchmark compares like with like, and prints what it says it prints."""

import json

import numpy as np
from PIL import Image

from benchmarks import loader
from minidl.data import FolderSplit


def test_pillow_alone_and_the_loader_show_the_same_pixels(tmp_path, monkeypatch):
    (path,) = loader.make_photos(tmp_path, 1)
    assert 50_000 < path.stat().st_size < 200_000  # as ImageNet's
    resized, resize = [], Image.Image.resize

    def recording(*arguments, **options):
        resized.append(resize(*arguments, **options))
        return resized[-1]

    monkeypatch.setattr(Image.Image, "resize", recording)
    assert loader.show(path, 32) == (32, 32)
    shown = FolderSplit([path], np.zeros(1, int), ["photo"], 3, 32).pixels(np.array([0]))
    np.testing.assert_array_equal(shown[0], np.asarray(resized[0]).transpose(2, 0, 1))
    assert len(resized) == 2


def test_benchmark_of_the_loader_prints_a_table_and_writes_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loader, "SETTLED", 0)
    record = tmp_path / "loader.json"
    options = ["--images", "4", "--batch-size", "2", "--image-size", "8", "--rounds", "1"]
    assert loader.main([*options, "--files", "1500", "--json", str(record)]) == 0
    out = capsys.readouterr().out
    assert "4 JPEG files of" in out
    assert "evaluation" in out
    assert "1,500 files: listed in" in out
    figures = json.loads(record.read_text())["figures"]
    for speeds in figures["images_per_second"].values():
        assert {mode: len(each) for mode, each in speeds.items()} == {"Pillow": 1, "minidl": 1}
    assert figures["index"]["bytes"] < 100
