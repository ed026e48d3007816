"""What the tests of `python -m minidl.train` share: short runs, and ways to look at them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from minidl.train import main

LENET = ["--arch", "lenet5", "--limit", "128", "--epochs", "2"]


def step_losses(run: Path) -> list[float]:
    """The losses of all steps that a run has logged."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    return [record["loss"] for record in steps]


def refusal(main: Callable[[list[str]], int], capsys: Any, *arguments: object) -> str:
    """The one line on standard error with which a command refuses `arguments`."""
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


complaint = partial(refusal, main)
