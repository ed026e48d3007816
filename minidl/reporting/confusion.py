"""The confusion matrix: which classes are taken for which."""

from typing import Any

import numpy as np

from .figures import COLOURS, styled
from .run import Confusion

MOST_NAMED = 30  # with more classes neither names nor numbers can be read


@styled
def plot_confusion(confusion: Confusion) -> Any:
    """A matplotlib figure: a row for each class, a column for each answer.

    The shade is the part of the row's images; up to 30 classes the numbers of images stand in the
    fields.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    counts, count = confusion.counts, len(confusion.classes)
    opacity = shades(confusion)[..., 3]
    side = 4.8 if count <= 12 else min(9.0, 0.4 * count)
    axes = (figure := Figure(figsize=(side, side))).subplots()
    axes.grid(False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    axes.set_aspect("equal")
    if count > MOST_NAMED:
        axes.imshow(shades(confusion), interpolation="nearest")
        return figure
    size = 8 if count <= 12 else 6
    for row in range(count):
        for column in range(count):
            corner, alpha = (column - 0.47, row - 0.47), 0.04 + 0.66 * float(opacity[row, column])
            field = Rectangle(corner, 0.94, 0.94, color=COLOURS[0], alpha=alpha, linewidth=0)
            axes.add_patch(field)
            if counts[row, column]:
                number = f"{counts[row, column]}"
                axes.text(column, row, number, ha="center", va="center", fontsize=size)
    names = [shortened(name) for name in confusion.classes]
    places = np.arange(count)
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def shades(confusion: Confusion) -> np.ndarray:
    """The matrix as colours (classes, classes, 4): the more of a row's images, the more opaque.

    >>> shades(Confusion(("cat", "dog"), np.array([[3, 1], [0, 0]])))[..., 3].tolist()
    [[0.8660254037844386, 0.5], [0.0, 0.0]]
    """
    shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    colours = np.empty((*shares.shape, 4))
    colours[..., :3] = [int(COLOURS[0][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    colours[..., 3] = np.sqrt(shares)  # else rare mistakes would be too pale to see
    return colours


def shortened(name: str, longest: int = 16) -> str:
    """A name that fits beside a matrix.

    >>> shortened("Labrador retriever dog")
    'Labrador retrie…'
    """
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
