"""Every architecture has the counts and shapes of the reference, in `data/architectures.json`."""

import json
from pathlib import Path

import pytest

from minidl.counting import summary_of
from minidl.counting.table import size_text
from minidl.models import list_models

ARCHITECTURES = json.loads(
    Path(__file__).with_name("data").joinpath("architectures.json").read_text(encoding="utf-8")
)

# The reference counts these with the heads that only training has.
WITH_TRAINING_HEADS = {"googlenet_aux"}


def test_every_network_of_the_reference_is_there():
    assert len(ARCHITECTURES) == 92
    assert set(ARCHITECTURES) <= set(list_models())


def assert_in_this_order(expected, found):
    """Every entry of `expected` is among `found`, each behind the one before."""
    remaining = iter(found)
    for entry in expected:
        assert entry in remaining, f"{entry} is not among {found} in the order of {expected}"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_counts_and_shapes_are_those_of_the_reference(name):
    expected = ARCHITECTURES[name]
    counted = summary_of(name, training=name in WITH_TRAINING_HEADS)
    assert list(counted.input_shape) == expected["input"]
    assert counted.params == expected["params"]
    assert counted.weights == expected["weights"]
    assert counted.macs == expected["macs"]
    if "layers" in expected:  # each layer of the reference has its module here
        found = [(size_text(m.shape), m.params, m.macs) for m in counted.modules]
        assert_in_this_order([tuple(entry) for entry in expected["layers"]], found)
    else:
        found = [size_text(m.shape) for m in counted.modules]
        assert_in_this_order([shape for shape, _, _ in expected.get("stages", [])], found)


def test_side_heads_are_counted_in_training():
    expected = ARCHITECTURES["googlenet_tv_aux"]["macs_with_aux"]
    assert summary_of("googlenet_tv_aux", training=True).macs == expected
