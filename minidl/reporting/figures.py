"""How all figures look, and how they get into a page: as SVG whose colours follow the page's.

A figure is drawn in the colours of a light page. In the SVG each of them becomes a variable of the
page's style sheet, which has other values where the reader prefers dark, so nothing is drawn twice.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from PIL import Image

from .html import Html, text

# One for each run; the first and the second are test and training where there is one run.
COLOURS = (
    "#0969da", "#d4521a", "#1a8a5c", "#8250df", "#b0368c",
    "#9a6700", "#0f8b9d", "#c92a3c", "#5f7a1f", "#6e7781",
)  # fmt: skip
INK = "#1f2429"
RULE = "#d1d9e0"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a name may have dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
}
VARIABLES = {colour: f"--c{i}" for i, colour in enumerate(COLOURS)} | {INK: "--ink", RULE: "--rule"}

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


@contextmanager
def style() -> Iterator[None]:
    """Draw in minidl's style.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ImportError(
            "plots need matplotlib; install it with: pip install 'minidl[viz]'"
        ) from None
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Browsers have the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def styled(plot: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Decorate a function that draws, so that it does so in minidl's style."""

    @wraps(plot)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Drawn:
        with style():
            return plot(*args, **kwargs)

    return drawn


def as_png(figure: Any, dpi: int = 150) -> bytes:
    """A matplotlib figure as the content of a PNG file."""
    content = io.BytesIO()
    with style():
        figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def as_svg(figure: Any, name: str, about: str) -> Html:
    """A matplotlib figure as an <svg> element of a page.

    `name` is unlike that of all other figures of the page, `about` says what is to be seen to those
    who cannot see it.
    """
    content = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with style():
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    head, svg = content.getvalue().split("<svg", 1)[1].split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    for pattern, replacement in (
        (r"<defs>\s*<style.*?</style>\s*</defs>", ""),
        (r' id="\w+_\d+"', ""),  # of groups, which nothing refers to
        (r' id="(?=[^"])', f' id="{name}-'),
        (r"url\(#", f"url(#{name}-"),
        (r'xlink:href="#', f'href="#{name}-'),
        (r" ?font-family: [^;\"]*;", ""),
        (r"([ML] -?\d+\.\d)\d* (-?\d+\.\d)\d*", r"\1 \2"),
        *((colour, f"var({variable})") for colour, variable in VARIABLES.items()),
    ):
        svg = re.sub(pattern, replacement, svg, flags=re.S)
    return Html(f'<svg viewBox="{box and box[1]}" role="img" aria-label="{text(about)}">{svg}')


def as_image(colours: np.ndarray, about: str) -> Html:
    """Colours (height, width, 4) in [0, 1], red to opacity, as an <img> element of a page."""
    pixels = (255 * colours).round().astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    height, width = pixels.shape[:2]
    return Html(f'<img src="{source}" width="{width}" height="{height}" alt="{text(about)}">')
