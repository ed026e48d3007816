"""Gradient checking that says what is wrong."""

from .check import gradcheck
from .report import ArrayReport, Diagnosis, GradReport

__all__ = ["ArrayReport", "Diagnosis", "GradReport", "gradcheck"]
