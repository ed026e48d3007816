"""Heat maps of gradients, where a pattern of mistakes can be seen at a glance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .compare import Verdict

if TYPE_CHECKING:
    from .report import ArrayReport, GradReport

__all__ = ["heat_map"]

GAP = 1  # empty rows and columns between planes


def heat_map(report: GradReport, name: str | None = None) -> Any:
    """Analytic gradient, numeric gradient and their difference, side by side.

    Leading axes are laid out as a grid of planes: for images, samples downwards and channels
    across. Wrong elements are outlined in the difference; what was not checked is grey.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError:
        raise ImportError(
            "heat_map needs matplotlib; install it with: pip install 'minidl[viz]'"
        ) from None
    array = _chosen(report, name)
    numeric = _sheet(array.numeric)
    analytic = np.full_like(numeric, np.nan)
    if array.analytic is not None:
        analytic = _sheet(array.analytic)
    wrong = _sheet(np.where(array.verdicts == Verdict.WRONG, 1.0, np.nan)) == 1.0
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    largest = max(_largest(analytic), _largest(numeric))
    difference = analytic - numeric
    panels = (
        ("analytic: the backward pass", analytic, largest),
        ("numeric: measured", numeric, largest),
        (f"analytic - numeric; wrong: {array.wrong}, outlined", difference, _largest(difference)),
    )
    for axis, (title, sheet, limit) in zip(axes, panels, strict=True):
        limit = limit or 1.0
        axis.set_facecolor("0.85")
        image = axis.imshow(
            sheet, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto"
        )
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(image, ax=axis, shrink=0.8)
    if wrong.sum() <= 2000:  # more outlines would hide what they are around
        for row, column in np.argwhere(wrong):
            axes[2].add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="k", lw=0.6)
            )
    figure.suptitle(f"{report.title}: gradient of {array.name} {array.shape}", fontsize=11)
    return figure


def _chosen(report: GradReport, name: str | None) -> ArrayReport:
    if name is not None:
        return report[name]
    return max(report.arrays, key=lambda a: a.wrong / max(a.checked, 1))


def _largest(sheet: np.ndarray) -> float:
    return float(np.abs(sheet[np.isfinite(sheet)]).max(initial=0.0))


def _sheet(array: np.ndarray) -> np.ndarray:
    """(..., A, B, H, W) -> one matrix: planes (H, W), B of them across, all others downwards."""
    while array.ndim < 2:
        array = array[None]
    if array.ndim == 2:
        return array.astype(float)
    across = array.shape[-3]
    planes = array.reshape(math.prod(array.shape[:-3]), across, *array.shape[-2:])
    down, across, h, w = planes.shape
    sheet = np.full((down * (h + GAP) - GAP, across * (w + GAP) - GAP), np.nan)
    for i in range(down):
        for j in range(across):
            top, left = i * (h + GAP), j * (w + GAP)
            sheet[top : top + h, left : left + w] = planes[i, j]
    return sheet
