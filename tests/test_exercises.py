"""The exercises themselves: stubs, solutions, planted mistakes."""

import pytest

from minidl.exercises.catalogue import EXERCISES
from minidl.exercises.selfcheck import faults, misnamed


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_keeps_what_it_promises(name: str) -> None:
    assert list(faults(EXERCISES[name], seeds=2)) == []


@pytest.mark.parametrize("name", EXERCISES)
def test_every_planted_mistake_fails_and_is_named(name: str) -> None:
    assert list(misnamed(EXERCISES[name])) == []
