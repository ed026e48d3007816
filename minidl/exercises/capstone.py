"""The capstone: LeNet made of the learner's own functions learns 64 images by heart."""

import ast
import inspect
from types import ModuleType

import numpy as np

from .. import data
from .catalogue import EXERCISES
from .tasks import lenet
from .verdict import PASSED, WRONG, Verdict

NAME = "capstone"
FILE = "lenet.py"
TITLE = "LeNet from your own functions"
SECONDS = 120.0
IMAGES = 64


def source() -> str:
    """The learner's lenet.py, which imports their answers."""
    return inspect.getsource(lenet).replace("\nfrom .e", "\nfrom e")


def uses() -> tuple[str, ...]:
    """The exercises whose answers it calls.

    >>> uses()[:3]
    ('linear_backward', 'relu_backward', 'softmax_xent')
    """
    imports = [node for node in ast.parse(source()).body if isinstance(node, ast.ImportFrom)]
    named = [alias.name for node in imports for alias in node.names]
    return tuple(name for name in named if name in EXERCISES)


def images() -> tuple[np.ndarray, np.ndarray]:
    """The first 64 of the embedded training images, (64, 1, 28, 28), normalised; their labels."""
    split = data.load(channels=1, image_size=28).train
    pixels, labels = split.batch(np.arange(IMAGES))[:2]
    return np.asarray(pixels, dtype=np.float64), np.asarray(labels)


def judge(module: ModuleType, x: np.ndarray, y: np.ndarray) -> Verdict:
    """Train the learner's network."""
    losses, known = module.train(x, y)
    curve = ", ".join(f"{loss:.3f}" for loss in losses[:: max(1, len(losses) // 6)])
    details = [f"Mean loss on the way: {curve}. Knowing nothing is log 10 = 2.303."]
    if known == len(y):
        headline = f"your LeNet knows all {known} images after {len(losses)} rounds through them"
        return Verdict(NAME, PASSED, headline, details)
    headline = f"after {len(losses)} rounds it knows {known} of {len(y)} images"
    return Verdict(NAME, WRONG, headline, details)
