"""`python -m minidl.report RUN [RUN...]`: one page about a run, or about several side by side.

The page has everything in it: curves, confusion matrix, filters of the first layer, the epochs,
settings, environment. It loads nothing and runs nothing, so it can be sent and kept. Exit status:
0 when it is written, 2 with one line that says why when not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .commands import Parser, exit_status
from .errors import MinidlError
from .io.files import replace_file
from .reporting.page import MOST_RUNS, page
from .reporting.run import read_runs

REPORT = "report.html"


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(
        prog="python -m minidl.report",
        usage="python -m minidl.report RUN [RUN...] [--out FILE.html]",
        description="Write a page about a run, or about several side by side.",
        epilog="Exit status: 0 when the page is written, 2 with one line that says why when not.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.html",
        help=f"where to write (default: {REPORT}, for one run in its folder)",
    )
    return parser


def write_report(paths: Sequence[Path], out: Path) -> None:
    """Write the page about the runs in the folders `paths` to `out`, all or nothing.

    Raises:
        MinidlError: a run cannot be read or the page not be written, there are more than 10 runs,
            or matplotlib is not installed.
    """
    if len(paths) > MOST_RUNS:
        raise MinidlError(f"at most {MOST_RUNS} runs side by side, got {len(paths)}")
    runs = read_runs(paths)
    try:
        content = page(runs).encode("utf-8", "replace")
        replace_file(out, lambda temporary: temporary.write_bytes(content))
    except ImportError as error:
        raise MinidlError(str(error)) from error
    except OSError as error:
        raise MinidlError(f"{out}: cannot write ({error.strerror})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    out = args.out or (args.runs[0] / REPORT if len(args.runs) == 1 else Path(REPORT))

    def write() -> None:
        write_report(args.runs, out)
        print(f"wrote {out}")

    return exit_status(parser.prog, write)


if __name__ == "__main__":
    sys.exit(main())
