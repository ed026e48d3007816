"""ONNX, the exchange format of networks: `md.onnx.export` writes it, `md.onnx.load` runs it."""

from .export import export
from .load import OnnxModel, load
from .package import OnnxError

__all__ = ["OnnxError", "OnnxModel", "export", "load"]
