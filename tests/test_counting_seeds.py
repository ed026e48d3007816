"""The computed numbers that are kept for the lectures' numbers are computed here again."""

import json
import math

import pytest

import minidl as md
from minidl.counting import seeds, summary_of
from minidl.counting.summary import summary
from minidl.counting.table import size_text as size
from minidl.nn import Conv2d, Linear, MaxPool2d
from minidl.nn.parameter import parameters_without_values

NUMBERS = {number.id: number for number in seeds.seed_numbers()}
ALEXNET_2012 = 60.97e6


def named(arch, *names):
    """The outputs of these modules of a network."""
    found = {module.name: module for module in summary_of(arch).modules}
    return [size(found[name].shape) for name in names]


def weighted(arch):
    """The layers that have weights, but for the projections on shortcuts."""
    return [
        line
        for line in summary_of(arch).layers
        if line.weights and not any(part in line.name for part in ("downsample", "shortcut"))
    ]


def vgg16_rows():
    counted = summary_of("vgg16")
    return {
        "memory": [150528, *(line.memory for line in counted.layers)],
        "weights": [0, *(line.weights for line in counted.layers)],
    }


def vgg16_total_params():
    counted = summary_of("vgg16")
    linear = sum(line.weights for line in counted.layers if line.layer == "linear")
    return {
        "without biases": counted.weights,
        "with biases": counted.params,
        "share of the linear layers": f"{linear / counted.weights:.1%}",
    }


def vgg16_total_memory():
    memory = summary_of("vgg16").memory
    return {"numbers": memory, "bytes": memory * 4, "MB": round(memory * 4 / 1e6, 2)}


def alexnet_layers(kinds=("conv", "maxpool", "linear")):
    """Poolings and layers with weights; the groups of the paper change none of the shapes."""
    return [line for line in summary_of("alexnet_groups2").layers if line.layer.startswith(kinds)]


def alexnet_units():
    return {"units": sum(line.memory for line in alexnet_layers(("conv", "linear")))}


def alexnet_fc6():
    first = alexnet_layers(("linear",))[0]
    return {"inputs": first.weights // first.shape[0], "weights": first.weights}


def alexnet_pool1():
    pool = md.summary(MaxPool2d(3, stride=2), (96, 55, 55)).layers[0]
    return {"side": pool.shape[1], "parameters": pool.params}


def receptive_field():
    def weights(window, channels, layers):
        convolution = Conv2d(channels, channels, window, bias=False)
        return layers * summary(convolution, (channels, 8, 8)).weights

    many = [weights(3, 64, 3), weights(7, 64, 1)]
    return {
        "fields": [md.receptive_field([3] * n).size[0] for n in (1, 2, 3)],
        "C = 1": [weights(3, 1, 3), weights(7, 1, 1)],
        "C = 64": many,
        "ratio": round(many[0] / many[1], 3),
    }


def macs(inputs, outputs, window):
    layer = Conv2d(inputs, outputs, window, padding=window // 2, bias=False)
    return summary(layer, (inputs, 28, 28)).macs


def inception_output():
    return summary_of("inception_naive").modules[-1].shape


def inception_reduced_ops():
    total = summary_of("inception_reduced").macs
    return {
        "MACs": total,
        "with the 3x3 counted twice": total + macs(64, 192, 3),
        "saving": f"{summary_of('inception_naive').macs / total:.2f} times",
    }


def separable():
    return md.nn.Sequential(
        Conv2d(3, 24, 7, stride=2, padding=3, groups=3, bias=False),
        Conv2d(24, 64, 1, bias=False),
    )


def googlenet_conv1():
    plain = Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    counted = [summary(layer, (3, 224, 224)) for layer in (plain, separable())]
    return {
        "7x7": [counted[0].weights, counted[0].macs],
        "7x7 separable, 8 per channel": [counted[1].weights, counted[1].macs],
    }


def googlenet_conv2():
    lines = [line for line in summary_of("googlenet").layers if line.layer.startswith("conv")][1:3]
    weights = sum(line.weights for line in lines)
    return {
        "weights": weights,
        "K = 1024": weights / 1024,
        "MACs": sum(line.macs for line in lines),
    }


MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


def googlenet_blocks():
    """The nine modules, in order: the blocks that end where several branches are joined."""
    blocks = [line for line in summary_of("googlenet", depth=1).layers if "nception" in line.layer]
    assert len(blocks) == len(MODULES)
    return dict(zip(MODULES, blocks, strict=True))


def googlenet_channel_sums():
    blocks = googlenet_blocks()
    return {"channels": [blocks[name].shape[0] for name in ("3a", "3b", "4e", "5b")]}


def googlenet_table_shapes():
    lines = [line for line in summary_of("googlenet").layers if line.layer.startswith("conv")]
    outputs = [lines[0].shape, lines[2].shape, *(b.shape for b in googlenet_blocks().values())]
    return {"outputs": [*map(size, outputs), "1x1x1000"]}


def googlenet_params():
    counted = {
        "googlenet": summary_of("googlenet").params,
        "with both side heads": summary_of("googlenet_aux").params,
        "as in torchvision": summary_of("googlenet_tv").params,
    }
    ratio = ALEXNET_2012 / counted["googlenet"]
    return {**counted, "AlexNet (60.97M) has": f"{ratio:.1f} times as many"}


def googlenet_depth():
    lines = summary_of("googlenet", depth=1).layers
    modules = sum("nception" in line.layer for line in lines)
    others = sum(line.weights > 0 for line in lines) - modules
    pools = sum("pool" in line.layer for line in lines)
    return {"layers with weights": 2 * modules + others, "poolings": pools}


def resnet18_shapes():
    names = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")
    return {"outputs": named("resnet18", *names)}


def params_slide():
    with parameters_without_values():
        densenet = md.models.create("densenet121")
    statistics = sum(b.size for name, b in densenet.named_buffers() if "running" in name)
    return {
        "lenet5": summary_of("lenet5").params,
        "lenet5_orig": summary_of("lenet5_orig").params,
        "alexnet, two groups": summary_of("alexnet_groups2").params,
        "vgg16": summary_of("vgg16").params,
        "googlenet": summary_of("googlenet").params,
        "resnet18": summary_of("resnet18").params,
        "densenet121": summary_of("densenet121").params,
        "densenet121 with running statistics": summary_of("densenet121").params + statistics,
    }


def densenet_shapes():
    names = ("conv0", "pool0", "denseblock1", "transition1", "denseblock2", "transition2")
    names += ("denseblock3", "transition3", "denseblock4")
    return {"outputs": named("densenet121", *(f"features.{n}" for n in names), "classifier")}


def fc_vs_conv():
    linear = summary(Linear(128 * 128 * 3, 64, bias=False), (128 * 128 * 3,)).weights
    one = summary(Conv2d(3, 1, 3, bias=False), (3, 8, 8)).weights
    many = summary(Conv2d(3, 64, 3, bias=False), (3, 8, 8)).weights
    return {"inputs": linear // 64, "linear": linear, "one filter": one, "convolution": many}


def mlp_complexity():
    hidden = sum(p.size for p in Linear(1024, 1024, bias=False).parameters())
    return {"parameters": 3 * hidden + 1024}


def local_vs_shared():
    units = 1000 * 1000
    shared = summary(Conv2d(1, 100, 10, bias=False), (1, 16, 16)).weights
    return {"full": units * units, "local": units * 10 * 10, "shared": shared}


def init_variances():
    md.manual_seed(0)
    weight = md.empty(100, 400)
    fillers = (
        md.nn.init.lecun_normal_,
        md.nn.init.torch_legacy_uniform_,
        md.nn.init.glorot_normal_,
        md.nn.init.he_normal_,
    )
    kept = NUMBERS["init_variances"].computed["for n_in = 400, n_out = 100"]
    for fill, variance in zip(fillers, kept, strict=True):
        assert fill(weight).data.var() == pytest.approx(variance, rel=0.03)
    return NUMBERS["init_variances"].computed


def squeezenet_claims():
    params = summary_of("squeezenet1_0").params
    return {
        "parameters": params,
        "AlexNet (60.97M) has": f"{ALEXNET_2012 / params:.1f} times as many",
        "MB in float32": round(params * 4 / 1e6, 2),
    }


def alexnet_gpu_split():
    with parameters_without_values():
        model = md.models.create("alexnet_groups2")
    return {"groups of conv1 to conv5": [m.groups for m in model.modules() if type(m) is Conv2d]}


COMPUTED = {
    "vgg16_rows": vgg16_rows,
    "vgg16_total_params": vgg16_total_params,
    "vgg16_total_memory": vgg16_total_memory,
    "alexnet_shapes": lambda: {"outputs": [size(line.shape) for line in alexnet_layers()]},
    "alexnet_q1": lambda: {"side": md.conv_output_size(227, 11, stride=4)},
    "alexnet_q2": lambda: {
        "weights": alexnet_layers()[0].weights,
        "with biases": alexnet_layers()[0].params,
    },
    "alexnet_q3_q4": alexnet_pool1,
    "alexnet_224": lambda: {
        "224, no padding": md.conv_output_size(224, 11, stride=4),
        "227, no padding": md.conv_output_size(227, 11, stride=4),
        "224, padding 2": md.conv_output_size(224, 11, stride=4, padding=2),
    },
    "alexnet_fc6": alexnet_fc6,
    "alexnet_params": lambda: {
        "two groups, as in the paper": summary_of("alexnet_groups2").params,
        "without groups": summary_of("alexnet").params,
        "one weird trick": summary_of("alexnet_owt").params,
    },
    "alexnet_units": alexnet_units,
    "receptive_field": receptive_field,
    "inception_naive_shapes": lambda: {"output": size(inception_output())},
    "inception_concat": lambda: {"numbers": math.prod(inception_output())},
    "inception_naive_ops": lambda: {
        "MACs": summary_of("inception_naive").macs,
        "terms": [macs(256, 128, 1), macs(256, 192, 3), macs(256, 96, 5)],
    },
    "inception_reduced_ops": inception_reduced_ops,
    "googlenet_table_shapes": googlenet_table_shapes,
    "googlenet_conv1": googlenet_conv1,
    "googlenet_conv2": googlenet_conv2,
    "googlenet_inception_rows": lambda: {
        name: [block.weights, block.macs] for name, block in googlenet_blocks().items()
    },
    "googlenet_channel_sums": googlenet_channel_sums,
    "googlenet_params": googlenet_params,
    "googlenet_depth": googlenet_depth,
    "resnet18_shapes": resnet18_shapes,
    "resnet_depths": lambda: {
        "layers with weights": [len(weighted(f"resnet{depth}")) for depth in (18, 34, 50, 101, 152)]
    },
    "params_slide": params_slide,
    "densenet_counts": lambda: {
        depth: len(weighted(f"densenet{depth}")) for depth in ("121", "169", "201", "264")
    },
    "densenet_shapes": densenet_shapes,
    "fc_vs_conv": fc_vs_conv,
    "mlp_complexity": mlp_complexity,
    "local_vs_shared": local_vs_shared,
    "conv_7x7": lambda: {
        "sides": [
            md.conv_output_size(7, 3),
            md.conv_output_size(7, 3, stride=2),
            md.conv_output_size(7, 3, padding=1),
        ]
    },
    "init_variances": init_variances,
    "squeezenet_claims": squeezenet_claims,
    "alexnet_gpu_split": alexnet_gpu_split,
}

# Recorded or taken from papers: nothing that a count gives.
NOT_COUNTED = {
    "wrn_claim",
    "results_table",
    "ilsvrc_rank",
    "resnet_wd",
    "dropout_test_time",
    "plain_vs_residual",
}


def test_every_number_is_computed_or_known_not_to_be():
    assert set(COMPUTED) | NOT_COUNTED == set(NUMBERS)
    assert len(NUMBERS) == 41


@pytest.mark.parametrize("number", COMPUTED)
def test_the_kept_number_is_the_computed_one(number):
    assert NUMBERS[number].computed == COMPUTED[number]()


def test_dropout_keeps_with_probability_1_minus_p():
    md.manual_seed(0)
    kept = md.functional.dropout(md.ones(100_000), p=0.2) > 0
    assert float(kept.to(md.float64).mean().item()) == pytest.approx(1 - 0.2, abs=0.01)


def test_what_does_not_reproduce_says_why():
    assert {n.status for n in NUMBERS.values()} == {
        "reproduces",
        "rounds",
        "differs",
        "published",
        "training",
    }
    assert all(n.why for n in NUMBERS.values() if n.status != "reproduces")


def test_the_text_fits_its_width_and_ends_with_a_tally():
    lines = seeds.as_text(80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("41 numbers: ")
    assert sum("(0" in line and ": " in line for line in lines) >= 41


def test_markdown_has_a_row_for_each_and_json_is_the_data():
    rows = [line for line in seeds.as_markdown().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 41
    assert json.loads(seeds.as_json()) == [n._asdict() for n in NUMBERS.values()]
