"""Counting networks: shapes, parameters, multiply-accumulates, memory, receptive fields."""

from .summary import LayerCount, Summary, summary, summary_of
from .windows import conv_output_size, receptive_field

__all__ = [
    "LayerCount",
    "Summary",
    "conv_output_size",
    "receptive_field",
    "summary",
    "summary_of",
]
