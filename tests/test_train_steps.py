"""A step of training: in parts, clipped, averaged, and what a number that is not finite does."""

import contextlib
import math

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
import minidl.functional as F
from minidl import nn
from minidl.autograd import Function
from minidl.errors import DivergedError
from minidl.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm
from minidl.training.averaging import WeightAverage
from minidl.training.progress import Progress, Tally
from minidl.training.settings import Settings
from minidl.training.step import MAX_SKIPPED, TrainingStep


class WithAuxiliaryHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(48, 4)
        self.other = nn.Linear(48, 4)

    def forward(self, x):
        x = self.body(x)
        return (self.head(x), self.other(x)) if self.training else self.head(x)


def step_of(model, average=None, **options):
    optimizer = md.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return TrainingStep(Settings("lenet5", **options), model, optimizer, average)


def batch(count, seed=0, shape=(2, 6, 6)):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, *shape)).astype(np.float32)
    return md.Tensor(images), rng.integers(0, 4, count)


def gradients(model):
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "count"), [(32, 4, 32), (32, 4, 9), (8, 3, 7), (4, 9, 4)]
)
def test_accumulated_gradients_are_those_of_the_whole_batch(batch_size, accumulate, count):
    options = {"label_smoothing": 0.1, "aux_weight": 0.7}
    md.manual_seed(1)
    model = WithAuxiliaryHead()
    images, labels = batch(count)
    sizes = []
    step = step_of(model, batch_size=batch_size, accumulate=accumulate, **options)
    hook = model.body.register_forward_hook(lambda m, args, output: sizes.append(len(output)))
    result = step.run(images, labels, Progress())
    hook.remove()
    found = gradients(model)
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= math.ceil(batch_size / accumulate)

    # The same by hand, on the weights before the step.
    md.manual_seed(1)
    model = WithAuxiliaryHead()
    logits, other = model(images)
    targets = md.Tensor(labels)
    own = F.cross_entropy(logits, targets)
    smooth = [F.cross_entropy(x, targets, label_smoothing=0.1) for x in (logits, other)]
    (smooth[0] + 0.7 * smooth[1]).backward()
    np.testing.assert_allclose(result.loss, own.item(), rtol=1e-6)
    np.testing.assert_allclose(result.logits, logits.data, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(model).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_last_batch_has_no_part_of_one_image():
    """Batch normalisation could not normalise it where feature maps are 1 x 1."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 4))
    step = step_of(model, batch_size=32, accumulate=4)
    for count in range(2, 33):
        step.run(*batch(count), Progress())


@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=4),
    max_norm=st.sampled_from([0.01, 1.0, 3.0, 1e6, math.inf]),
    seed=st.integers(0, 99),
)
def test_clipping_is_pytorchs(shapes, max_norm, seed):
    torch = oracle()
    rng = np.random.default_rng(seed)
    own = [nn.Parameter(md.zeros(*shape)) for shape in [*shapes, (3,)]]
    other = [torch.nn.Parameter(torch.zeros(shape)) for shape in [*shapes, (3,)]]
    for parameter, twin in zip(own[:-1], other[:-1], strict=True):  # the last has no gradient
        gradient = rng.standard_normal(parameter.shape).astype(np.float32)
        parameter.grad, twin.grad = md.Tensor(gradient.copy()), torch.from_numpy(gradient)
    norm = clip_grad_norm_(own, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(other, max_norm)
    np.testing.assert_allclose(norm.item(), expected.item(), rtol=1e-6)
    for parameter, twin in zip(own[:-1], other[:-1], strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), twin.grad.numpy(), rtol=1e-6)
    assert own[-1].grad is None


def test_norms_of_large_and_many_numbers_and_of_none():
    assert get_total_norm([]).item() == 0
    huge = md.Tensor(np.full((300, 1000), 1e30, np.float32))
    np.testing.assert_allclose(get_total_norm([huge]).item(), 1e30 * 300_000**0.5, rtol=1e-6)
    assert math.isnan(get_total_norm([huge, md.tensor([math.nan])]).item())
    weight = nn.Parameter(md.ones(1))
    for name, clip in (
        ("clip_grad_norm_", clip_grad_norm_),
        ("clip_grads_with_norm_", lambda p, m: clip_grads_with_norm_(p, m, md.tensor(1.0))),
    ):
        with pytest.raises(ValueError, match=f"^{name}: max_norm must be positive, got 0"):
            clip([weight], 0)


def test_a_step_clips():
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
    images, labels = batch(8)
    result = step_of(model, clip_norm=0.25).run(images, labels, Progress())
    assert result.gradient_norm > 0.25
    np.testing.assert_allclose(
        get_total_norm(p.grad for p in model.parameters()).item(), 0.25, 1e-5
    )
    assert step_of(model).run(images, labels, Progress()).gradient_norm is None


def test_the_moving_average_follows_its_formula():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))
    model[0].bias.requires_grad = False
    average = WeightAverage(model, 0.8)
    step = step_of(model, average)
    expected = {name: p.data.astype(np.float64) for name, p in model.named_parameters()}
    for n in range(40):
        step.run(*batch(4, seed=n), Progress())
        d = min(0.8, (1 + n) / (10 + n))
        for name, parameter in model.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * parameter.data
    assert average.updates == 40
    weights = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    with average.in_place_of_weights():
        for name, tensor in model.state_dict().items():
            if name in expected:
                np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-4, atol=1e-6)
            else:
                np.testing.assert_array_equal(tensor.numpy(), weights[name])  # running statistics
    with contextlib.suppress(KeyError), average.in_place_of_weights():
        raise KeyError("the weights come back whatever happens")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name])

    other = WeightAverage(model, 0.8)
    other.load_state_dict(average.state_dict(), average.updates)
    for continued in (average, other):
        continued.update()
    for name, array in average.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    assert "0.bias" not in average.state_dict()
    with pytest.raises(ValueError, match=r"average of 3.bias has shape None, expected \(4,\)"):
        other.load_state_dict({n: a for n, a in average.state_dict().items() if n != "3.bias"}, 1)
    with pytest.raises(ValueError, match=r"0\.weight is not finite"):
        other.load_state_dict(average.state_dict() | {"0.weight": np.full((3, 2, 3, 3), np.nan)}, 1)
    with pytest.raises(ValueError, match="decay must be between 0 and 1, got 1"):
        WeightAverage(model, 1)


class Spoiled(nn.Module):
    """The identity, whose gradient is infinite where the first number of its input is above 100."""

    class Identity(Function):
        def forward(self, x):
            self.save(x)
            return x.copy()

        def backward(self, dy):
            (x,) = self.saved
            return dy * math.inf if float(x.data.flat[0]) > 100 else dy

    def forward(self, x):
        return self.Identity().apply(x)


def normalised():
    md.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 4)
    )


def copied(step):
    """All that a step which is left out must not change."""
    arrays = {name: tensor.numpy().copy() for name, tensor in step.model.state_dict().items()}
    for index, state in step.optimizer.state_dict()["state"].items():
        arrays |= {f"{index} {name}": np.array(value) for name, value in state.items()}
    if step.average is not None:
        arrays |= {f"average {n}": a.copy() for n, a in step.average.state_dict().items()}
    return arrays


def test_a_step_with_nan_is_left_out_without_a_trace():
    model = normalised()
    step = step_of(model, WeightAverage(model, 0.9), on_nan="skip", accumulate=2, batch_size=8)
    progress = Progress()
    step.run(*batch(8), progress)
    before = copied(step)
    images, labels = batch(8)
    images.data[6, 0, 0, 0] = math.nan
    result = step.run(images, labels, progress)
    assert math.isnan(result.loss)
    assert "the loss became nan in step 1 (epoch 1" in result.skipped
    assert result.skipped.endswith("first in the images of the batch")
    assert (progress.skipped, progress.skipped_in_a_row) == (1, 1)
    after = copied(step)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert not step.run(*batch(8), progress).skipped
    assert (progress.skipped, progress.skipped_in_a_row) == (1, 0)

    for _ in range(MAX_SKIPPED):
        step.run(images, labels, progress)
    with pytest.raises(DivergedError, match=f"the {MAX_SKIPPED} steps before were skipped already"):
        step.run(images, labels, progress)


def test_the_first_layer_is_named_that_is_not_finite_going_forward():
    model = normalised()
    model[4].weight.data[1, 2] = 3e38
    step = step_of(model)
    expected = (
        r"the loss became (nan|inf) .*first in the output of 4 \(Linear\); try a smaller --lr"
    )
    with pytest.raises(DivergedError, match=expected):
        step.run(*batch(8), Progress())

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x):
            return self.inner(x) * 1e30 * 1e30

    model = nn.Sequential(nn.Flatten(), Block(), nn.Linear(72, 4))
    with pytest.raises(DivergedError, match=r"first in the output of 1 \(Block\)"):
        step_of(model).run(*batch(8), Progress())


def test_the_first_layer_is_named_that_is_not_finite_going_backward():
    def spoiled():
        md.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.ReLU(), Spoiled(), nn.Flatten(), nn.Linear(48, 4)
        )

    images, labels = batch(8)
    images.data[0] = np.where(images.data[0] > 0, 1e4, 0)
    for option in ({"on_nan": "skip"}, {"clip_norm": 1e30, "on_nan": "skip"}):
        model = spoiled()
        model[0].weight.data[...] = abs(model[0].weight.data)
        step = step_of(model, **option)
        before = copied(step)
        result = step.run(images, labels, Progress())
        assert "the norm of the gradients became" in result.skipped
        assert result.skipped.endswith("first in the gradient of 2 (Spoiled)")
        for name, array in copied(step).items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)

    # Without the norm it is seen one step later, by the weights that it has spoiled.
    model = spoiled()
    model[0].weight.data[...] = abs(model[0].weight.data)
    step, progress = step_of(model), Progress()
    step.run(images, labels, progress)
    progress.step = 1
    with pytest.raises(DivergedError, match=r"in step 2 .* first in 0.bias after step 1;"):
        step.run(images, labels, progress)


def test_tally_counts_the_first_five():
    tally = Tally()
    assert math.isnan(tally.loss)
    assert math.isnan(tally.top5)
    logits = np.tile(np.arange(7.0), (7, 1))
    tally.add(1.0, logits, np.arange(7))
    assert (tally.accuracy, tally.top5) == (1 / 7, 5 / 7)
