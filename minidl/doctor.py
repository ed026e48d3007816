"""`python -m minidl.doctor`: versions, hardware, problems; exits with 1 if there is one."""

import sys
from collections.abc import Sequence

from .commands import Parser
from .installation import collect_config, show_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(
        prog="python -m minidl.doctor",
        description="Say what this installation of minidl consists of, and what is wrong with it.",
        epilog="Exit status: 0, or 1 if there is a problem.",
    )
    parser.parse_args(arguments)
    show_config()
    return 1 if collect_config()[1] else 0


if __name__ == "__main__":
    sys.exit(main())
