"""The reference that counts are compared with, and which of its networks there are."""

import json
from pathlib import Path

from minidl.models import list_models

ARCHITECTURES = json.loads(
    Path(__file__).with_name("data").joinpath("architectures.json").read_text(encoding="utf-8")
)

# Networks that the registry knows by another name than the reference.
REGISTERED_AS = {"alexnet_owt": "alexnet"}

# Networks of the reference that are not written yet. A test checks that this set is exact.
MISSING = {
    "alexnet",
    "alexnet_groups2",
    "inception_v3",
    "inception_v3_aux",
}


def registered(reference_id: str) -> str:
    """The name in the registry of a network of the reference."""
    return REGISTERED_AS.get(reference_id, reference_id)


def is_present(reference_id: str) -> bool:
    """Whether it is in the registry, and not only another network under its name."""
    another = reference_id in REGISTERED_AS.values() and reference_id not in REGISTERED_AS
    return registered(reference_id) in list_models() and not another


def size(shape: tuple[int, ...]) -> str:
    """(C, H, W) as "HxWxC", (features,) as "features"."""
    return "x".join(map(str, (*shape[1:], shape[0]) if len(shape) == 3 else shape))
