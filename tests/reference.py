"""The reference that counts are compared with, and which of its networks there are."""

import json
from pathlib import Path

from minidl.models import list_models

ARCHITECTURES = json.loads(
    Path(__file__).with_name("data").joinpath("architectures.json").read_text(encoding="utf-8")
)

# Networks of the reference that are not written yet. A test checks that this set is exact.
MISSING: set[str] = set()


def is_present(reference_id: str) -> bool:
    """Whether it is in the registry."""
    return reference_id in list_models()


def size(shape: tuple[int, ...]) -> str:
    """(C, H, W) as "HxWxC", (features,) as "features"."""
    return "x".join(map(str, (*shape[1:], shape[0]) if len(shape) == 3 else shape))
