"""FractalNet."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
from conftest import oracle
from networks import check_training, count, lazy_weights
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.models import fractalnet
from minidl.models.fractalnet import FractalNet, Join

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "fractalnet20_cifar": (33_714_314, 33_704_000, 845_222_912),
    "fractalnet20_cifar_doubling": (38_598_884, 38_566_976, 1_021_429_760),
    "fractalnet40_cifar": (76_084_554, 76_062_464, 2_036_077_568),
    "fractalnet_thin_c1": (258_660, 257_456, 4_583_936),
    "fractalnet_thin_c2": (848_820, 845_408, 19_182_080),
    "fractalnet_thin_c3": (2_127_780, 2_119_952, 53_834_240),
    "fractalnet_thin_c4": (4_784_340, 4_767_680, 128_594_432),
    "fractalnet_thin_c5": (10_196_100, 10_161_776, 283_570_688),
    "fractalnet_thin_c6": (21_118_260, 21_048_608, 598_979_072),
}

# Parameters of the blocks, with the 1x1 convolutions in front of them.
BLOCKS = {
    "fractalnet20_cifar": (153_088, 811_904, 3_245_824, 12_979_712, 16_518_656),
    "fractalnet20_cifar_doubling": (
        153_984,
        8_320 + 1_034_880,
        33_024 + 4_134_144,
        131_584 + 16_525_824,
        16_525_824,
    ),
    "fractalnet40_cifar": (413_376, 1_918_848, 7_671_552, 30_678_528, 35_397_120),
    "fractalnet_thin_c1": (480, 4_704, 18_624, 74_112, 147_840),
    "fractalnet_thin_c3": (10_848, 51_360, 204_096, 813_696, 1_034_880),
    "fractalnet_thin_c6": (136_944, 559_008, 2_223_936, 8_871_552, 9_313_920),
}


@pytest.fixture
def lazy(monkeypatch):
    lazy_weights(monkeypatch)
    monkeypatch.setattr(nn.init, "lecun_uniform_", nn.init.he_normal_)


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, lazy):
    model = models.create(arch)
    outputs = {}
    for index, block in enumerate(model.blocks):
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(
                    lambda m, args, y, index=index: outputs.setdefault((index, "in"), set()).add(
                        (*y.shape[2:], y.shape[1])
                    )
                )
        block.register_forward_hook(
            lambda m, args, y, index=index: outputs.update({index: (*y.shape[2:], y.shape[1])})
        )
    *numbers, shapes = count(model)
    assert tuple(numbers) == COUNTS[arch]
    assert model.arch == arch

    thin = "thin" in arch
    sides = zip(
        (32, 16, 8, 4, 2),
        (16, 32, 64, 128, 128) if thin else (64, 128, 256, 512, 512),
        strict=True,
    )
    for index, (side, width) in enumerate(sides):
        assert outputs[index, "in"] == {(side, side, width)}
        assert outputs[index] == (side // 2, side // 2, width)
    classes = 100 if thin or arch.endswith("doubling") else 10
    assert (shapes["fc"], model.num_classes) == (str(classes), classes)


@pytest.mark.parametrize("arch", BLOCKS)
def test_parameters_of_blocks(arch, lazy):
    sizes = [sum(p.size for p in block.parameters()) for block in models.create(arch).blocks]
    assert tuple(sizes) == BLOCKS[arch]


def test_depth_is_the_longest_column(lazy):
    depths = {
        arch: sum(len(block.columns[-1]) for block in models.create(arch).blocks) for arch in COUNTS
    }
    assert list(depths.values()) == [20, 20, 40, 5, 10, 20, 40, 80, 160]


def fractal_network(torch, weights, x, blocks, columns, column=None):
    """Logits by PyTorch in training mode, without any drop: the paper's recursion."""
    functional = torch.nn.functional

    def layer(x, name):
        x = functional.conv2d(
            x, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], padding=1
        )
        scale, shift = weights.get(f"{name}.bn.weight"), weights.get(f"{name}.bn.bias")
        return torch.relu(functional.batch_norm(x, None, None, scale, shift, training=True))

    def mean(paths):
        return torch.stack(paths).mean(0)

    for block in range(blocks):
        used = [0] * columns

        def next_layer(x, index, used=used, block=block):
            x = layer(x, f"blocks.{block}.columns.{index}.{used[index]}")
            used[index] += 1
            return x

        def fractal(x, c, next_layer=next_layer):
            """What the c deepest columns put out before they are joined."""
            if c == 1:
                return [next_layer(x, columns - 1)]
            beside = next_layer(x, columns - c)
            half = mean(fractal(x, c - 1, next_layer))
            return [beside, *fractal(half, c - 1, next_layer)]

        double = f"blocks.{block}.double."
        if f"{double}weight" in weights:
            x = functional.conv2d(x, weights[f"{double}weight"], weights[f"{double}bias"])
        if column is None:
            x = mean([functional.max_pool2d(end, 2) for end in fractal(x, columns)])
        else:
            for _ in range(2**column):
                x = next_layer(x, column)
            x = functional.max_pool2d(x, 2)
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


STILL = {"drop_path": 0.0, "global_drop": 0.0, "dropout": 0.0}


@pytest.mark.parametrize(
    ("columns", "widths", "options"),
    [
        (1, (4, 5, 6), {}),
        (2, (4, 5, 5), {"doubling": True}),
        (3, (4, 6), {"affine": True}),
        (4, (4, 6), {"affine": True, "doubling": True}),
    ],
)
def test_thin_networks_agree_with_pytorch(columns, widths, options):
    md.manual_seed(2)
    model = FractalNet("thin", columns, widths, classes=5, **STILL, **options)
    compare(model, 32, network=fractal_network, blocks=len(widths), columns=columns)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_single_column_agrees_with_pytorch(column):
    torch = oracle()
    md.manual_seed(3)
    model = FractalNet("thin", 3, (4, 6), classes=5, affine=True, **STILL).to(md.float64)
    images = np.random.default_rng(3).normal(size=(2, 3, 32, 32))
    weights = {name: torch.tensor(p.data) for name, p in model.named_parameters()}
    expected = fractal_network(torch, weights, torch.tensor(images), 2, 3, column)
    x = md.tensor(images)
    for block in model.blocks:
        x = block(x, column)
    logits = model.fc(x.mean((2, 3)))
    np.testing.assert_allclose(logits.data, expected.numpy(), 1e-9, 1e-10)


@pytest.mark.parametrize("doubling", [False, True])
def test_training_of_thin_networks(doubling):
    md.manual_seed(1)
    options = {"affine": True, "doubling": doubling, **STILL}
    make = partial(
        FractalNet, "thin", 3, (3, 4, 5), classes=9, num_classes=3, in_channels=2, **options
    )
    check_training(make, 32)


def test_pooling_comes_before_the_last_join():
    md.manual_seed(4)
    block = fractalnet.FractalBlock(
        2, 3, columns=2, dropout=0.0, drop_path=0.0, affine=False
    ).eval()
    x = md.randn(2, 2, 6, 6)
    shallow, deep = (block.columns[index](x) for index in (0, 1))
    pooled_first = (block.pool(shallow) + block.pool(deep)) / 2
    joined_first = block.pool((shallow + deep) / 2)
    np.testing.assert_allclose(block(x).data, pooled_first.data, rtol=1e-6)
    assert np.abs(joined_first.data - pooled_first.data).max() > 0.01


# ---- drop-path ----


@pytest.mark.parametrize("paths", [2, 3])
@pytest.mark.parametrize("drop_path", [0.15, 0.6])
def test_local_drops_are_as_frequent_as_they_should_be(paths, drop_path):
    md.manual_seed(5)
    join = Join(drop_path)
    tries = 3000
    inputs = [md.tensor([10.0**index]) for index in range(paths)]
    subsets = {}  # by the mean of what is kept
    for subset in itertools.product((False, True), repeat=paths):
        if any(subset):
            subsets[np.mean([10.0**i for i in range(paths) if subset[i]])] = subset
    kept = np.array([subsets[join(*inputs).item()] for _ in range(tries)])
    assert len(subsets) == 2**paths - 1
    survival = 1 - drop_path + drop_path**paths / paths  # one is kept where all would be dropped
    deviation = math.sqrt(survival * (1 - survival) / tries)
    assert (np.abs(kept.mean(axis=0) - survival) < 4 * deviation).all()
    number = kept.sum(axis=1).mean()
    assert number == pytest.approx(paths * survival, abs=0.05)


def test_joins_decide_for_the_whole_batch_and_mean_what_is_left():
    md.manual_seed(6)
    join = Join(0.5)
    a, b = md.zeros(4, 2, 3, 3), md.ones(4, 2, 3, 3)
    values = {tuple(np.unique(join(a, b).data).tolist()) for _ in range(50)}
    assert values == {(0.0,), (1.0,), (0.5,)}
    assert np.unique(join.eval()(a, b).data).tolist() == [0.5]


@pytest.mark.parametrize("drop_path", [0.0, 1.0])
def test_extreme_drops(drop_path):
    md.manual_seed(7)
    join = Join(drop_path)
    values = {join(md.zeros(1), md.ones(1)).item() for _ in range(40)}
    assert values == ({0.5} if drop_path == 0.0 else {0.0, 1.0})


def count_layers(model):
    """Hook the columns of all blocks; returns {(block, column): layers computed}, filled later."""
    computed = {}
    for number, block in enumerate(model.blocks):
        for index, column in enumerate(block.columns):
            for layer in column:

                def note(module, args, place=(number, index)):
                    computed[place] = computed.get(place, 0) + 1

                layer.register_forward_pre_hook(note)
    return computed


def test_global_drop_takes_one_column_of_the_whole_network():
    md.manual_seed(8)
    model = FractalNet("thin", 3, (1, 1), classes=2, drop_path=0.15, global_drop=0.5)
    computed = count_layers(model)
    x = md.randn(2, 3, 32, 32)
    steps, seen = 600, {"all": 0, 0: 0, 1: 0, 2: 0}
    with md.no_grad():
        for _ in range(steps):
            computed.clear()
            model(x)
            columns = {column for _, column in computed}
            if len(columns) == 3:
                seen["all"] += 1
                assert set(computed.values()) == {1, 2, 4}
            else:
                (column,) = columns
                seen[column] += 1
                assert computed == {(0, column): 2**column, (1, column): 2**column}
    for kind, probability in (("all", 1 / 2), (0, 1 / 6), (1, 1 / 6), (2, 1 / 6)):
        deviation = math.sqrt(steps * probability * (1 - probability))
        assert abs(seen[kind] - steps * probability) < 4 * deviation

    computed.clear()
    before = md.get_rng_state()
    with md.no_grad():
        model.eval()(x)
    assert computed == {(block, column): 2**column for block in (0, 1) for column in (0, 1, 2)}
    assert md.get_rng_state() == before  # nothing is left to chance


def test_evaluation_is_the_full_network_whatever_the_drops():
    md.manual_seed(9)
    make = partial(FractalNet, "thin", 3, (3, 4), classes=4)
    model, still = make(drop_path=0.6, global_drop=0.9, dropout=0.5).eval(), make(**STILL).eval()
    still.load_state_dict(model.state_dict())
    x = md.randn(2, 3, 32, 32)
    np.testing.assert_array_equal(model(x).data, still(x).data)


def test_what_is_dropped_gets_no_gradient():
    md.manual_seed(10)
    model = FractalNet("thin", 3, (3, 4), classes=4, global_drop=1.0, affine=True)
    model(md.randn(2, 3, 32, 32)).sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    columns = {name.split(".columns.")[1][0] for name in reached if ".columns." in name}
    assert len(columns) == 1
    (column,) = columns
    assert reached == {
        name
        for name, _ in model.named_parameters()
        if name.startswith("fc.") or f".columns.{column}." in name
    }


def train(model, optimizer, steps, x):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = md.functional.cross_entropy(model(x), md.arange(len(x)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_runs_repeat_and_go_on_where_they_stopped():
    def fresh(seed):
        md.manual_seed(seed)
        model = FractalNet("thin", 3, (2, 3), classes=4, affine=True)
        return model, md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    x = md.tensor(np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32))
    model, optimizer = fresh(3)
    losses = train(model, optimizer, 3, x)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), md.get_rng_state()))
    rest = train(model, optimizer, 6, x)

    model, optimizer = fresh(3)
    assert train(model, optimizer, 9, x) == losses + rest

    model, optimizer = fresh(4)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    md.set_rng_state(saved[2])
    assert train(model, optimizer, 6, x) == rest


# ---- options ----


def test_dropout_grows_from_block_to_block_and_precedes_normalisation(lazy):
    model = models.create("fractalnet20_cifar")
    rates = [
        {layer.p for layer in block.modules() if isinstance(layer, nn.Dropout)}
        for block in model.blocks
    ]
    assert [round(rate, 6) for (rate,) in rates] == [0.0, 0.1, 0.2, 0.3, 0.4]
    names = [name for name, _ in model.blocks[2].columns[1][0].named_children()]
    assert names == ["conv", "dropout", "bn", "relu"]
    assert model.blocks[0].join.drop_path == 0.15
    assert model.global_drop == 0.5
    assert {layer.affine for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {
        False
    }


def test_start_is_uniform_with_variance_one_over_fan_in():
    md.manual_seed(11)
    model = models.create("fractalnet_thin_c2")
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.size > 10_000:
            fan_in = layer.weight.data[0].size
            assert layer.weight.data.std() == pytest.approx(fan_in**-0.5, rel=0.05), name
            assert np.abs(layer.weight.data).max() <= (3 / fan_in) ** 0.5
            assert not layer.bias.data.any()


@pytest.mark.parametrize("option", ["drop_path", "global_drop"])
@pytest.mark.parametrize("value", [-0.5, 1.1])
def test_probabilities_are_checked(option, value, lazy):
    with pytest.raises(
        ValueError, match=rf"^FractalNet: {option} must be in \[0, 1\], got {value}$"
    ):
        models.create("fractalnet_thin_c2", **{option: value})


def test_too_small_images_name_the_smallest(lazy):
    with pytest.raises(
        ValueError, match=r"^fractalnet_thin_c2: image_size must be at least 32, got 31$"
    ):
        models.create("fractalnet_thin_c2", image_size=31)
    model = models.create("fractalnet_thin_c2", num_classes=7, in_channels=1).eval()
    with pytest.raises(
        ValueError, match=r"^fractalnet_thin_c2: images must be at least 32x32, got 32x31$"
    ):
        model(md.zeros(1, 1, 32, 31))
    with md.no_grad():
        assert model(md.zeros(2, 1, 32, 40)).shape == (2, 7)
        assert model(md.zeros(1, 1, 70, 64)).shape == (1, 7)
