"""How good probabilities are: top-k, loss, accuracy of each class, confusion matrix."""

from dataclasses import dataclass

import numpy as np


def ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place (N,) int64 of each image's label, 0 for the best; ties go to the lower class.

    Rank 0 is where `argmax` finds the label; an image counts in top-k if its rank is below k.

    >>> ranks(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1])).tolist()
    [1, 1]
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]  # (N, 1)
    lower = np.arange(probabilities.shape[1]) < labels[:, None]  # (N, classes)
    return ((probabilities > own) | ((probabilities == own) & lower)).sum(axis=1)


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The part of the images whose label is among the k most probable classes.

    >>> p = np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]])
    >>> top_k(p, np.array([2, 2]), 1), top_k(p, np.array([2, 2]), 2)
    (0.0, 0.5)
    """
    return float((ranks(probabilities, labels) < k).mean())


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -log(probability of the label); a probability of 0 counts as the least above it.

    >>> round(log_loss(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0])), 4)
    0.3466
    """
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (classes, classes) int64: row i, column j for images of class i taken for j.

    >>> confusion_matrix(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])).tolist()
    [[1, 0], [1, 0]]
    """
    classes = probabilities.shape[1]
    pairs = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Scores:
    """All of it for one set of images.

    `top5` is None where there are at most five classes: it would say nothing. `confusion` is
    (classes, classes).
    """

    images: int
    top1: float
    top5: float | None
    loss: float
    confusion: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> "Scores":
        """The scores of probabilities (N, classes) against labels (N,)."""
        return cls(
            images=len(labels),
            top1=top_k(probabilities, labels, 1),
            top5=top_k(probabilities, labels, 5) if probabilities.shape[1] > 5 else None,
            loss=log_loss(probabilities, labels),
            confusion=confusion_matrix(probabilities, labels),
        )
