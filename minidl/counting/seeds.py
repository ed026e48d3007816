"""The numbers that the lectures behind minidl (the seeds) print, beside the computed ones.

The numbers are kept in `seed_numbers.json`; a test computes them from minidl's networks again. A
status is one of

    reproduces   the printed number is the computed one, to the digits printed
    rounds       it is near, and the reason says how near
    differs      it is not, and the reason says why
    published    a result of a paper: there is nothing to compute
    training     a comparison of training runs
"""

from __future__ import annotations

import json
import textwrap
from importlib import resources
from typing import Any, NamedTuple

__all__ = ["SeedNumber", "as_json", "as_markdown", "as_rich", "as_text", "seed_numbers"]

COLOURS = {
    "reproduces": "green",
    "rounds": "cyan",
    "differs": "yellow",
    "published": "blue",
    "training": "blue",
}


class SeedNumber(NamedTuple):
    """One number, or one group of numbers, that the lectures print.

    `seeds` are the numbers that the lectures' file names begin with, `computed` maps what was
    computed to its value.
    """

    id: str
    seeds: list[str]
    printed: str
    computed: dict[str, Any]
    status: str
    why: str


def seed_numbers() -> list[SeedNumber]:
    """All of them.

    >>> numbers = {number.id: number for number in seed_numbers()}
    >>> len(numbers), numbers["vgg16_total_memory"].computed["MB"]
    (41, 60.95)
    """
    text = resources.files(__package__).joinpath("seed_numbers.json").read_text("utf-8")
    return [SeedNumber(**entry) for entry in json.loads(text)]


def as_text(width: int = 80) -> str:
    """A paragraph for each number, and how many there are of each status.

    >>> print(as_text())
    vgg16_rows (000 004): reproduces
    ...
    inception_concat (000): differs
      printed   28x28x(128+192+96+256) = 529K
      computed  numbers: 526,848
      why       784 * 672 is 526,848.
    ...
    """
    paragraphs = []
    for number in seed_numbers():
        lines = [f"{number.id} ({' '.join(number.seeds)}): {number.status}"]
        for head, text in _facts(number):
            lines += textwrap.wrap(
                text,
                width,
                initial_indent=f"  {head:<9} ",
                subsequent_indent=" " * 12,
                break_on_hyphens=False,
            )
        paragraphs.append("\n".join(lines))
    return "\n\n".join([*paragraphs, _tally()])


def as_rich() -> Any:
    """The same as a table of rich: facts beside their names, and statuses in colour."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, caption=_tally())
    table.caption_style, table.caption_justify = "", "left"
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number in seed_numbers():
        status = Text(number.status, COLOURS[number.status])
        table.add_row(status, Text(f"{number.id} ({' '.join(number.seeds)})", "bold"))
        for head, text in _facts(number):
            table.add_row(Text(f"  {head}", "dim"), Text(text))
        table.add_row()
    return table


def as_markdown() -> str:
    """The same as a Markdown table."""
    lines = ["| number | seeds | printed | computed | status | why |", "|---|---|---|---|---|---|"]
    for number in seed_numbers():
        facts = dict(_facts(number))
        cells = (
            number.id,
            " ".join(number.seeds),
            number.printed,
            facts.get("computed", ""),
            number.status,
            number.why,
        )
        escaped = (cell.replace("*", r"\*").replace("|", r"\|") for cell in cells)
        lines.append("| " + " | ".join(escaped) + " |")
    return "\n".join([*lines, "", _tally()])


def as_json() -> str:
    """The same as JSON."""
    return json.dumps([number._asdict() for number in seed_numbers()], indent=1)


def _facts(number: SeedNumber) -> list[tuple[str, str]]:
    computed = "; ".join(f"{name}: {_value(value)}" for name, value in number.computed.items())
    facts = [("printed", number.printed), ("computed", computed), ("why", number.why)]
    return [(head, text) for head, text in facts if text]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _tally() -> str:
    statuses = [number.status for number in seed_numbers()]
    counts = (f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    return f"{len(statuses)} numbers: {', '.join(counts)}"
