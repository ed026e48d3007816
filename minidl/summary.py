"""`python -m minidl.summary vgg16`: a network layer by layer, from a terminal.

Shapes, parameters, multiply-accumulates, memory and receptive fields of one architecture; with
`--seeds`, every number that the lectures behind minidl print beside the computed one. In Python,
`md.summary(model)` does the same, also where this module has been imported: it can be called.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .commands import Parser
from .counting import seeds, table
from .counting.summary import Summary, summary, summary_of
from .errors import MinidlError

FORMATS = ("rich", "text", "markdown", "json")


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(
        prog="python -m minidl.summary",
        description="Count an architecture: shapes, parameters, multiply-accumulates (MACs), "
        "memory, receptive fields. Nothing is computed and no weights are drawn.",
        epilog="operation: window/stride, p padding, d dilation, g groups; memory: numbers in the "
        "output, for one image; field: pixels that one position depends on; jump: distance in "
        "pixels of what neighbours see.",
    )
    parser.add_argument("arch", nargs="?", help="name of an architecture, e.g. vgg16")
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="every number the lectures print, beside the computed one",
    )
    parser.add_argument(
        "--no-bias",
        action="store_true",
        help="count weights of convolutions and linear layers only, as the lectures do",
    )
    parser.add_argument("--depth", type=_depth, help="one line for blocks this deep, e.g. 1")
    parser.add_argument(
        "--training", action="store_true", help="with the heads that only training has"
    )
    parser.add_argument("--num-classes", type=int, help="number of outputs")
    parser.add_argument("--in-channels", type=int, help="channels of the images")
    parser.add_argument("--image-size", type=int, help="side of the images")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="how to print it; by default rich in a terminal, text elsewhere",
    )
    return parser


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number >= 0, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    >>> status = main(["lenet5", "--depth", "1", "--format", "text"])
    lenet5, input 32x32x1
    ...
    layer       operation   output   memory  params   MACs  field  jump
    ...
    input                   32x32x1    1024
    features    Sequential  400        7880   2,572   358K     16
    classifier  Sequential  10          214  59,134  58.9K     32
    ...
    >>> status
    0
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.seeds == (options.arch is not None):
        parser.error("give the name of an architecture, or --seeds")
    form = options.format or ("rich" if sys.stdout.isatty() else "text")
    width = shutil.get_terminal_size().columns
    if options.seeds:
        _print_seeds(form, width)
        return 0
    try:
        counted = summary_of(
            options.arch,
            depth=options.depth,
            training=options.training,
            num_classes=options.num_classes,
            in_channels=options.in_channels,
            image_size=options.image_size,
        )
    except (MinidlError, TypeError, ValueError) as error:
        parser.error(str(error))
    _print(counted, form, bias=not options.no_bias, width=width)
    return 0


def _print_seeds(form: str, width: int) -> None:
    if form == "rich":
        from rich.console import Console

        Console(width=width).print(seeds.as_rich())
    elif form == "text":
        print(seeds.as_text(width))
    else:
        print(seeds.as_markdown() if form == "markdown" else seeds.as_json())


def _print(counted: Summary, form: str, bias: bool, width: int) -> None:
    if form == "rich":
        from rich.console import Console

        Console(width=width).print(table.as_rich(counted, bias, width))
    elif form == "text":
        print(table.as_text(counted, bias, width if sys.stdout.isatty() else None))
    elif form == "markdown":
        print(table.as_markdown(counted, bias))
    else:
        print(table.as_json(counted))


class _CallableModule(ModuleType):
    """Importing `minidl.summary` puts this module where the function `md.summary` was."""

    def __call__(self, *args: Any, **kwargs: Any) -> Summary:
        return summary(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when `| head` has seen enough
    sys.exit(main())
