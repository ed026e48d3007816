"""`python -m minidl`: the commands, a line each."""

import sys
from collections.abc import Sequence

from .commands import Parser

COMMANDS = {
    "train": "train a network",
    "evaluate": "say how good a trained network is",
    "report": "write a page about runs, side by side",
    "summary": "count shapes, parameters, operations",
    "experiments": "measure what the lectures claim",
    "exercises": "learn to write backward passes",
    "doctor": "say what is wrong with the installation",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the commands; returns the exit status.

    >>> main([])
    python -m minidl.train        train a network
    ...
    python -m minidl.doctor       say what is wrong with the installation
    0
    """
    parser = Parser(
        prog="python -m minidl",
        usage="python -m minidl.COMMAND [options]",
        description=f"List the commands: {', '.join(COMMANDS)}.",
    )
    parser.parse_args(arguments)
    for name, summary in COMMANDS.items():
        print(f"python -m minidl.{name:11}  {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
