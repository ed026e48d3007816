"""Wrong answers written independently of the planted mistakes are named all the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl.exercises import check
from minidl.exercises.catalogue import EXERCISES
from minidl.exercises.checking import check_function
from minidl.exercises.sources import plant


def forward_difference(f, x, h):  # type: ignore[no-untyped-def]
    start = f(x.astype(float))
    out = np.empty(x.shape)
    for i in range(x.size):
        moved = x.astype(float).ravel()
        moved[i] += h
        out.flat[i] = (f(moved.reshape(x.shape)) - start) / h
    return out


def recursive_accumulation(root):  # type: ignore[no-untyped-def]
    def push(node, gradient):  # type: ignore[no-untyped-def]
        node.grad += gradient
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            push(parent, gradient * slope)

    push(root, 1.0)


def unbroadcast_batch_only(g, shape):  # type: ignore[no-untyped-def]
    while g.ndim > len(shape):
        g = g.sum(0)
    return g


def linear_loops(d, x, w):  # type: ignore[no-untyped-def]
    dw = np.zeros_like(w)
    for m in range(w.shape[0]):
        for i in range(w.shape[1]):
            dw[m, i] = sum(d[n, m] * x[n, i] for n in range(len(x))) / len(x)
    return np.einsum("nm,md->nd", d, w), dw, np.einsum("nm->m", d)


def relu_of_gradient(d, x):  # type: ignore[no-untyped-def]
    return np.maximum(d, 0)


def xent_no_mean(z, y):  # type: ignore[no-untyped-def]
    z = z - z.max(1)[:, None]
    p = np.exp(z) / np.exp(z).sum(1)[:, None]
    hot = np.eye(z.shape[1])[y]
    return np.mean(
        [np.log(np.exp(row).sum()) - row[k] for row, k in zip(z, y, strict=True)]
    ), p - hot


def size_by_ceil(n, k, s, p, d):  # type: ignore[no-untyped-def]
    return int(np.ceil((n + 2 * p - d * (k - 1) - 1) / s)) + 1


def convolve_flipped(x, w, b, s, p):  # type: ignore[no-untyped-def]
    x = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::s, ::s]
    return np.einsum("ncpqrt,kcrt->nkpq", windows, np.flip(w, (2, 3))) + b.reshape(1, -1, 1, 1)


def im2col_places_first(x, k, s, p):  # type: ignore[no-untyped-def]
    x = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])
    windows = np.lib.stride_tricks.sliding_window_view(x, k, (2, 3))[:, :, ::s, ::s]
    n, c, rows, columns, r, t = windows.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, rows * columns, c * r * t)


def col2im_assigning(cols, shape, k, s, p):  # type: ignore[no-untyped-def]
    n, c, height, width = shape
    out = np.zeros((n, c, height + 2 * p, width + 2 * p))
    rows, columns = (height + 2 * p - k[0]) // s + 1, (width + 2 * p - k[1]) // s + 1
    cols = cols.reshape(n, c, *k, rows, columns)
    for r in range(k[0]):
        for t in range(k[1]):
            for i in range(rows):
                for j in range(columns):
                    out[:, :, i * s + r, j * s + t] = cols[:, :, r, t, i, j]
    return out[:, :, p : p + height, p : p + width]


def conv_without_stride(d, cache):  # type: ignore[no-untyped-def]
    x, w, _, p = cache
    padded = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for n in range(len(x)):
        for k in range(len(w)):
            for i in range(d.shape[2]):
                for j in range(d.shape[3]):
                    there = np.s_[n, :, i : i + w.shape[2], j : j + w.shape[3]]
                    dx[there] += d[n, k, i, j] * w[k]
                    dw[k] += d[n, k, i, j] * padded[there]
    height, width = x.shape[2:]
    return dx[:, :, p : p + height, p : p + width], dw, d.sum((0, 2, 3))


def maxpool_by_mask(d, cache):  # type: ignore[no-untyped-def]
    x, k, s = cache
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(d.shape):
        window = np.s_[n, c, i * s : i * s + k, j * s : j * s + k]
        dx[window] += (x[window] == x[window].max()) * d[n, c, i, j]
    return dx


def avgpool_constant_divisor(d, cache):  # type: ignore[no-untyped-def]
    (n, c, height, width), k, s, p, _ = cache
    dx = np.zeros((n, c, height + 2 * p + k, width + 2 * p + k))
    for i, j in np.ndindex(d.shape[2:]):
        dx[:, :, i * s : i * s + k, j * s : j * s + k] += d[:, :, i : i + 1, j : j + 1] / k**2
    return dx[:, :, p : p + height, p : p + width]


def dropout_keeping_p(x, p, rng, train):  # type: ignore[no-untyped-def]
    mask = (rng.random(x.shape) >= p).astype(float)
    return (x * mask, mask) if train else (x, np.ones_like(x))


def lrn_diagonal(d, cache):  # type: ignore[no-untyped-def]
    x, scale, _, alpha, beta = cache
    return d * (scale**-beta - 2 * alpha * beta * x**2 * scale ** (-beta - 1))


def batchnorm_numpy_var(x, gamma, beta, state):  # type: ignore[no-untyped-def]
    c = x.shape[1]
    flat = np.moveaxis(x, 1, 0).reshape(c, -1)
    mean, var = (flat.mean(1), flat.var(1)) if state["train"] else (state["mean"], state["var"])
    if state["train"]:
        state["mean"] = state["mean"] + state["momentum"] * (mean - state["mean"])
        state["var"] = state["var"] + state["momentum"] * (var - state["var"])
    scale = gamma / np.sqrt(var + state["eps"])
    return x * scale.reshape(1, c, 1, 1) + (beta - mean * scale).reshape(1, c, 1, 1)


def batchnorm_as_evaluation(d, cache):  # type: ignore[no-untyped-def]
    x_hat, gamma, std = cache
    return (
        d * (gamma / std)[None, :, None, None],
        np.einsum("nchw,nchw->c", d, x_hat),
        np.einsum("nchw->c", d),
    )


def residual_plain(d, x, w1, w2, proj):  # type: ignore[no-untyped-def]
    h = x @ w1.T
    dh = (d @ w2) * (h > 0)
    dproj = None if proj is None else d.T @ x
    return dh @ w1, dh.T @ x, d.T @ np.clip(h, 0, None), dproj


def concat_equal(d, sizes):  # type: ignore[no-untyped-def]
    return list(np.array_split(d, len(sizes), axis=1))


def sgd_lr_inside(p, g, v, lr, momentum, decay):  # type: ignore[no-untyped-def]
    v = momentum * v - lr * (g + decay * p)
    return p + v, v


ANSWERS = {
    "numerical_grad": (forward_difference, ["one-sided"]),
    "topo_backward": (recursive_accumulation, ["recursion"]),
    "unbroadcast": (unbroadcast_batch_only, ["stretched-axes"]),
    "linear_backward": (linear_loops, ["dw-averaged"]),
    "relu_backward": (relu_of_gradient, ["mask-on-d"]),
    "softmax_xent": (xent_no_mean, ["gradient-not-averaged"]),
    "conv_out_size": (size_by_ceil, ["ceil"]),
    "conv2d_naive": (convolve_flipped, ["flipped"]),
    "im2col": (im2col_places_first, ["transposed"]),
    "col2im": (col2im_assigning, ["overlap-assigned"]),
    "conv2d_backward": (conv_without_stride, ["dx-stride-ignored", "dw-stride-ignored"]),
    "maxpool_backward": (maxpool_by_mask, ["ties-doubled"]),
    "avgpool_backward": (avgpool_constant_divisor, ["padding-always-counted"]),
    "dropout": (dropout_keeping_p, ["not-scaled"]),
    "lrn_backward": (lrn_diagonal, ["own-channel-only"]),
    "batchnorm_forward": (batchnorm_numpy_var, ["running-var-biased"]),
    "batchnorm_backward": (batchnorm_as_evaluation, ["constants"]),
    "residual_backward": (residual_plain, ["skip-dropped"]),
    "concat_backward": (concat_equal, ["equal-parts"]),
    "sgd_momentum_step": (sgd_lr_inside, ["velocity-downhill"]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_mistake_is_named_however_the_answer_is_written(name: str) -> None:
    answer, mistakes = ANSWERS[name]
    for seed in (0, 1, 2):
        verdict = check_function(EXERCISES[name], answer, seed)
        assert verdict.exit_code > 0
        assert verdict.mistakes == mistakes


def test_the_first_wrong_rung_is_explained_though_a_later_one_has_its_own_trouble() -> None:
    def in_place(f, x, h):  # type: ignore[no-untyped-def]
        grad = np.zeros_like(x)
        for i in np.ndindex(x.shape):
            x[i] += h
            above = f(x)
            x[i] -= h
            grad[i] = (above - f(x)) / h
        return grad

    checked = check("numerical_grad", in_place)
    assert checked.verdict.mistakes == ["one-sided"]
    assert "does not explain all" in "".join(checked.verdict.details)

    def lost_axes(g, shape):  # type: ignore[no-untyped-def]
        while g.ndim > len(shape):
            g = g.sum(0)
        for axis, size in enumerate(shape):
            g = g.sum(axis) if size == 1 else g
        return g

    assert check("unbroadcast", lost_axes).verdict.mistakes == ["kept-dimensions"]


SCALED: list[tuple[Callable[..., Any], str]] = [
    (lambda d, x, w: (d @ w, 3 * (d.T @ x), d.sum(0)), "dw: 3 times what it should be"),
    (lambda d, x, w: (-d @ w, d.T @ x, d.sum(0)), "dx: the sign is wrong"),
    (lambda d, x, w: (d @ w, d.T @ x, np.zeros(len(w))), "db: always zero"),
]


@pytest.mark.parametrize(("answer", "words"), SCALED)
def test_mistakes_that_no_exercise_knows_are_described(
    answer: Callable[..., Any], words: str
) -> None:
    checked = check("linear_backward", answer)
    assert checked.verdict.mistakes == []
    assert words in "\n".join(checked.verdict.details)


def test_a_known_mistake_beside_an_unknown_one() -> None:
    checked = check("linear_backward", lambda d, x, w: (5 * d @ w, d.T @ x, d.mean(0)))
    assert checked.verdict.mistakes == ["db-averaged"]
    details = "\n".join(checked.verdict.details)
    assert "That does not explain all that is wrong with dx." in details
    assert "dx: 5 times what it should be" in details


def test_a_notebook_shows_report_and_heat_map() -> None:
    pytest.importorskip("matplotlib")
    checked = check("linear_backward", linear_loops)
    page = checked._repr_html_()
    assert "dw is divided by the batch size" in page
    assert "FAILED" in page
    assert 'src="data:image/png;base64,' in page
    assert checked.report is not None
    assert checked.report["w"].wrong
    passed = check("relu_backward", lambda d, x: d * (x > 0))
    assert passed
    assert "PASSED" in passed._repr_html_()
    assert check("conv_out_size", size_by_ceil).report is None
    not_started = check("linear_backward", lambda d, x, w: 1 / 0)
    assert not_started.verdict.status == "crashed"
    assert not_started.report is None


WITHOUT_GRADIENT = {
    "conv_out_size",
    "conv2d_naive",
    "im2col",
    "batchnorm_forward",
    "sgd_momentum_step",
}
# Wrong answers whose gradient is no wrong one, and those that raise an error.
RIGHT_GRADIENT = {"loss-not-averaged", "ties-shared", "last-winner"}
NO_GRADIENT = {"recursion", "dx-by-the-transpose"}


@pytest.mark.parametrize("name", EXERCISES)
def test_every_gradient_has_a_report_and_right_ones_pass(name: str) -> None:
    report = check(name, EXERCISES[name].solution).report
    assert (report is None) == (name in WITHOUT_GRADIENT)
    assert report is None or report.status == "passed", report


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXERCISES if name not in WITHOUT_GRADIENT])
def test_every_planted_mistake_fails_the_gradient_check_too(name: str) -> None:
    exercise = EXERCISES[name]
    for mistake in exercise.mistakes:
        report = check(name, plant(exercise, mistake)).report
        assert (report is None) == (mistake.name in NO_GRADIENT)
        if report is not None:
            right = mistake.name in RIGHT_GRADIENT
            assert (report.status != "failed") == right, (mistake.name, str(report))
