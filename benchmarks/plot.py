"""The benchmarks' figures as bars: operations a second, one panel for each kind of work."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .measure import JAX, MINIDL, ONNX, Result

COLOURS = {
    MINIDL: "#1f5fa8",
    "NCHW": "#f2b38c",
    "NHWC": "#d9691e",
    "NCHW*": "#bdbdbd",
    "NHWC*": "#7a7a7a",
    ONNX: "#6aa56a",
    JAX: "#9a7bb5",
}
LABELS = {
    MINIDL: "minidl, and its speed over the best rival's",
    "NCHW": "PyTorch",
    "NHWC": "PyTorch, channels_last",
    "NCHW*": "PyTorch, compiled",
    "NHWC*": "PyTorch, compiled, channels_last",
    ONNX: "ONNX Runtime",
    JAX: "JAX",
}


def draw_bars(path: Path, results: Sequence[Result], works: Sequence[str], ceiling: float) -> None:
    """Draw GFLOP/s of every mode, and beside minidl's bar by what factor it is faster.

    A dotted line is the ceiling of the direct method, GFLOP/s of the micro-kernel.
    """
    names = list(dict.fromkeys(result.name for result in results))
    modes = list(dict.fromkeys(mode for result in results for mode in result.seconds))
    height = 0.8 / len(modes)
    row = 0.55 if len(names) < 20 else 0.36
    figure = Figure(figsize=(4 * len(works) + 2, row * len(names) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(works), sharey=True, squeeze=False)[0]
    for panel, work in zip(panels, works, strict=True):
        for index, mode in enumerate(modes):
            chosen = [r for r in results if r.work == work and mode in r.seconds]
            if not chosen:
                continue
            rows = [names.index(result.name) for result in chosen]
            bars = panel.barh(
                [row - 0.4 + (index + 0.5) * height for row in rows],
                [result.gflops(mode) for result in chosen],
                height,
                color=COLOURS[mode],
                label=LABELS[mode],
            )
            if mode == MINIDL and len(modes) > 1:
                ratios = [f"{result.ratio:.2f}\N{MULTIPLICATION SIGN}" for result in chosen]
                panel.bar_label(bars, ratios, padding=3, fontsize=8, color=COLOURS[MINIDL])
        panel.axvline(ceiling, color="#404040", linewidth=0.8, linestyle=":")
        panel.set_title({"step": "training step"}.get(work, work))
        panel.set_xlabel("GFLOP/s")
        panel.margins(x=0.12, y=0.01)
        panel.grid(axis="x", color="#e0e0e0")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=150)
