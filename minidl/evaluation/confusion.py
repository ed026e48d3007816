"""The confusion matrix as a file: a table (CSV) or a picture (PNG)."""

import importlib.util
from pathlib import Path

from ..errors import MinidlError
from ..io.files import replace_file
from ..reporting import Confusion, plot_confusion
from ..reporting.figures import as_png
from ..reporting.run import write_confusion


def save_confusion(path: Path, confusion: Confusion) -> None:
    """Write a confusion matrix as `.csv`, or as `.png` with matplotlib; rows are true classes.

    Raises:
        MinidlError: the file cannot be written; an older one of that name is unchanged.

    >>> import tempfile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "confusion.csv"
    >>> save_confusion(path, Confusion(("cat", "dog"), np.array([[5, 1], [0, 6]])))
    >>> path.read_text().splitlines()[1:]
    ['"cat",5,1', '"dog",0,6']
    """
    check_confusion_path(path)
    try:
        if path.suffix == ".csv":
            write_confusion(path, confusion)
        else:
            content = as_png(plot_confusion(confusion))
            replace_file(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise MinidlError(f"{path}: cannot be written ({error.strerror})") from error


def check_confusion_path(path: Path) -> None:
    """Raise MinidlError where `save_confusion` could not make a file of that kind."""
    if path.suffix not in (".csv", ".png"):
        raise MinidlError(f"{path}: a confusion matrix is written as .csv or .png")
    if path.suffix == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise MinidlError(
            f"{path}: a picture needs matplotlib: pip install matplotlib, or use .csv"
        )
