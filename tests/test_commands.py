"""What minidl's commands have in common: they are listed, and complain in one way."""

import importlib
import re
from pathlib import Path

import pytest
from training_runs import refusal

import minidl as md
from minidl import doctor
from minidl.__main__ import COMMANDS
from minidl.__main__ import main as list_commands

PACKAGE = Path(md.__file__).parent
MODULES = {
    "exercises": "minidl.exercises.__main__",
    "experiments": "minidl.experiments.__main__",
}


def main_of(name):
    return importlib.import_module(MODULES.get(name, f"minidl.{name}")).main


def test_every_command_is_listed_in_a_line_of_80(capsys):
    with_main = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__main__.py")]
    started = [path for path in with_main if 'if __name__ == "__main__"' in path.read_text()]
    names = {p.parent.name if p.stem == "__main__" else p.stem for p in started} - {"minidl"}
    assert names == set(COMMANDS)
    assert list_commands([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.match(r"python -m minidl\.(\w+)  +\w", line)[1] for line in lines] == [*COMMANDS]
    assert max(map(len, lines)) <= 80


def test_the_experiments_are_listed_in_lines_of_80(capsys):
    assert main_of("experiments")([]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_long_list_of_choices_is_left_to_the_help(capsys):
    assert refusal(main_of("exercises"), capsys, "foo") == (
        "minidl.exercises: argument COMMAND: invalid choice: 'foo' (see --help)"
    )
    assert "stacks" in refusal(main_of("experiments"), capsys, "stack")  # a list that is short


@pytest.mark.parametrize("name", COMMANDS)
def test_all_complain_in_one_way(name, capsys):
    assert refusal(main_of(name), capsys, "--frobnicate").startswith(f"minidl.{name}: ")
    with pytest.raises(SystemExit) as stopped:
        main_of(name)(["--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m minidl.{name}")


def test_an_error_found_later_looks_like_one_of_the_options(capsys, tmp_path):
    late = refusal(main_of("train"), capsys, "--arch", "lenet5", "--data", f"mnist:{tmp_path}/no")
    assert late == f"minidl.train: mnist: {tmp_path}/no does not exist"
    nowhere = ("--data", f"mnist:{tmp_path}/no")
    late = refusal(main_of("experiments"), capsys, "activations", *nowhere)
    assert late == f"minidl.experiments: mnist: {tmp_path}/no does not exist"
    early = refusal(main_of("train"), capsys, "--arch", "lenet5", "--epochs", "no")
    assert early == (
        "minidl.train: argument --epochs: expected a whole number >= 1, got 'no' (see --help)"
    )


def test_the_doctor_refuses_what_it_does_not_know_before_it_looks(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "collect_config", lambda: ({}, ["no compiler"]))
    monkeypatch.setattr(doctor, "show_config", lambda: print("shown"))
    assert doctor.main([]) == 1
    assert capsys.readouterr().out == "shown\n"
    assert "unrecognized arguments: foo" in refusal(doctor.main, capsys, "foo")
    assert "unrecognized arguments: train" in refusal(list_commands, capsys, "train")
