"""The sheet in docs/ shows everything that there is."""

import importlib.util
from pathlib import Path

import numpy as np

from minidl.data import PREPROCESSINGS, Augmentation, load
from minidl.data.augment import OPERATIONS

SCRIPT = Path(__file__).parents[1] / "docs" / "images" / "make_augmentations.py"


def load_script():
    spec = importlib.util.spec_from_file_location("make_augmentations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_augmentation_has_a_row_that_shows_it():
    sheet = load_script()
    texts = [text for text, _ in sheet.AUGMENTATIONS]
    assert {part.split(":")[0] for text in texts for part in text.split(",")} == set(OPERATIONS)
    split = load(channels=1).train
    for text in texts:
        small = sheet.SMALL.get(text, text)
        Augmentation.parse(small).check(32)
        if text != "colour:0:0:0.9":  # grey has no saturation
            shown = sheet.variants(split, small, 0)
            assert any(not np.array_equal(shown[0], variant) for variant in shown[1:]), text


def test_the_page_names_every_augmentation_and_preprocessing():
    page = (SCRIPT.parents[1] / "data.md").read_text()
    for name in (*OPERATIONS, *PREPROCESSINGS):
        assert f"`{name}" in page, name
