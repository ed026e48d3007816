"""The onnx package, imported when it is needed: minidl works without it."""

from __future__ import annotations

from typing import Any

from ..errors import MinidlError


class OnnxError(MinidlError):
    """A network cannot be written as ONNX, or an ONNX file not be read; the text says why."""


def onnx_package() -> Any:
    """The module `onnx`.

    Raises:
        OnnxError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise OnnxError("ONNX needs the package onnx: pip install 'minidl[onnx]'") from error
    return onnx
