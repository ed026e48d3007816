"""Every architecture has the counts and shapes of the reference, in `data/architectures.json`."""

import pytest
from reference import ARCHITECTURES, MISSING, is_present, size

from minidl.counting import summary_of

# The reference counts these with the heads that only training has.
WITH_TRAINING_HEADS = {"googlenet_aux"}


def test_the_reference_is_complete_but_for_those_listed_as_missing():
    assert {name for name in ARCHITECTURES if not is_present(name)} == MISSING


def assert_in_this_order(expected, found):
    """Every entry of `expected` is among `found`, each behind the one before."""
    remaining = iter(found)
    for entry in expected:
        assert entry in remaining, f"{entry} is not among {found} in the order of {expected}"


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if is_present(name)])
def test_counts_and_shapes_are_those_of_the_reference(name):
    expected = ARCHITECTURES[name]
    counted = summary_of(name, training=name in WITH_TRAINING_HEADS)
    assert list(counted.input_shape) == expected["input"]
    assert counted.params == expected["params"]
    assert counted.weights == expected["weights"]
    assert counted.macs == expected["macs"]
    if "layers" in expected:  # each layer of the reference has its module here
        found = [(size(module.shape), module.params, module.macs) for module in counted.modules]
        assert_in_this_order([tuple(entry) for entry in expected["layers"]], found)
    else:
        found = [size(module.shape) for module in counted.modules]
        assert_in_this_order([shape for shape, _, _ in expected.get("stages", [])], found)


def test_side_heads_are_counted_in_training():
    expected = ARCHITECTURES["googlenet_tv_aux"]["macs_with_aux"]
    assert summary_of("googlenet_tv_aux", training=True).macs == expected
