"""Tables of plain text for a terminal."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], left: int = 2, width: int = 80) -> str:
    """Columns two spaces apart, the first `left` of them to the left, the others to the right.

    Where lines would be wider than `width`, the beginnings of the names in the first column are
    left out: their ends tell more.

    >>> print(table([("layer", "type", "ms"), ("features.conv1", "Conv2d", "1.2")], width=22))
    layer     type     ms
    ...conv1  Conv2d  1.2
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(width - sum(widths[1:]) - 2 * (len(widths) - 1), 8)
    widths[0] = min(widths[0], room)
    lines = []
    for name, *others in rows:
        if len(name) > room:
            name = f"...{name[3 - room :]}"
        cells = zip((name, *others), widths, strict=True)
        lines.append(
            "  ".join(
                cell.ljust(n) if i < left else cell.rjust(n) for i, (cell, n) in enumerate(cells)
            ).rstrip()
        )
    return "\n".join(lines)
