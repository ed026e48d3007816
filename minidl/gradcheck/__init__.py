"""Gradient checking that says what is wrong.

Read `check.py` first; it uses, from the bottom up,

- `subject.py`: what is checked, a function of Tensors or a pair of array functions;
- `numeric.py`, `kinks.py`: slopes, and places that have two;
- `compare.py`: analytic against numeric;
- `probes.py`: what must hold of every backward pass;
- `report.py`, `text.py`, `drawing.py`: what came out;
- `second.py`: second derivatives;
- `patterns.py`, `diagnosis.py`, `ladder.py`, `bank/`: what the mistake probably is.
"""

from .check import gradcheck
from .diagnosis import Mistake
from .ladder import Rung, check_ladder
from .patterns import Diagnosis, Hints, describe
from .report import ArrayReport, GradReport
from .second import gradgradcheck

__all__ = [
    "ArrayReport",
    "Diagnosis",
    "GradReport",
    "Hints",
    "Mistake",
    "Rung",
    "check_ladder",
    "describe",
    "gradcheck",
    "gradgradcheck",
]
