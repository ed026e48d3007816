"""Weights files: safetensors and `.npz` both ways, PyTorch's checkpoints in."""

from .weights import load, save

__all__ = ["load", "save"]
