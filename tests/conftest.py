"""What all tests share: the hypothesis profile and the PyTorch oracle."""

import importlib
import os
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "minidl",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("minidl")


def oracle() -> ModuleType:
    """PyTorch, to compare with; without it the test is skipped, but fails where CI=true."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("CI must run the comparisons with PyTorch, but torch is not installed")
        pytest.skip("torch is not installed: no comparison with PyTorch")
