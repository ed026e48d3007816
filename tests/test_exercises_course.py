"""Course folders for lecturers, and grading of what comes back."""

import json
from pathlib import Path

import pytest

from minidl.exercises.__main__ import main
from minidl.exercises.catalogue import EXERCISES
from minidl.exercises.course import SETTINGS
from minidl.exercises.sources import answer, stub

GRADED = ("linear_backward", "conv_out_size", "im2col")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course in which three exercises give points."""
    folder = tmp_path / "course"
    assert main(["export-course", str(folder)]) == 0
    settings = json.loads((folder / SETTINGS).read_text())
    assert settings["points"] == dict.fromkeys(EXERCISES, 1.0)
    settings["points"] = {"linear_backward": 2, "conv_out_size": 0, "im2col": 3}
    settings["seeds"] = settings["seeds"][:2]
    (folder / SETTINGS).write_text(json.dumps(settings))
    return folder


def submit(folder: Path, **texts: str) -> None:
    """One student's folder."""
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / EXERCISES[name].file).write_text(text)


def test_students_get_stubs_and_nothing_else(course: Path) -> None:
    files = {file.name: file.read_text() for file in (course / "students").iterdir()}
    assert set(files) == {exercise.file for exercise in EXERCISES.values()} | {"lenet.py"}
    for exercise in EXERCISES.values():
        assert files[exercise.file] == stub(exercise)
        assert files[exercise.file].endswith("    raise NotImplementedError\n")


def test_two_courses_draw_different_seeds(course: Path, tmp_path: Path) -> None:
    assert main(["export-course", str(tmp_path / "other")]) == 0
    seeds = [json.loads((f / SETTINGS).read_text())["seeds"] for f in (course, tmp_path / "other")]
    assert not set(seeds[0]) & set(seeds[1])


def test_a_class_is_graded_by_one_command(
    course: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear, im2col = EXERCISES["linear_backward"], EXERCISES["im2col"]
    submit(tmp_path / "in/ada", linear_backward=answer(linear), im2col=answer(im2col))
    # Its own conv_out_size is wrong, which is not held against im2col.
    submit(tmp_path / "in/ben", conv_out_size="x = 1", im2col=answer(im2col))
    (tmp_path / "in/ben" / linear.file).mkdir()
    wrong = answer(linear).replace("d.sum(axis=0)", "d.mean(axis=0)")
    submit(tmp_path / "in/cy", linear_backward=wrong, im2col="import minidl")
    command = ["grade", str(tmp_path / "in"), "--course", str(course), "--jobs", "2"]
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["ada", "5", "of", "5"],
        ["ben", "3", "of", "5"],
        ["cy", "0", "of", "5"],
    ]
    everything = json.loads((tmp_path / "out/class.json").read_text())
    cy = everything["submissions"][2]
    assert [entry["status"] for entry in cy["exercises"]] == ["wrong", "forbidden"]
    assert cy["exercises"][0]["mistakes"] == ["db-averaged"]
    assert cy["exercises"][0]["ladder"]
    results = json.loads((tmp_path / "out/cy/results.json").read_text())
    assert results["score"] == 0
    first = results["tests"][0]
    assert (first["name"], first["number"], first["max_score"]) == ("linear_backward", "4", 2)
    assert first["status"] == "failed"
    assert "db is averaged over the batch" in first["output"]
    assert "a batch" not in first["output"].replace("the batch", "")


def test_a_single_submission_as_gradescope_runs_it(course: Path, tmp_path: Path) -> None:
    submit(tmp_path / "submission", linear_backward=answer(EXERCISES["linear_backward"]))
    command = ["grade", str(tmp_path / "submission"), "--single", "--course", str(course)]
    assert main([*command, "--out", str(tmp_path / "results")]) == 0
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["score"] == 2
    assert [test["score"] for test in results["tests"]] == [2, 0]
    assert "there is no e09_im2col.py" in results["tests"][1]["output"].lower()


def test_what_cannot_be_graded_is_one_line(
    course: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / SETTINGS).write_text('{"seeds": []}')
    out = ["--out", str(tmp_path / "out")]
    for command, words in [
        (["export-course", str(course)], "is not empty"),
        (["grade", str(tmp_path / "empty"), "--course", str(course), *out], "holds no folders"),
        (["grade", "/nowhere", "--course", str(course), *out], "/nowhere is no folder"),
        (["grade", str(tmp_path), "--course", str(tmp_path), *out], "has no grading.json"),
        (["grade", str(tmp_path), "--course", str(tmp_path / "broken"), *out], "cannot be read"),
        (["grade", str(tmp_path), "--course", str(course), "--jobs", "0", *out], "at least 1"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            main(command)
        assert exit_info.value.code == 2
        assert words in capsys.readouterr().err
