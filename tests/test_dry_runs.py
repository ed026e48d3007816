"""`python -m minidl.train --arch NAME --dry-run`, and with `--recipe paper` for every network."""

import math
import re

import pytest

from minidl import models
from minidl.train import main

# One or two a family, and those that take or give something else than the others do.
QUICK = (
    "densenet_40_12_cifar", "fractalnet_thin_c2", "googlenet_aux", "inception_naive",
    "inception_reduced", "lenet5", "lenet5_orig", "mobilenet_v2", "nin_cifar10", "plain20_cifar",
    "preresnet110_cifar", "resnet20_cifar", "squeezenet1_1", "stochdepth110_cifar", "wrn40_1",
)  # fmt: skip
# In MB: what one dry run may take, and so all of them one after the other.
MEMORY = 4000


def check_dry_run(capsys, *command):
    """A few images through a network, forth and back: a table that fits a terminal, and a loss."""
    assert main([*command, "--dry-run"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    last = re.fullmatch(r"one step of (?:1 image|2 images): .* images/s\), loss (\S+)", lines[-1])
    assert last is not None, lines[-1]
    assert math.isfinite(float(last[1]))
    memory = re.fullmatch(r"peak memory of the process ([\d,.]+) MB", lines[-2])
    assert memory is not None, lines[-2]
    return float(memory[1].replace(",", ""))


def test_one_image_is_not_images(capsys):
    check_dry_run(capsys, "--arch", "lenet5", "--batch-size", "1")


@pytest.mark.parametrize("arch", QUICK)
def test_dry_run(capsys, arch):
    check_dry_run(capsys, "--arch", arch, "--batch-size", "2")


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(set(models.list_models()) - set(QUICK)))
def test_dry_run_of_the_larger_ones(capsys, arch):
    check_dry_run(capsys, "--arch", arch, "--batch-size", "2")


@pytest.mark.slow
@pytest.mark.parametrize("arch", models.list_classifiers())
def test_dry_run_of_the_papers_recipe(capsys, arch):
    """At the paper's size, and without its data."""
    assert check_dry_run(capsys, "--arch", arch, "--recipe", "paper") < MEMORY
