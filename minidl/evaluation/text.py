"""What an evaluation prints: the accuracy of each class, and the line that sums it up."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .metrics import Scores
from .protocols import Protocol

# Of more classes only those with the lowest accuracy are shown.
MOST_CLASSES = 20
LONGEST_NAME = 20


def class_table(confusion: np.ndarray, names: Sequence[str]) -> list[str]:
    """Lines for people: images, accuracy and the commonest mistake of each class that has images.

    >>> for line in class_table(np.array([[5, 1], [0, 6]]), ["cat", "dog"]):
    ...     print(line)
    class  images  correct  accuracy  most often taken for
    cat         6        5    83.33%  dog (1)
    dog         6        6   100.00%
    """
    images, correct = confusion.sum(axis=1), confusion.diagonal()
    present = np.flatnonzero(images)
    left_out = len(present) - MOST_CLASSES if len(present) > MOST_CLASSES else 0
    if left_out:
        worst = np.argsort(correct[present] / images[present], kind="stable")
        present = present[worst[:MOST_CLASSES]]
    shown: list[int] = present.tolist()
    width = max(5, *(len(_short(names[index])) for index in shown))
    lines = [f"{'class':{width}}  images  correct  accuracy  most often taken for"]
    for index in shown:
        mistakes = confusion[index] * (np.arange(len(confusion)) != index)
        other = int(mistakes.argmax())
        mistake = f"  {_short(names[other])} ({mistakes[other]:,})" if mistakes[other] else ""
        lines.append(
            f"{_short(names[index]):{width}}  {images[index]:6,}  {correct[index]:7,}"
            f"  {correct[index] / images[index]:8.2%}{mistake}"
        )
    if left_out:
        lines.append(f"and {left_out:,} classes that are no worse (all of them: --json FILE)")
    return lines


def _short(name: str) -> str:
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def summary_line(
    scores: Scores, protocol: Protocol, image_sizes: Sequence[int], paths: Sequence[Path]
) -> str:
    """The last line: the figures, and which protocol and which checkpoints gave them.

    >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> scores = Scores.of(probabilities, np.array([0, 1]))
    >>> summary_line(scores, Protocol("5-crop"), [32], [Path("best.safetensors")])
    'top-1 50.00%, loss 0.5108 (2 images): 5-crop of 32 out of 37; checkpoint best.safetensors'
    """
    top5 = "" if scores.top5 is None else f", top-5 {scores.top5:.2%}"
    how = " and ".join(dict.fromkeys(map(protocol.describe, image_sizes)))
    which = f"checkpoint {paths[0]}"
    if len(paths) > 1:
        which = f"mean of {len(paths)} checkpoints {', '.join(map(str, paths))}"
    return (
        f"top-1 {scores.top1:.2%}{top5}, loss {scores.loss:#.4g} ({scores.images:,} images): "
        f"{how}; {which}"
    )
