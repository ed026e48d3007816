"""Mixed precision: 16-bit products, float32 weights; and steps that do not wait for the GPU."""

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR
from kernel_cases import normal

import minidl as md
import minidl.functional as F
from minidl.data import load
from minidl.errors import DivergedError
from minidl.training import Trainer, default_settings
from minidl.training.batches_on_device import copied_ahead


def network():
    return md.nn.Sequential(
        md.nn.Conv2d(1, 8, 3, padding=1),
        md.nn.BatchNorm2d(8),
        md.nn.ReLU(),
        md.nn.MaxPool2d(2),
        md.nn.Conv2d(8, 8, 3),
        md.nn.ReLU(),
        md.nn.AdaptiveAvgPool2d(1),
        md.nn.Flatten(),
        md.nn.Linear(8, 4),
    )


def gradients(precision, seed):
    md.manual_seed(seed)
    model = network().to("cuda")
    x = md.tensor(normal(seed, 6, 1, 9, 8, dtype=np.float32), device="cuda")
    with md.autocast(precision):
        scores = model(x)
        loss = F.cross_entropy(scores, md.tensor([0, 1, 2, 3, 0, 1]))
    loss.backward()
    assert loss.dtype == md.float32
    return scores, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_gradients_are_float32_and_near_those_of_float32(cuda, precision, dtype):
    bits = {"bf16": 8, "fp16": 11}[precision]
    errors = {}
    for seed in range(5):
        expected_scores, expected = gradients(None, seed)
        scores, found = gradients(precision, seed)
        assert (expected_scores.dtype.name, scores.dtype.name) == ("float32", dtype)
        for name, gradient in found.items():
            assert gradient.dtype == md.float32
            exact = expected[name].cpu().numpy()
            error = np.linalg.norm(gradient.cpu().numpy() - exact)
            errors.setdefault(name, []).append(error / max(np.linalg.norm(exact), 0.02))
    for name, each in errors.items():
        # The median: where rounding makes another pixel the largest of a window, much changes.
        assert np.median(each) <= 2.0 ** (4 - bits), name
    assert min(errors["0.weight"]) > 0  # it does round


def trainer_for(**given):
    settings = default_settings("lenet5", batch_size=10, image_size=28, device="cuda", **given)
    md.manual_seed(0)
    model = md.models.create("lenet5", 10, 1, 28).to("cuda")
    return Trainer(settings, load("fashion-mnist-small", 28, 1), model)


def batches(trainer, count):
    found = copied_ahead(trainer.train_loader.batches(0), "cuda")
    return [next(found) for _ in range(count)]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_run_in_16_bits_follows_the_one_in_32(cuda, amp):
    losses = []
    for chosen in ("off", amp):
        trainer = trainer_for(amp=chosen)
        losses.append([trainer.step(*batch) for batch in batches(trainer, 8)])
        assert {p.dtype for p in trainer.model.parameters()} == {md.float32}
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


def test_an_overflow_halves_the_scale_and_skips_the_step(cuda):
    trainer = trainer_for(amp="fp16")
    (batch,) = batches(trainer, 1)
    before = {name: t.cpu().numpy() for name, t in trainer.model.state_dict().items()}
    trainer.progress.loss_scale = 2.0**40
    trainer.step(*batch)
    assert trainer.progress.loss_scale == 2.0**39
    for name, tensor in trainer.model.state_dict().items():
        np.testing.assert_array_equal(tensor.cpu().numpy(), before[name])
    trainer.progress.loss_scale, trainer.progress.steps_in_range = 256.0, 1999
    trainer.step(*batch)
    assert (trainer.progress.loss_scale, trainer.progress.steps_in_range) == (512.0, 2000)


@ON_THE_EMULATOR
def test_an_overflow_that_no_scale_can_help_is_an_error(cuda):
    trainer = trainer_for(amp="fp16")
    (batch,) = batches(trainer, 1)
    layers = trainer.model.classifier
    layers.fc1.weight.data[...] = 0  # no activation behind it, so that the loss stays finite
    for layer in (layers.fc2, layers.fc3):
        layer.weight.data[...] = cuda.array(np.sign(layer.weight.cpu().detach().numpy()) * 6e4)
    trainer.progress.loss_scale = 1.0
    with pytest.raises(DivergedError, match=r"in fp16.* in the gradient of classifier\.fc2"):
        trainer.step(*batch)


@ON_THE_EMULATOR
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_waits_for_its_loss_only_and_only_after_the_backward_pass_began(
    cuda, amp, monkeypatch
):
    trainer = trainer_for(amp=amp)
    batch, other = batches(trainer, 2)
    trainer.step(*batch)  # compiles
    waits = []

    def observed(function):
        def observe(*args):
            function(*args)
            waits.append(cuda.cupy.host_reads - begun)

        return observe

    monkeypatch.setattr(md.Tensor, "backward", observed(md.Tensor.backward))
    monkeypatch.setattr(trainer.optimizer, "step", observed(trainer.optimizer.step))
    begun = cuda.cupy.host_reads
    trainer.step(*other)
    assert [*waits, cuda.cupy.host_reads - begun] == [0, 1, 1]


def test_batches_arrive_as_they_were_made(cuda):
    made = [(normal(i, 2, 3, dtype=np.float32), np.array([i, 7])) for i in range(4)]
    arrived = list(copied_ahead(iter(made), "cuda"))
    assert len(arrived) == len(made)
    for (images, labels), (found, found_labels) in zip(made, arrived, strict=True):
        assert found.device == "cuda:0"
        np.testing.assert_array_equal(found.cpu().numpy(), images)
        assert found_labels is labels


def test_unknown_precisions_are_refused():
    with (
        pytest.raises(ValueError, match=r"autocast: expected one of .*'bf16', 'fp16'.*, got 'fp8'"),
        md.autocast("fp8"),
    ):
        pass
