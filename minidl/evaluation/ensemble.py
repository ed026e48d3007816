"""One or several networks judge the same images, and their probabilities are averaged.

The ensembles of the ImageNet challenges average softmax probabilities: Krizhevsky et al., NIPS
2012, section 6 (5 networks); Szegedy et al., CVPR 2015, section 7 (7 networks).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Split
from ..errors import DataError, MinidlError
from ..nn import Module
from .candidates import Candidate
from .predict import Progress, chosen, predict
from .protocols import Protocol

Begin = Callable[[Candidate, Module, Split], Progress]


@dataclass(frozen=True)
class Judgement:
    """What one or several networks said about the same images.

    Attributes:
        probabilities: (N, outputs) float64.
        labels: (N,) int64.
        classes: a name for each output; a number where the data have no class for it.
        image_sizes: the side of the images that each network took.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    image_sizes: tuple[int, ...]


def judge(
    candidates: Sequence[Candidate],
    protocol: Protocol,
    limit: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    begin: Begin | None = None,
) -> Judgement:
    """Let the networks predict one after the other, each with images as it takes them; average.

    `begin` is called with each candidate when it is open, with its network and its test images;
    what it returns is told of the progress. The other arguments are those of `predict`.

    Raises:
        MinidlError: a network cannot be opened or evaluated, or has other outputs or other test
            images than the first; the text names its file.
    """
    check_comparable(candidates)
    total: np.ndarray = np.zeros(())
    classes: tuple[str, ...] = ()
    labels = np.empty(0, np.int64)
    sizes: list[int] = []
    for candidate in candidates:
        model, split = candidate.open(device)
        shown = split.labels[chosen(split, limit)]
        if not sizes:
            classes, labels = split.classes, shown
        if split.classes != classes or not np.array_equal(shown, labels):
            raise MinidlError(f"{candidate.path}: has other test images than {candidates[0].path}")
        sizes.append(split.image_size)
        try:
            progress = None if begin is None else begin(candidate, model, split)
            total = total + predict(model, split, protocol, limit, batch_size, device, progress)
        except DataError:  # which names the file of an image
            raise
        except (MinidlError, ValueError) as error:
            raise MinidlError(f"{candidate.path}: {error}") from error
    names = (*classes, *map(str, range(len(classes), total.shape[1])))
    return Judgement(total / len(candidates), labels, names, tuple(sizes))


def check_comparable(candidates: Sequence[Candidate]) -> None:
    """Raise MinidlError unless the networks were trained for the same classes.

    It looks at their settings alone, before anything long begins.
    """
    first = candidates[0]
    for other in candidates[1:]:
        for name, advice in (
            ("data", "; --data can say what to take for all"),
            ("num_classes", ""),
        ):
            ours, theirs = (getattr(c.settings, name) for c in (first, other))
            if ours != theirs:
                raise MinidlError(
                    f"{other.path}: {name.replace('_', '-')} is {theirs}, expected {ours} as of "
                    f"{first.path}{advice}"
                )
