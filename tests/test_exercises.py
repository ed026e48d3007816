"""The exercises themselves: stubs, solutions, planted mistakes."""

import pytest

from minidl.exercises.__main__ import main
from minidl.exercises.catalogue import EXERCISES
from minidl.exercises.selfcheck import faults, misnamed


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_keeps_what_it_promises(name: str) -> None:
    assert list(faults(EXERCISES[name], seeds=2)) == []


@pytest.mark.parametrize("name", EXERCISES)
def test_every_planted_mistake_fails_and_is_named(name: str) -> None:
    assert list(misnamed(EXERCISES[name])) == []


def test_there_are_twenty_exercises_and_mistakes_enough() -> None:
    assert [exercise.number for exercise in EXERCISES.values()] == list(range(1, 21))
    assert sum(len(exercise.mistakes) for exercise in EXERCISES.values()) >= 60


@pytest.mark.slow
def test_dev_check_finds_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """20 seeds each, in learners' folders where only the exercises before are done."""
    status = main(["dev-check"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert out.count("sound") == 20
