"""Runs as people look at them: figures of their curves and filters, and a page about them.

The figures are functions of their own, for notebooks and scripts; each returns a matplotlib figure.
`python -m minidl.report` makes the page.
"""

from .confusion import plot_confusion
from .curves import plot_epochs, plot_learning_rate, plot_steps
from .filters import plot_filters
from .run import Confusion, Run, read_run, read_runs

__all__ = [
    "Confusion",
    "Run",
    "plot_confusion",
    "plot_epochs",
    "plot_filters",
    "plot_learning_rate",
    "plot_steps",
    "read_run",
    "read_runs",
]
