"""The code on a page of docs/ runs as it stands."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "your_own_data.md"


def test_your_own_data_from_arrays_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert (tmp_path / "net.safetensors").exists()
    assert names["correct"] > 180  # of 200
    assert names["train_loader"].epoch == 3
    velocities = names["optimizer"].state_dict()["state"]
    assert any(np.any(array) for values in velocities.values() for array in values.values())
    assert len(re.findall(r"^epoch \d  loss ", capsys.readouterr().out, re.MULTILINE)) == 3
