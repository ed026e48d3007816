"""Weights of another task, new heads, frozen layers and rates by pattern."""

import shutil

import numpy as np
import pytest
from conftest import oracle
from safetensors.numpy import load_file
from training_runs import LENET, complaint

import minidl as md
from minidl.errors import CheckpointError, MinidlError
from minidl.train import main
from minidl.training.transfer_learning import (
    freeze,
    head_names,
    load_pretrained,
    parameter_groups,
    parse_rates,
)


def network(arch="lenet5", classes=10, seed=0):
    md.manual_seed(seed)
    return md.models.create(arch, num_classes=classes)


def arrays_of(model):
    return {name: tensor.data.copy() for name, tensor in model.state_dict().items()}


def images(*shape, seed=1):
    return md.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize(
    ("arch", "heads"),
    [
        ("vgg16", ["classifier.6"]),
        ("densenet121", ["classifier"]),
        ("squeezenet1_0", ["classifier.1"]),  # a convolution
        ("nin_cifar10", ["features.mlpconv3.4"]),  # one within the features
        ("googlenet_aux", ["aux1.fc2", "aux2.fc2", "fc"]),
    ],
)
def test_heads_are_found(arch, heads):
    with md.nn.parameter.parameters_without_values():
        model = md.models.create(arch, num_classes=7)
    names = [f"{head}.{name}" for head in heads for name in ("weight", "bias")]
    assert head_names(model) == names


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_new_head_on_weights_of_another_task(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    donor = network(classes=7, seed=1)
    if suffix == ".pth":
        torch = oracle()
        torch.save({n: torch.from_numpy(a) for n, a in arrays_of(donor).items()}, path)
    else:
        md.save(donor, path)
    model = network()
    before = arrays_of(model)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, path)
    text = str(caught.value)
    assert "weights" + suffix in text
    assert "'classifier.fc3.weight (7, 84) for (10, 84)'" in text
    assert "--replace-head begins with a new last layer for 10 classes" in text
    assert all(np.array_equal(before[n], a) for n, a in arrays_of(model).items())

    heads = ["classifier.fc3.weight", "classifier.fc3.bias"]
    assert load_pretrained(model, path, replace_head=True) == heads
    expected = arrays_of(donor) | {name: before[name] for name in heads}
    for name, array in arrays_of(model).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)

    # As many classes, but others: the head is new all the same.
    same = network(classes=7)
    fresh = arrays_of(same)
    assert load_pretrained(same, path) == []
    np.testing.assert_array_equal(same.classifier.fc3.weight.data, donor.classifier.fc3.weight.data)
    same.load_state_dict(fresh)
    load_pretrained(same, path, replace_head=True)
    np.testing.assert_array_equal(same.classifier.fc3.weight.data, fresh[heads[0]])


def test_weights_that_do_not_fit_are_named_and_nothing_is_suggested(tmp_path):
    md.save(network("resnet20_cifar"), tmp_path / "resnet.npz")
    grey = md.models.create("lenet5", num_classes=3, in_channels=3)
    md.save(grey, tmp_path / "colour.npz")
    for name, expected in (
        ("resnet.npz", "does not fit lenet5: 10 missing ('features.conv1.weight', "),
        ("colour.npz", "3 mis-shaped ('features.conv1.weight (6, 3, 5, 5) for (6, 1, 5, 5)', "),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_pretrained(network(), tmp_path / name)
        assert expected in str(caught.value)
        assert "--replace-head" not in str(caught.value)


def test_auxiliary_heads_are_new_where_the_file_has_none(tmp_path):
    model = network("googlenet_aux", 10)
    aux = [name for name in model.state_dict() if name.startswith("aux")]
    kept = {n: a for n, a in arrays_of(model).items() if n not in aux}
    kept |= {"fc.weight": np.ones((5, 1024), np.float32), "fc.bias": np.ones(5, np.float32)}
    md.save(kept, tmp_path / "main.safetensors")
    with pytest.raises(CheckpointError, match="--replace-head begins"):
        load_pretrained(model, tmp_path / "main.safetensors")
    fresh = load_pretrained(model, tmp_path / "main.safetensors", replace_head=True)
    assert fresh == [*aux, "fc.weight", "fc.bias"]


def test_weights_that_are_no_numbers(tmp_path):
    arrays = arrays_of(network())
    arrays["features.conv2.bias"][3] = np.nan
    md.save(arrays, tmp_path / "nan.npz")
    with pytest.raises(CheckpointError, match=r"features\.conv2\.bias holds NaN or infinite"):
        load_pretrained(network(), tmp_path / "nan.npz")
    with pytest.raises(CheckpointError, match=r"best\.safetensors: cannot be read"):
        load_pretrained(network(), tmp_path)


def test_patterns_choose_modules_and_parameters():
    def frozen(*patterns):
        return freeze(network("resnet20_cifar"), patterns)

    everything = [name for name, _ in network("resnet20_cifar").named_parameters()]
    below_fc = [name for name in everything if not name.startswith("fc")]
    assert frozen("layer[12]", "conv1", "bn1", "layer3") == below_fc
    assert frozen("layer1") == frozen("layer1.*") == [n for n in everything if "layer1." in n]
    assert frozen("*.bn?.bias") == [n for n in below_fc if n.endswith("bias") and "layer" in n]
    assert frozen("fc.weight") == ["fc.weight"]
    for pattern, hint in (
        ("layer_1", "did you mean 'layer1'?"),
        ("Layer1.0.conv1.weight", "did you mean 'layer1.0.conv1.weight'?"),
        ("", "there are: conv1, bn1, "),
        ("zzz", "there are: conv1, bn1, "),
    ):
        with pytest.raises(MinidlError) as caught:
            frozen("fc", pattern)
        assert f"freeze: {pattern!r} matches no layer or parameter; {hint}" in str(caught.value)
    with pytest.raises(MinidlError, match=r"freeze: \* leaves nothing to learn"):
        frozen("*")


def test_frozen_layers_keep_their_bits_and_the_others_learn():
    """Batch norm normalises as in evaluation, in a network that is told to train; its statistics
    and weights stay. The layers before and behind a frozen one learn."""
    model = network("resnet20_cifar")
    with md.no_grad():
        model(images(8, 3, 32, 32))  # so that the statistics are not the initial ones
    freeze(model, ["layer2", "layer1.0.bn1.weight"])
    before = arrays_of(model)
    seen = {}

    def compare(module, args, output):
        seen["training"], seen["frozen"] = module.training, output.data
        module.training = False
        seen["evaluation"] = module.forward(args[0]).data
        module.training = True

    handle = model.layer2[0].bn1.register_forward_hook(compare)
    optimizer = md.optim.SGD(parameter_groups(model, 0.1), momentum=0.9, weight_decay=0.1)
    for step in range(2):
        model.train()
        loss = md.functional.cross_entropy(
            model(images(4, 3, 32, 32, seed=step)), md.tensor(np.arange(4))
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    handle.remove()
    assert seen["training"]
    np.testing.assert_array_equal(seen["frozen"], seen["evaluation"])
    for name, after in arrays_of(model).items():
        stays = name.startswith("layer2.") or name == "layer1.0.bn1.weight"
        assert np.array_equal(after, before[name]) == stays, name
    learned = sum(p.requires_grad for p in model.parameters())
    assert len(optimizer.state_dict()["state"]) == learned


def test_batch_norm_without_weights_is_frozen_with_its_block():
    model = network("fractalnet20_cifar")
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, md.nn.BatchNorm2d)]
    first = next(name for name, _ in norms).split(".")
    freeze(model, [".".join(first[:2])])
    prefix = ".".join(first[:2]) + "."
    assert {name: norm.frozen for name, norm in norms} == {
        name: name.startswith(prefix) for name, _ in norms
    }
    assert any(not norm.frozen for _, norm in norms)


def test_nothing_is_recorded_where_nothing_learns():
    """No graph, so no backward pass: neither the backward of a frozen layer nor its gradient."""
    model = network()
    freeze(model, ["features", "classifier.fc1"])
    recorded = {}

    def observe(operation, inputs, outputs):
        recorded.setdefault(operation.name, []).append(outputs[0].requires_grad)

    with md.autograd.observe_operations(observe):
        model(images(2, 1, 32, 32))
    assert recorded["conv2d"] == [False, False]
    assert recorded["linear"] == [False, True, True]
    assert not any(recorded["avg_pool2d"])


def test_rates_by_pattern_step_like_torch():
    """SGD with momentum and decay by groups, under a schedule, against PyTorch."""
    torch = oracle()
    model = network()
    start = arrays_of(model)
    rates = parse_rates(["classifier.fc3=1", "features.*=0.1", "*.bias=3"])
    optimizer = md.optim.SGD(parameter_groups(model, 0.05, rates), momentum=0.9, weight_decay=0.01)
    schedule = md.optim.StepLR(optimizer, step_size=1, gamma=0.5)

    def factor(name):
        if name.startswith("classifier.fc3"):
            return 1.0
        return 0.1 if name.startswith("features") else 3.0 if name.endswith("bias") else 1.0

    theirs = {name: torch.nn.Parameter(torch.from_numpy(array)) for name, array in start.items()}
    reference = torch.optim.SGD(
        [{"params": [p], "lr": 0.05 * factor(name)} for name, p in theirs.items()],
        momentum=0.9, weight_decay=0.01,
    )  # fmt: skip
    decay = torch.optim.lr_scheduler.StepLR(reference, 1, 0.5)
    generator = np.random.default_rng(3)
    for _ in range(3):
        for name, parameter in model.named_parameters():
            gradient = generator.standard_normal(parameter.shape).astype(np.float32)
            parameter.grad = md.tensor(gradient)
            theirs[name].grad = torch.from_numpy(gradient)
        optimizer.step()
        schedule.step()
        reference.step()
        decay.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(
            parameter.data, theirs[name].detach().numpy(), rtol=2e-6, atol=1e-7, err_msg=name
        )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 8)


def test_rates_that_make_no_sense():
    for text in ("features", "features=", "=2", "features=0", "fc=-1", "fc=nan", "fc=inf", ""):
        with pytest.raises(ValueError, match="expected PATTERN=FACTOR with a factor > 0, got "):
            parse_rates(["classifier=1", text])
    model = network()
    freeze(model, ["features.conv1"])
    for texts, expected in (
        (["feature=2"], "'feature' matches no layer or parameter; did you mean 'features'?"),
        (["features.conv1=2"], "'features.conv1' matches only what is frozen or has a rate"),
        (["classifier=2", "*.fc3=3"], "'*.fc3' matches only what is frozen or has a rate"),
    ):
        with pytest.raises(MinidlError) as caught:
            parameter_groups(model, 0.1, parse_rates(texts))
        assert str(caught.value).startswith(f"lr-scale: {expected}")


def checkpoint(path):
    return load_file(path / "last.safetensors")


def test_a_run_that_begins_with_the_weights_of_another(tmp_path, capsys):
    """Frozen layers keep their bits, also in a run that is resumed; patterns come from TOML too."""
    donor, run = tmp_path / "donor", tmp_path / "run"
    limited = ["--arch", "resnet20_cifar", "--limit", "16", "--batch-size", "8", "--epochs"]
    assert main([*limited, "1", "--out", str(donor)]) == 0
    config = tmp_path / "transfer.toml"
    config.write_text(f'weights = "{donor}"\nreplace_head = true\nfreeze = ["conv1", "bn1"]\n')
    options = ["--config", str(config), "--lr-scale", "layer[12]=0.1,layer3=0.5"]
    assert main([*limited, "1", *options, "--num-classes", "12", "--out", str(run)]) == 0
    output = capsys.readouterr().out
    assert f"weights from {donor}, new: fc.weight, fc.bias" in output
    assert "269,388 of 269,852 parameters learn" in output
    before = load_file(donor / "best.safetensors")
    for _ in range(2):
        after = checkpoint(run)
        frozen = [name for name in before if name.startswith(("conv1", "bn1"))]
        assert len(frozen) == 6  # running statistics and the counter among them
        for name in frozen:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        assert not np.array_equal(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])
        assert after["fc.weight"].shape == (12, 64)
        shutil.rmtree(donor, ignore_errors=True)  # which a run that goes on does not need
        assert main(["--resume", str(run), "--epochs", "2"]) == 0
    assert "begun with freeze ('conv1', 'bn1'), not ('conv1',)" in complaint(
        capsys, "--resume", str(run), "--freeze", "conv1"
    )


def test_options_of_transfer_that_are_wrong(tmp_path, capsys):
    lenet = [*LENET, "--out", str(tmp_path / "run")]
    assert "--replace-head needs --weights FILE" in complaint(capsys, *lenet, "--replace-head")
    assert "there are: features, classifier" in complaint(capsys, *lenet, "--freeze", "zzz")
    assert "leaves nothing to learn" in complaint(
        capsys, *lenet, "--freeze", "features", "--freeze", "classifier"
    )
    assert "expected PATTERN=FACTOR" in complaint(capsys, *lenet, "--lr-scale", "features:2")
    assert "lr-scale: 'zzz' matches no layer" in complaint(capsys, *lenet, "--lr-scale", "zzz=2")
    assert "cannot be read" in complaint(capsys, *lenet, "--weights", str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
