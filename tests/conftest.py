"""What all tests share: the hypothesis profile, and the oracles PyTorch and ONNX Runtime."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

# Workers side by side (pytest -n) share the cores; said before anything starts OpenMP.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

os.environ["COLUMNS"] = "80"  # whatever terminal the tests are started from

import pytest
from cuda_backend import cuda, thread_order  # noqa: F401  fixtures
from hypothesis import HealthCheck, settings

settings.register_profile(
    "minidl",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("MINIDL_TEST_EXAMPLES", "40")),  # of each property test
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("minidl")


def oracle() -> ModuleType:
    """PyTorch, to compare with; without it the test is skipped, but fails where CI=true."""
    return _optional("torch", "PyTorch")


def onnx_runtime(model: Any, inputs: dict[str, Any]) -> list[Any]:
    """What ONNX Runtime computes for a model, a protobuf message or a file's path."""
    runtime = _optional("onnxruntime", "ONNX Runtime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def _optional(package: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"CI must run the comparisons with {name}, but {package} is not installed")
        pytest.skip(f"{package} is not installed: no comparison with {name}")
