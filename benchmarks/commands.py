"""What the commands of the benchmarks share: options, the machine, the file of times."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """The number that an option gives."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


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
