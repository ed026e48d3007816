"""Options from a TOML file, on the command line, and printed."""

import tomllib
from dataclasses import asdict

import pytest
from training_runs import LENET, complaint

from minidl.train import main
from minidl.training import Settings, default_settings
from minidl.training.options import options_of


def printed(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--print-config"]) == 0
    return tomllib.loads(capsys.readouterr().out)


def test_printed_configuration_is_a_file_for_config(tmp_path, capsys):
    first = printed(capsys, "--arch", "vgg11", "--lr", "1e-7", "--data", 'folder:/a "b"\\c é')
    path = tmp_path / "run.toml"
    assert main(["--arch", "vgg11", "--lr", "1e-7", "--print-config"]) == 0
    path.write_text(capsys.readouterr().out)
    again = printed(capsys, "--config", str(path))
    assert again == first | {"data": "fashion-mnist-small"}
    assert first["lr"] == 1e-7
    assert first["data"] == 'folder:/a "b"\\c é'


def test_every_option_is_printed_and_on_the_command_line(capsys):
    assert main(["--arch", "lenet5", "--print-config"]) == 0
    text = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    usage = capsys.readouterr().out
    for name in options_of(Settings):
        assert f"{name} =" in text
        assert f"--{name.replace('_', '-')}" in usage


def test_command_line_comes_before_file_and_file_before_recipe(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text('arch = "lenet5"\nepochs = 3\nbatch-size = 16\n')
    values = printed(capsys, "--config", str(path), "--epochs", "4")
    assert (values["epochs"], values["batch_size"]) == (4, 16)
    assert values["lr"] == default_settings("lenet5").lr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('arhc = "lenet5"', "run.toml: arhc: unknown option; did you mean arch?"),
        ("epochs = 0", "epochs: expected a whole number >= 1, got 0"),
        ("epochs = true", "epochs: expected a whole number >= 1, got True"),
        ('epochs = "3"', "epochs: expected a whole number >= 1, got '3'"),
        ("lr = nan", "lr: expected a number > 0, got nan"),
        ('optimizer = "lion"', "optimizer: expected one of sgd, adam, adamw, rmsprop, got 'lion'"),
        ("in_channels = 2", "in_channels: expected one of 1, 3, got 2"),
        ("[train]\nepochs = 3", "train: unknown option; --help lists all "),
        ("foo = 3", "run.toml: foo: unknown option; --help lists all "),
        ("epochs = ", "run.toml: not a TOML file"),
        ("epochs = 1\nepochs = 2", "run.toml: not a TOML file"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, capsys, text, expected):
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert expected in complaint(capsys, *LENET, "--config", str(path))


def test_files_that_are_not_text(tmp_path, capsys):
    path = tmp_path / "run.toml"
    assert "cannot be read" in complaint(capsys, *LENET, "--config", str(path))
    assert "cannot be read" in complaint(capsys, *LENET, "--config", str(tmp_path))
    path.write_bytes(b"\xff\xfe\x00")
    assert "not a TOML file" in complaint(capsys, *LENET, "--config", str(path))
    path.write_text("a = " + "[" * 100_000)
    assert "not a TOML file" in complaint(capsys, *LENET, "--config", str(path))


def test_settings_survive_a_round_trip_through_plain_values():
    settings = default_settings("vgg11", epochs=3)
    assert Settings.from_plain(asdict(settings)) == settings
    with pytest.raises(ValueError, match="does not know: colour"):
        Settings.from_plain(asdict(settings) | {"colour": "red"})
