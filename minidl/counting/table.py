"""A summary to look at: plain text, Markdown, JSON, or a table of rich.

Sizes are height x width x channels, as lectures write them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .._kernels.geometry import Pair

if TYPE_CHECKING:
    from .summary import Summary

__all__ = ["as_json", "as_markdown", "as_rich", "as_text", "by", "compact"]

HEADS = ("layer", "operation", "output", "memory", "params", "MACs", "field", "jump")
LEFT = 3  # columns of text; the others are numbers
BYTES = 4  # of a number in float32


def by(pair: Pair) -> str:
    """A pair as "3x3"."""
    return f"{pair[0]}x{pair[1]}"


def size_text(shape: Sequence[int]) -> str:
    """(C, H, W) as "HxWxC", other shapes in their order.

    >>> size_text((64, 112, 96)), size_text((1000,))
    ('112x96x64', '1000')
    """
    shape = (*shape[1:], shape[0]) if len(shape) == 3 else tuple(shape)
    return "x".join(map(str, shape))


def compact(number: int) -> str:
    """A number in three digits and a letter, once it has more than four.

    >>> [compact(n) for n in (0, 4096, 25_088, 99_960, 999_999, 9_633_792, 15_470_264_320)]
    ['0', '4096', '25.1K', '100K', '1.00M', '9.63M', '15.5G']
    """
    if number < 10_000:
        return str(number)
    letters = iter("KMGT")
    scaled, letter = float(number), ""
    while scaled >= 999.5:
        scaled, letter = scaled / 1000, next(letters)
    decimals = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{decimals}f}{letter}"


def _cells(counted: Summary, bias: bool, exact: bool) -> list[list[str]]:
    """The table without its heads: one row for the image, then one for each line."""

    def number(value: int) -> str:
        return f"{value:,}" if exact else compact(value)

    size = counted.input_shape
    rows = [["input", "", size_text(size), number(math.prod(size)), "", "", "", ""]]
    for line in counted.layers:
        params = line.params if bias else line.weights
        rows.append(
            [
                line.name or counted.model,
                line.layer,
                size_text(line.shape),
                number(line.memory),
                f"{params:,}",
                number(line.macs),
                _side(line.receptive_field),
                "" if line.jump is None else _side(line.jump),
            ]
        )
    uncalled = counted.uncalled_params if bias else counted.uncalled_weights
    if uncalled:
        rows.append(["(not called)", "", "", "", f"{uncalled:,}", "", "", ""])
    return rows


def _side(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else by(pair)


def _title(counted: Summary) -> str:
    return f"{counted.model}, input {size_text(counted.input_shape)}"


def _totals(counted: Summary, bias: bool) -> list[str]:
    params, weights, memory = counted.params, counted.weights, counted.memory
    if bias:
        first = f"{params:,} parameters ({weights:,} without biases and normalisation)"
    else:
        first = f"{weights:,} parameters without biases and normalisation ({params:,} with)"
    return [
        first,
        f"{counted.macs:,} MACs (multiply-accumulates; FLOPs are twice as many)",
        f"{memory:,} numbers x {BYTES} bytes = {memory * BYTES / 1e6:.2f} MB for one image, "
        "forward only",
    ]


def as_text(counted: Summary, bias: bool = True, width: int | None = 80) -> str:
    """The summary as lines of at most `width` characters, if need be with shortened names.

    No names are shortened where `width` is None, nor so far that two would look the same.
    With `bias` False, parameters are the weights of convolutions and linear layers only.
    """
    rows, gap = _fitted(counted, bias, width)
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [
        gap.join(
            cell.ljust(n) if i < LEFT else cell.rjust(n)
            for i, (cell, n) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join(
        [_title(counted), rule, lines[0], rule, *lines[1:], rule, *_totals(counted, bias)]
    )


def _fitted(counted: Summary, bias: bool, width: int | None) -> tuple[list[list[str]], str]:
    """Heads and rows with names short enough for `width`, and the gap between columns."""
    rows = [list(HEADS), *_cells(counted, bias, exact=False)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    gaps = len(HEADS) - 1
    if width is None or sum(widths) + 2 * gaps <= width:
        return rows, "  "
    names = shortened([row[0] for row in rows], max(width - sum(widths[1:]) - gaps, 8))
    return [[name, *row[1:]] for name, row in zip(names, rows, strict=True)], " "


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` characters, or of as many as keep different names different.

    Blocks are abbreviated from the outside in, until a name fits; then its middle goes.

    >>> shortened(["features.denseblock1.denselayer10.norm1", "features.conv0"], 18)
    ['f.d1.d10.norm1', 'features.conv0']
    >>> shortened(["Mixed_7b.branch3x3dbl_3a.conv", "Mixed_7c.branch3x3dbl_3a.conv"], 14)
    ['M7b…x3d3a.conv', 'M7c…x3d3a.conv']
    """
    short = [_short(name, width) for name in names]
    return short if len(set(short)) == len(set(names)) else shortened(names, width + 1)


def _short(name: str, width: int) -> str:
    *blocks, layer = name.split(".")
    for i, block in enumerate(blocks):
        if len(name) > width:
            blocks[i] = re.sub(r"(?<=[A-Za-z])[A-Za-z_]+", "", block)  # layer12 -> l12
            name = ".".join([*blocks, layer])
    if len(name) <= width:
        return name
    start = blocks[0] if blocks and len(blocks[0]) < width // 2 else ""
    return f"{start}…{name[len(start) + 1 + len(name) - width :]}"


def as_markdown(counted: Summary, bias: bool = True) -> str:
    """The summary as a Markdown table with exact numbers."""
    lines = [f"### {_title(counted)}", "", "| " + " | ".join(HEADS) + " |"]
    lines.append("|---|---|---|" + "---:|" * (len(HEADS) - LEFT))
    lines += ["| " + " | ".join(row) + " |" for row in _cells(counted, bias, exact=True)]
    return "\n".join([*lines, "", *(f"- {total}" for total in _totals(counted, bias))])


def as_json(counted: Summary) -> str:
    """The summary as JSON with exact numbers; shapes are (C, H, W)."""
    return json.dumps(
        {
            "model": counted.model,
            "input_shape": counted.input_shape,
            "params": counted.params,
            "weights": counted.weights,
            "macs": counted.macs,
            "memory": counted.memory,
            "memory_bytes": counted.memory * BYTES,
            "uncalled_params": counted.uncalled_params,
            "layers": [asdict(line) for line in counted.layers],
        },
        indent=1,
    )


def as_rich(counted: Summary, bias: bool = True, width: int = 80) -> Any:
    """The summary as a table of rich, for terminals of this width."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows, gap = _fitted(counted, bias, width)
    table = Table(
        title=_title(counted),
        title_justify="left",
        caption="\n".join(_totals(counted, bias)),
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, len(gap) - 1, 0, 0),
    )
    for i, head in enumerate(rows[0]):
        table.add_column(head, justify="left" if i < LEFT else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table
