"""A table of results: as Markdown to read, as CSV to compute with, as text on the terminal."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column: the rows' key, the heading, and how a value is written (as for `format`)."""

    key: str
    heading: str
    format: str = ""

    def text(self, row: Mapping[str, Any]) -> str:
        """A row's value, or a dash where it has none.

        >>> Column("error", "error", ".1%").text({"error": 0.25}), Column("x", "x").text({})
        ('25.0%', '–')
        """
        value = row.get(self.key)
        return MISSING if value is None else format(value, self.format)


@dataclass(frozen=True)
class Table:
    """Rows of values, and the columns to show them in.

    >>> columns = [Column("name", "network"), Column("params", "parameters", ",")]
    >>> table = Table(columns, [{"name": "lenet5", "params": 61706}])
    >>> print(table.markdown())
    | network | parameters |
    |:--------|-----------:|
    | lenet5  |     61,706 |
    >>> table.csv()
    'name,params\\nlenet5,61706\\n'
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    def markdown(self) -> str:
        """Aligned for the eye too; columns of texts to the left, of numbers to the right."""
        cells = [[column.text(row) for column in self.columns] for row in self.rows]
        headings = [column.heading for column in self.columns]
        widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        left = [
            all(isinstance(row.get(column.key), str) for row in self.rows)
            for column in self.columns
        ]

        def line(texts: Sequence[str]) -> str:
            padded = (
                text.ljust(width) if to_left else text.rjust(width)
                for text, width, to_left in zip(texts, widths, left, strict=True)
            )
            return f"| {' | '.join(padded)} |"

        rule = "|".join(
            f":{'-' * (width + 1)}" if to_left else f"{'-' * (width + 1)}:"
            for width, to_left in zip(widths, left, strict=True)
        )
        return "\n".join([line(headings), f"|{rule}|", *map(line, cells)])

    def csv(self) -> str:
        """The values themselves, unrounded; nothing where there is none."""
        text = io.StringIO()
        keys = [column.key for column in self.columns]
        writer = csv.DictWriter(text, keys, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()
