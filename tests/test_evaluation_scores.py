"""Figures: top-k, loss and confusion matrix against sorting and counting by hand; their table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.errors import MinidlError
from minidl.evaluation import Protocol, Scores, confusion_matrix, top_k
from minidl.evaluation.confusion import save_confusion
from minidl.evaluation.text import class_table, summary_line
from minidl.reporting import Confusion
from minidl.reporting.run import read_confusion


@given(
    count=st.integers(1, 30),
    classes=st.integers(1, 9),
    levels=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_scores_are_those_of_sorting_and_counting(count, classes, levels, seed):
    """With few levels many probabilities are equal; the lower class then comes first."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(1, levels + 1, (count, classes)) / levels
    labels = rng.integers(0, classes, count)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    for k in (1, 2, 5, 9):
        found = top_k(probabilities, labels, k)
        assert found == np.mean(
            [label in row[:k] for label, row in zip(labels, order, strict=True)]
        )
    scores = Scores.of(probabilities, labels)
    counts = [[0] * classes for _ in range(classes)]
    for label, row in zip(labels, order, strict=True):
        counts[label][row[0]] += 1
    assert scores.confusion.tolist() == counts == confusion_matrix(probabilities, labels).tolist()
    assert scores.top1 == pytest.approx(scores.confusion.trace() / count)
    assert (scores.top5 is None) == (classes <= 5)
    losses = [-math.log(row[label]) for label, row in zip(labels, probabilities, strict=True)]
    assert scores.loss == pytest.approx(math.fsum(losses) / count)


def test_impossible_labels_have_a_finite_loss():
    assert math.isfinite(Scores.of(np.array([[1.0, 0.0]]), np.array([1])).loss)


def test_by_hand():
    probabilities = np.array(
        [
            [0.30, 0.25, 0.20, 0.15, 0.10, 0.00],  # of 0: first
            [0.30, 0.25, 0.20, 0.15, 0.10, 0.00],  # of 4: fifth
            [0.30, 0.25, 0.20, 0.15, 0.10, 0.00],  # of 5: last
            [0.05, 0.50, 0.20, 0.15, 0.10, 0.00],  # of 1: first
        ]
    )
    scores = Scores.of(probabilities, np.array([0, 4, 5, 1]))
    assert (scores.images, scores.top1, scores.top5) == (4, 0.5, 0.75)
    assert scores.confusion[[0, 4, 5, 1], [0, 0, 0, 1]].tolist() == [1, 1, 1, 1]
    assert scores.confusion.sum() == 4


def test_table_fits_and_shows_the_worst_of_many_classes():
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 9, (300, 300))
    matrix[np.arange(300), np.arange(300)] = 5000
    matrix[7, 7] = 0
    matrix[:, 100] = 0
    matrix[100] = 0  # no image of this class
    names = [f"a very long name of class number {i}" for i in range(300)]
    names[7] = "two\nlines"
    lines = class_table(matrix, names)
    assert len(lines) == 1 + 20 + 1
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith(r"'two\nlines'")
    assert "0.00%" in lines[1]
    assert lines[-1].startswith("and 279 classes that are no worse")
    few = class_table(np.array([[3, 0], [0, 0]]), ["cat", "dog"])
    assert few[1:] == ["cat         3        3   100.00%"]


def test_last_line_names_protocols_and_checkpoints(tmp_path):
    scores = Scores.of(np.full((2, 6), 1 / 6), np.array([0, 1]))
    line = summary_line(scores, Protocol("10-crop"), [32, 224], [tmp_path / "a", tmp_path / "b"])
    assert line == (
        "top-1 50.00%, top-5 100.00%, loss 1.792 (2 images): 10-crop of 32 out of 37 and "
        f"10-crop of 224 out of 256; mean of 2 checkpoints {tmp_path / 'a'}, {tmp_path / 'b'}"
    )


def test_confusion_matrix_as_a_file(tmp_path):
    matrix = Confusion(("a, b", "$c$"), np.array([[3, 1], [0, 2]]))
    save_confusion(tmp_path / "m.csv", matrix)
    again = read_confusion(tmp_path / "m.csv")
    assert (again.classes, again.counts.tolist()) == (matrix.classes, [[3, 1], [0, 2]])
    pytest.importorskip("matplotlib")
    save_confusion(tmp_path / "m.png", matrix)
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(MinidlError, match=r"m\.txt: a confusion matrix is written as \.csv or"):
        save_confusion(tmp_path / "m.txt", matrix)
    with pytest.raises(MinidlError, match=r"no/m\.csv: cannot be written \(No such file"):
        save_confusion(tmp_path / "no" / "m.csv", matrix)
