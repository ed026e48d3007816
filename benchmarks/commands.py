"""What the commands of the benchmarks share: options, the machine, the file of times."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """The number that an option gives."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def output_file(text: str) -> Path:
    """A file to be written when all is measured: refused before, if that cannot be."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file, {text} is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: permission denied")
    return path


def machine(facts: dict[str, Any], ceilings: Mapping[int, float]) -> str:
    """Two lines: the processor, and its ceiling for each number of threads."""
    tops = ", ".join(f"{value:.0f} on {count}" for count, value in ceilings.items())
    return (
        f"{facts['processor']}, {facts['instruction set']}\nceiling, GFLOP/s by threads: {tops}\n"
    )


def write_json(args: argparse.Namespace, facts: dict[str, Any], figures: Any) -> None:
    """Options, machine and figures into the file that --json names."""
    settings = {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}
    record = {"settings": settings, "machine": facts, "figures": figures}
    args.json.write_text(json.dumps(record, indent=1) + "\n")
