"""`python -m minidl.train --arch NAME --dry-run` for every name in the registry."""

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
OTHERS = sorted(set(models.list_models()) - set(QUICK))


def check_dry_run(capsys, arch):
    """Two images through `arch`, forth and back: a table that fits a terminal, and a loss."""
    assert main(["--arch", arch, "--dry-run", "--batch-size", "2"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    last = re.fullmatch(r"one step of 2 images: .* images/s\), loss (\S+)", lines[-1])
    assert last is not None, lines[-1]
    assert math.isfinite(float(last[1]))


@pytest.mark.parametrize("arch", QUICK)
def test_dry_run(capsys, arch):
    check_dry_run(capsys, arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", OTHERS)
def test_dry_run_of_the_larger_ones(capsys, arch):
    check_dry_run(capsys, arch)
