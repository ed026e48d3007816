"""`--recipe`: the papers' numbers, their schedules, what is printed, and what comes first."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

import minidl as md
from minidl import models, optim
from minidl.counting.summary import parameters_without_values
from minidl.errors import MinidlError
from minidl.train import main
from minidl.training import default_settings
from minidl.training.initialisation import initialise
from minidl.training.optimization import make_schedule
from minidl.training.options import options_of
from minidl.training.recipe_text import describe_recipe
from minidl.training.recipes import Data, paper_recipe, paper_recipes, recipe_settings
from minidl.training.settings import BELONGING, Settings

DOCS = Path(__file__).parents[1] / "docs"
ARCHS = [arch for recipe in paper_recipes().values() for arch in recipe.archs]

# Batch, first rate, momentum, whether it is Nesterov's, weight decay, epochs: from the papers and
# the authors' programs. None where they do not say.
PUBLISHED = {
    "lenet5_orig": (1, 5e-4, 0, False, 0, 20),
    "alexnet": (128, 0.01, 0.9, False, 5e-4, 90),
    "zfnet": (128, 0.01, 0.9, False, None, 70),
    "vgg16": (256, 0.01, 0.9, False, 5e-4, 74),
    "googlenet": (None, None, 0.9, False, None, None),
    "inception_v3": (32, 0.045, None, False, None, 100),
    "nin_cifar10": (128, None, 0.9, False, None, None),
    "resnet50": (256, 0.1, 0.9, False, 1e-4, 120),
    "resnet20_cifar": (128, 0.1, 0.9, False, 1e-4, 164),
    "preresnet164_cifar": (128, 0.1, 0.9, False, 1e-4, 164),
    "preresnet200": (256, 0.1, 0.9, False, 1e-4, None),
    "wrn28_10": (128, 0.1, 0.9, True, 5e-4, 200),
    "resnext50_32x4d": (256, 0.1, 0.9, True, 1e-4, 100),
    "resnext29_8x64d": (128, 0.1, 0.9, True, 5e-4, 300),
    "stochdepth110_cifar": (128, 0.1, 0.9, True, 1e-4, 500),
    "stochdepth152_svhn": (128, 0.1, 0.9, True, 1e-4, 50),
    "fractalnet20_cifar": (100, 0.02, 0.9, False, None, 400),
    "densenet121": (256, 0.1, 0.9, True, 1e-4, 90),
    "densenet_bc_100_12_cifar": (64, 0.1, 0.9, True, 1e-4, 300),
    "squeezenet1_0": (512, 0.04, 0.9, False, 2e-4, 68),
    "mobilenet_v2": (96, 0.045, 0.9, False, 4e-5, None),
    "se_resnet50": (1024, 0.6, 0.9, False, 1e-4, 100),
}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_the_numbers_are_the_published_ones(arch):
    s = default_settings(arch, recipe="paper")
    found = (s.batch_size, s.lr, s.momentum, s.nesterov, s.weight_decay, s.epochs)
    for value, published in zip(found, PUBLISHED[arch], strict=True):
        assert published is None or value == published


def test_every_classifier_has_one_recipe_of_a_paper():
    assert sorted(ARCHS) == models.list_classifiers()
    with pytest.raises(MinidlError, match="inception_naive: there is no paper's recipe for it"):
        paper_recipe("inception_naive")


def test_the_papers_recipes_fit_their_networks():
    """All are options in their range that someone acts on, and weights and dropout are there."""
    for arch in ARCHS:
        settings = default_settings(arch, recipe="paper")
        for name, (choice, fitting) in BELONGING.items():
            if name in paper_recipe(arch).settings and name not in ("momentum", "nesterov"):
                assert getattr(settings, choice) in fitting, (arch, name)
        assert settings.batch_size % settings.accumulate == 0
        dropout = {} if settings.dropout is None else {"dropout": settings.dropout}
        with parameters_without_values():
            network = models.create(arch, image_size=settings.image_size, **dropout)
            initialise(network, settings.init)
        assert network.in_channels == settings.in_channels
        data = paper_recipe(arch).data
        assert network.num_classes == data.classes


@pytest.mark.parametrize("recipe", ["tiny", "cifar"])
def test_the_other_recipes_are_settings_too(recipe):
    for arch in models.list_classifiers():
        settings = default_settings(arch, recipe=recipe)
        assert settings.recipe == recipe
        assert recipe_settings(arch, recipe).keys() <= options_of(Settings).keys()


def rate_after(arch):
    """The learning rate of a paper's recipe as a function of the steps done on the paper's data."""
    settings = default_settings(arch, recipe="paper")
    steps_per_epoch = math.ceil(paper_recipe(arch).data.images / settings.batch_size)
    optimizer = optim.SGD([md.nn.Parameter(md.ones(1))], lr=settings.lr)
    schedule = make_schedule(settings, optimizer, steps_per_epoch)
    return steps_per_epoch, lambda step: schedule.lr_at(step, settings.lr)


def test_lenet_falls_after_passes_2_5_8_and_12():
    per_pass, rate = rate_after("lenet5_orig")
    table = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    for number, expected in enumerate(table):
        assert rate(number * per_pass) == pytest.approx(expected)
        assert rate((number + 1) * per_pass - 1) == pytest.approx(expected)


@pytest.mark.parametrize("arch", ["resnet56_cifar", "resnet110_cifar", "preresnet1001_cifar"])
def test_residual_networks_count_steps(arch):
    _, rate = rate_after(arch)
    first = 0.1 if arch == "resnet56_cifar" else 0.01
    for step, expected in (
        (0, first), (399, first), (400, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01),
        (48_000, 0.001), (63_999, 0.001),
    ):  # fmt: skip
        assert rate(step) == pytest.approx(expected), step


@pytest.mark.parametrize(
    ("arch", "formula"),
    [
        ("googlenet", lambda epoch: 0.01 * 0.96 ** (epoch // 8)),
        ("inception_v3", lambda epoch: 0.045 * 0.94 ** (epoch // 2)),
        ("mobilenet_v2", lambda epoch: 0.045 * 0.98**epoch),
        ("resnext101_64x4d", lambda epoch: 0.1 * 0.1 ** (epoch // 30)),
        ("se_resnet50", lambda epoch: 0.6 * 0.1 ** (epoch // 30)),
        ("densenet201", lambda epoch: 0.1 * 0.1 ** ((epoch >= 30) + (epoch >= 60))),
        (
            "wrn40_4",
            lambda epoch: 0.1 * 0.2 ** sum(epoch >= milestone for milestone in (60, 120, 160)),
        ),
        (
            "stochdepth110_cifar",
            lambda epoch: 0.1 * 0.1 ** ((epoch >= 0.5 * 500) + (epoch >= 0.75 * 500)),
        ),
        # A tenth whenever half of what was left at the last fall is over: four times.
        (
            "fractalnet20_cifar",
            lambda epoch: 0.02 * 0.1 ** min(4, math.floor(math.log2(400 / (400 - epoch)))),
        ),
    ],
)
def test_schedules_in_epochs(arch, formula):
    per_epoch, rate = rate_after(arch)
    for epoch in range(default_settings(arch, recipe="paper").epochs):
        for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
            assert rate(step) == pytest.approx(formula(epoch), rel=1e-9), epoch


def test_squeezenet_falls_linearly_to_zero():
    per_epoch, rate = rate_after("squeezenet1_1")
    assert 68 * per_epoch == pytest.approx(170_000, rel=0.01)
    for step in (0, 1, 50_000, 100_000, 169_000):
        assert rate(step) == pytest.approx(0.04 * (1 - step / (68 * per_epoch)))


def test_plateaus_end_after_the_papers_number_of_falls():
    for arch, falls in (("alexnet", 3), ("vgg19", 3), ("nin_cifar10", 2), ("resnet152", 3)):
        settings = default_settings(arch, recipe="paper")
        optimizer = optim.SGD([md.nn.Parameter(md.ones(1))], lr=settings.lr)
        schedule = make_schedule(settings, optimizer, 1)
        for _ in range(100):
            schedule.step(1.0)
        assert schedule.get_last_lr() == [pytest.approx(settings.lr / 10**falls)]


def test_another_optimizer_or_schedule_takes_the_recipes_options_with_it():
    cifar = default_settings("resnet20_cifar", recipe="cifar")
    assert (cifar.optimizer, cifar.lr, cifar.nesterov) == ("sgd", 0.1, True)
    adam = default_settings("resnet20_cifar", recipe="cifar", optimizer="adam")
    assert (adam.lr, adam.nesterov, adam.weight_decay) == (2e-3, False, 0.0)
    assert (adam.epochs, adam.augment) == (cifar.epochs, cifar.augment)
    cosine = default_settings("wrn40_1", recipe="paper", schedule="cosine")
    assert (cosine.milestones, cosine.gamma, cosine.lr) == (None, None, 0.1)
    same = default_settings("wrn40_1", recipe="paper", schedule="multistep", optimizer="sgd")
    assert same == default_settings("wrn40_1", recipe="paper")


def test_what_is_said_in_epochs_stretches_with_the_run():
    short = default_settings("wrn40_1", recipe="paper", epochs=50)
    assert short.milestones == (15.0, 30.0, 40.0)
    assert default_settings("googlenet", recipe="paper", epochs=30).step_size == 4
    assert default_settings("resnet20_cifar", recipe="cifar", epochs=40).warmup == 2
    given = default_settings("wrn40_1", recipe="paper", epochs=50, milestones=[5.0])
    assert given.milestones == (5.0,)


def test_scales_stretch_with_the_images():
    small = default_settings("vgg16", recipe="paper", image_size=32)
    assert small.augment == "scale:37:73, flip, pca-colour:0.1"
    same = default_settings("resnet20_cifar", recipe="paper", image_size=64)
    assert same.augment == "pad-crop:4, flip"
    given = default_settings("vgg16", recipe="paper", image_size=32, augment="scale:40:50")
    assert given.augment == "scale:40:50"


def test_recipe_then_file_then_command_line(tmp_path, capsys):
    file = tmp_path / "own.toml"
    file.write_text('recipe = "paper"\nlr = 0.3\nbatch-size = 32\n')
    command = ["--arch", "wrn40_1", "--config", str(file), "--lr", "0.4", "--print-config"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for line in ("lr = 0.4 ", "batch_size = 32 ", "weight_decay = 0.0005 ", "limit ="):
        assert line in printed
    again = tmp_path / "again.toml"
    again.write_text(printed)
    assert main(["--config", str(again), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_the_text_says_what_was_set_and_what_deviates():
    settings = default_settings("lenet5_orig", recipe="paper", epochs=2, data="fashion-mnist-small")
    text = describe_recipe(settings, Data("fashion-mnist-small", 5000, 10))
    lines = text.splitlines()
    assert lines[0].startswith("recipe paper: LeCun, Bottou, Bengio, Haffner")
    words = " ".join(text.split())
    assert "optimizer sgd; lr 0.0005; momentum 0; nesterov no" in words
    assert "milestones 2,5,8,12" in words
    assert "fashion-mnist-small (5,000 images, 10 classes) instead of MNIST (60,000 images" in words
    assert "- epochs 2 instead of 20" in words
    assert "- milestones 0.2,0.5,0.8,1.2 instead of 2,5,8,12" in words
    assert "stochastic diagonal Levenberg-Marquardt" in words
    assert " lr " not in words.partition("deviates")[2]


def test_nothing_but_substitutes_deviates_on_the_papers_data():
    for recipe in paper_recipes().values():
        for arch in recipe.archs[:1]:
            settings = default_settings(arch, recipe="paper")
            text = describe_recipe(settings, recipe.data)
            assert max(map(len, text.splitlines())) <= 80
            assert text.count("\n  - ") == len(recipe.substitutes)


def test_the_cifar_recipe_says_what_options_changed():
    settings = default_settings("resnet20_cifar", recipe="cifar", lr=0.2)
    text = describe_recipe(settings, Data("CIFAR-10", 50_000, 10))
    assert text.startswith("recipe cifar\n")
    assert text.endswith("changed by options:\n  - lr 0.2 instead of 0.1")


def test_the_page_is_current():
    spec = importlib.util.spec_from_file_location("recipes_page", DOCS / "recipes.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    _, marker, written = (DOCS / "recipes.md").read_text().partition(script.BEGIN)
    assert marker + written == script.page(), "run python docs/recipes.py"


def run_dry(capsys, arch, *options):
    """The lines that `--recipe paper --dry-run` prints."""
    assert main(["--arch", arch, "--recipe", "paper", "--dry-run", *options]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return output.splitlines()


def test_a_dry_run_needs_no_data(capsys):
    lines = run_dry(capsys, "squeezenet1_1")
    assert lines[0].endswith("input 3x227x227, 1000 classes")
    assert lines[1] == "random images in place of ImageNet (ILSVRC 2012): 2 + 2 images (227 x 227)"
    assert "of a batch of 512 images, computed in 16 parts, 2 are looked at here" in lines
    assert any(line.split()[-1:] == ["2x3x227x227"] for line in lines)
    assert lines[-1].startswith("one step of 2 images: ")
    assert max(map(len, lines)) <= 80


def test_a_dry_run_takes_the_data_and_the_batch_that_are_given(capsys):
    lines = run_dry(
        capsys, "lenet5", "--data", "fashion-mnist-small", "--limit", "40", "--batch-size", "20"
    )
    assert lines[1].startswith("fashion-mnist-small: 5,000 + 1,000 images")
    assert lines[-1].startswith("one step of 20 images: ")
    text = json.dumps(lines)
    assert "batch-size 20 instead of 1" in text
    assert "are looked at here" not in text
