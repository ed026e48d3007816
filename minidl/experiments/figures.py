"""How all figures look: lines that are named where they end, colours that everyone can tell apart.

Colours: Okabe, Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MinidlError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa4499"
GREY = "#777777"
DPI = 100
LINE_HEIGHT = 12.0  # of a label, in points

Row = Mapping[str, Any]  # of a table
End = tuple[float, float, str, str]  # of a line: x, y, name, colour


def check_matplotlib() -> None:
    """Raise MinidlError, which says how to get it, if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MinidlError("figures need matplotlib: pip install 'minidl[viz]'")


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def style(axes: Axes, x: str, y: str, *, percent: bool = False, whole_x: bool = False) -> None:
    """Name the axes; their numbers as percentages or whole numbers if asked for."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def name_ends(figure: Figure, ends: Mapping[Axes, Sequence[End]]) -> None:
    """Write the names of lines beside their right ends, by axes, none on another.

    Call it when all axes are filled and their limits stand.
    """
    figure.draw_without_rendering()  # lays the axes out
    least = LINE_HEIGHT * figure.dpi / 72
    for axes, named in ends.items():
        heights = [axes.transData.transform((x, y))[1] for x, y, _, _ in named]
        for (x, y, name, colour), height, wanted in zip(
            named, heights, spread(heights, least), strict=True
        ):
            axes.annotate(
                name,
                (x, y),
                xytext=(5, (wanted - height) * 72 / figure.dpi),
                textcoords="offset points",
                color=colour,
                va="center",
                fontsize="small",
                annotation_clip=False,
            )


def spread(positions: Sequence[float], least: float) -> list[float]:
    """Positions moved as little as it takes to lie `least` apart, in the same order.

    >>> spread([0.0, 1.0, 10.0], least=3.0)
    [-1.0, 2.0, 10.0]
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    clusters: list[list[float]] = []  # wanted positions, less their place in the cluster
    for index in order:
        cluster = [positions[index]]
        while clusters and _mean(clusters[-1]) + len(clusters[-1]) * least > _mean(cluster):
            before = clusters.pop()
            cluster = before + [wanted - len(before) * least for wanted in cluster]
        clusters.append(cluster)
    places = [_mean(c) + i * least for c in clusters for i in range(len(c))]
    moved = dict(zip(order, places, strict=True))
    return [moved[index] for index in range(len(positions))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Bars:
    """A panel of bars: its title, the rows' key, how a number is written, and keys of its span."""

    title: str
    key: str
    format: str
    span: tuple[str, str] | None = None


def draw_bars(
    axes: Axes, bars: Bars, names: Sequence[str], rows: Sequence[Row], colours: Sequence[str]
) -> None:
    """A horizontal bar for each row from top to bottom, with the number behind it."""
    values = [row.get(bars.key, 0.0) for row in rows]
    axes.barh(range(len(rows)), values, color=colours, height=0.62)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        end, text = value, "diverged"
        if bars.key in row:
            text = format(value, bars.format)
            if bars.span is not None:
                low, end = (row[key] for key in bars.span)
                axes.plot([low, end], [place, place], color="black", linewidth=1.4)
        axes.annotate(
            text,
            (end, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.set_title(bars.title, fontsize="medium", loc="left")
    axes.set_xticks([])
    axes.set_xlim(0, 1.4 * max(values) or 1.0)  # room for the numbers
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, format="png", dpi=DPI)
