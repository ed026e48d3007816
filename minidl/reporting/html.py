"""HTML from Python: text is escaped unless it says that it is HTML already.

A run's folder may come from a stranger, with anything in its names; nothing of it may become a
part of the page's structure.
"""

import html
from collections.abc import Sequence
from typing import Any


class Html(str):
    """Text that is HTML already."""


def text(value: Any) -> Html:
    """A value as HTML: escaped, and without what cannot be shown.

    >>> text("a < b\\x00"), text(Html("<b>"))
    ('a &lt; b\ufffd', '<b>')
    """
    if isinstance(value, Html):
        return value
    return Html(html.escape("".join(c if c.isprintable() else "\ufffd" for c in str(value))))


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """An element; underscores in the attributes' names are dashes, one at the end is dropped.

    >>> tag("td", "<script>", tag("b", 1), class_="best")
    '<td class="best">&lt;script&gt;<b>1</b></td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{''.join(map(text, content))}</{name}>")


def table(
    caption: str, head: list[Any], rows: Sequence[Html | list[Any]], **attributes: Any
) -> Html:
    """A table whose first column names the rows, in a box that scrolls where it is too wide.

    An entry that is an element of its own (a `td` made by `tag`) is taken as it is, and so is a
    row (`tr`).
    """
    lines = [row if isinstance(row, Html) else tag("tr", *cells(row)) for row in rows]
    heads = [h if is_cell(h) else tag("th", h, scope="col") for h in head]
    parts = (
        tag("caption", caption),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *lines),
    )
    # Keyboards can scroll only what they can reach.
    box = {
        "class_": "scroll",
        "tabindex": "0",
        "role": "group",
        "aria_label": caption,
    }
    return tag("div", tag("table", *parts, **attributes), **box)


def cells(row: list[Any]) -> list[Html]:
    """The cells of a row of a table, the first of which names it."""
    first, *others = row
    return [
        tag("th", first, scope="row"),
        *(value if is_cell(value) else tag("td", value) for value in others),
    ]


def is_cell(value: Any) -> bool:
    """Whether a value is a cell of a table already."""
    return isinstance(value, Html) and value.startswith(("<td", "<th"))
