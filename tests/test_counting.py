"""Counting a network layer by layer, and the tables it is shown in."""

import gc
import io
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from rich.console import Console

import minidl as md
import minidl.summary as command
from minidl.counting import seeds, summary_of, table
from minidl.counting.summary import Summary, summary
from minidl.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Parameter,
    ReLU,
    Sequential,
)
from minidl.nn.parameter import parameters_without_values

# ---- formulas ----


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((227, 11, 4), 55),
        ((224, 11, 4), 54),
        ((224, 11, 4, 2), 55),
        ((7, 3, 1, "same"), 7),
        ((9, 3, 2, 0, 2), 3),
        (((7, 9), 3, 2), (3, 4)),
        (((7, 7), (3, 1), (1, 2)), (5, 4)),
    ],
)
def test_conv_output_size(arguments, expected):
    assert md.conv_output_size(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((4, 5), ValueError, "conv_output_size: window 5x5 does not fit the padded input 4x4"),
        ((7, (3, 1)), ValueError, "conv_output_size: the output is 5x7; give the input_size as a"),
        ((7.5, 3), TypeError, "conv_output_size: input_size must be an integer or a pair"),
        ((7, 3, 0), ValueError, "conv_output_size: stride must be at least 1, got 0"),
        ((7, 3, 2, "same"), ValueError, "conv_output_size: padding='same' needs stride 1"),
    ],
)
def test_conv_output_size_says_what_does_not_fit(arguments, error, text):
    with pytest.raises(error) as raised:
        md.conv_output_size(*arguments)
    assert str(raised.value).startswith(text)


def test_receptive_field_of_vgg16():
    layers = [3, 3, (2, 2)] * 2 + [3, 3, 3, (2, 2)] * 3
    assert md.receptive_field(layers) == ((212, 212), (32, 32))
    assert md.receptive_field([]) == ((1, 1), (1, 1))
    assert md.receptive_field([((3, 1), (2, 1)), (3, 1, 2)]) == ((11, 5), (2, 1))


@pytest.mark.parametrize(
    ("layers", "error", "text"),
    [
        ([(3, 1, 1, 0)], ValueError, "receptive_field: a layer is its window, (window, stride)"),
        ([(3, 0)], ValueError, "receptive_field: stride must be at least 1, got 0"),
        (["3x3"], ValueError, "receptive_field: window"),
        ([None], TypeError, "receptive_field: window must be an integer or a pair"),
    ],
)
def test_receptive_field_says_what_is_no_layer(layers, error, text):
    with pytest.raises((ValueError, TypeError)) as raised:
        md.receptive_field(layers)
    assert str(raised.value).startswith("receptive_field: ")


# ---- counts ----


class TwoHeads(Module):
    """Branches, a shared layer, a weight of its own, and a head for training only."""

    def __init__(self):
        super().__init__()
        self.stem = Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(8)
        self.wide = Conv2d(8, 8, 5, padding=2, groups=4)
        self.small = Conv2d(8, 4, (1, 1))
        self.scale = Parameter(md.ones(12, 1, 1))
        self.drop = Dropout(0.5)
        self.fc = Linear(12, 5)
        self.aux = Linear(12, 7)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.wide(self.wide(x))
        x = md.concat([x, self.small(x)], dim=1) * self.scale
        features = self.drop(x.mean((2, 3)))
        scores = self.fc(features)
        return (scores, self.aux(features)) if self.training else scores


def test_each_layer_is_counted():
    counted = md.summary(TwoHeads(), (3, 6, 10))
    lines = {line.name: line for line in counted.layers}
    assert [line.name for line in counted.layers] == [
        "stem",
        "norm",
        "wide",
        "wide",
        "small",
        "fc",
        "",
    ]
    assert (lines["stem"].params, lines["stem"].weights) == (216, 216)
    assert lines["stem"].macs == 60 * 8 * 27
    assert (lines["norm"].params, lines["norm"].weights, lines["norm"].macs) == (16, 0, 0)
    assert [line.params for line in counted.layers if line.name == "wide"] == [8 * 2 * 25 + 8, 0]
    assert [line.layer for line in counted.layers[:3]] == [
        "conv 3x3/1 p1",
        "batchnorm",
        "conv 5x5/1 p2 g4",
    ]
    assert lines["small"].shape == (4, 6, 10)
    assert lines["small"].receptive_field == (11, 11)
    assert lines["fc"].shape == (5,)
    assert lines["fc"].jump is None
    assert lines[""].params == 12  # the scale belongs to the network itself
    assert counted.uncalled_params == 12 * 7 + 7
    assert counted.uncalled_weights == 12 * 7
    assert counted.params == sum(p.size for p in TwoHeads().parameters())
    assert counted.macs == 60 * (8 * 27 + 2 * 8 * 2 * 25 + 4 * 8) + 12 * 5


def test_training_counts_the_heads_of_training():
    evaluation = md.summary(TwoHeads(), (3, 6, 10))
    training = md.summary(TwoHeads(), (3, 6, 10), training=True)
    assert training.macs - evaluation.macs == 12 * 7
    assert training.params == evaluation.params
    assert training.uncalled_params == 0


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(training):
    model = TwoHeads()
    model.drop.eval()
    model.norm.running_mean.add_(3.0)
    before = {name: t.data.copy() for name, t in model.state_dict().items()}
    md.manual_seed(5)
    expected = md.rand(3).tolist(), md.functional.dropout(md.ones(40)).tolist()
    md.manual_seed(5)
    md.summary(model, (3, 6, 10), training=training)
    assert (md.rand(3).tolist(), md.functional.dropout(md.ones(40)).tolist()) == expected
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.data, before[name])
    assert model.training
    assert not model.drop.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_network_is_left_as_it_was_after_an_error():
    model = TwoHeads()
    with pytest.raises(ValueError, match="conv2d: input has 4 channels, weight expects 3"):
        md.summary(model, (4, 6, 10))
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_works_in_place_has_no_line():
    model = Sequential(
        Conv2d(1, 4, 3),
        ReLU(),
        LocalResponseNorm(),
        AdaptiveAvgPool2d(6),
        MaxPool2d(3, stride=1, padding=1),
        GlobalAvgPool2d(),
        Flatten(),
        Dropout(),
    )
    lines = md.summary(model, (1, 8, 8)).layers
    kinds = ["conv 3x3/1", "lrn 5", "maxpool 3x3/1 p1", "avgpool to 1x1"]
    assert [line.layer for line in lines] == kinds
    assert [line.memory for line in lines] == [144, 144, 144, 4]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Conv2d(2, 2, 3), "conv 3x3/1"),
        (Conv2d(2, 2, (3, 1), stride=(1, 2), padding=(1, 0)), "conv 3x1/1x2 p1x0"),
        (Conv2d(2, 2, 3, padding="same", dilation=2, groups=2), "conv 3x3/1 same d2 g2"),
        (MaxPool2d(3, stride=2, padding=1, ceil_mode=True), "maxpool 3x3/2 p1 ceil"),
        (AvgPool2d((2, 1)), "avgpool 2x1/2x1"),
        (AdaptiveAvgPool2d((2, 3)), "avgpool to 2x3"),
        (TwoHeads(), "TwoHeads"),
    ],
)
def test_what_a_layer_is_called(layer, text):
    shape = (3 if isinstance(layer, TwoHeads) else 2, 8, 8)
    assert md.summary(layer, shape, depth=0).layers[0].layer == text


def test_depth_makes_lines_of_blocks():
    model = md.models.create("resnet20_cifar")
    whole, blocks, layers = (md.summary(model, depth=depth) for depth in (0, 1, None))
    assert 1 == len(whole.layers) < len(blocks.layers) < len(layers.layers)
    for entry in ("params", "weights", "macs", "memory"):
        assert len({getattr(s, entry) for s in (whole, blocks, layers)}) == 1
    assert whole.layers[0].shape == (10,)


def test_modules_may_take_and_return_several_tensors():
    class Join(Module):
        def forward(self, branches):
            return {"sum": branches[0] + branches[1], "first": branches[0]}

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = Conv2d(1, 2, 3), Conv2d(1, 2, 3)
            self.join = Join()

        def forward(self, x):
            return self.join([self.left(x), self.right(x)])["sum"]

    counted = md.summary(Net(), (1, 5, 5))
    assert counted.params == 40
    assert counted.modules[-1].shape == (2, 3, 3)


def test_a_network_with_values_counts_like_one_without():
    assert summary_of("lenet5") == md.summary(md.models.create("lenet5"))
    assert summary_of("lenet5", num_classes=26).layers[-1].shape == (26,)


def test_a_network_in_float64_counts_like_one_in_float32():
    model = md.models.create("lenet5")
    assert md.summary(model) == md.summary(model.to(md.float64))


def test_parameters_have_values_again_outside():
    with parameters_without_values():
        assert not Linear(3, 2).weight.data.strides[0]
    assert Linear(3, 2).weight.data.any()


def test_nothing_of_the_size_of_a_feature_map_is_allocated():
    model = md.models.create("vgg11", in_channels=1, image_size=32)
    md.summary(model)
    gc.collect()
    tracemalloc.start()
    md.summary(model, (1, 1024, 1024))  # the first feature maps take 268 MB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_1202_layers_are_counted_in_little_memory():
    tracemalloc.start()
    assert summary_of("resnet1202_cifar").params == 19_421_274
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000  # modules and lines; the weights alone would take 78 MB


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("vgg16",), TypeError, "summary: model must be a Module, got str; for a name, md.models"),
        ((Linear(2, 3),), ValueError, "summary: Linear does not know the images it is for; give"),
        (
            (Linear(2, 3), np.ones((1, 2))),
            TypeError,
            "summary: input_shape must be the sizes of one input, such as (C, H, W), got ndarray "
            "of shape (1, 2)",
        ),
        (
            (Linear(2, 3), (2.5,)),
            TypeError,
            "summary: input_shape must be the sizes of one input, such as (C, H, W), got (2.5,)",
        ),
    ],
)
def test_errors(arguments, error, text):
    with pytest.raises(error) as raised:
        md.summary(*arguments)
    assert str(raised.value).startswith(text)


def test_a_batch_in_the_input_shape_is_noticed():
    with pytest.raises(ValueError, match=r"conv2d: .* without the batch: \(3, 8, 8\)\?\)$"):
        md.summary(Conv2d(3, 4, 3), (1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"^conv2d: [^?]*$"):
        md.summary(Conv2d(3, 4, 3), (1, 8, 8))


# ---- tables ----


def wide_numbers():
    """A summary with a long name, large numbers and windows that are not square."""
    block = Sequential({"convolution_with_a_long_name": Conv2d(3, 1024, (7, 11), padding=(3, 5))})
    return md.summary(Sequential({"stage_of_the_network": block}), (3, 1024, 1024))


def rendered(counted, bias):
    screen = io.StringIO()
    Console(width=80, file=screen).print(table.as_rich(counted, bias))
    return screen.getvalue()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "counted", [summary_of("vgg16"), summary_of("resnet50"), wide_numbers()], ids=lambda s: s.model
)
def test_tables_fit_80_columns_and_show_every_number(counted, bias):
    text, rich = table.as_text(counted, bias), rendered(counted, bias)
    assert max(map(len, text.splitlines())) <= 80
    for line in counted.layers:
        numbers = f"{line.params if bias else line.weights:,}"
        for picture in (text, rich):
            assert any(line.name[-5:] in row and numbers in row for row in picture.splitlines())
    assert "…" not in "".join(row[8:] for row in (text + rich).splitlines()[1:])


def test_text():
    assert table.as_text(summary_of("lenet5"), bias=False).splitlines() == [
        "lenet5, input 32x32x1",
        "---------------------------------------------------------------------------",
        "layer           operation      output    memory  params   MACs  field  jump",
        "---------------------------------------------------------------------------",
        "input                          32x32x1     1024",
        "features.conv1  conv 5x5/1     28x28x6     4704     150   118K      5     1",
        "features.pool1  avgpool 2x2/2  14x14x6     1176       0      0      6     2",
        "features.conv2  conv 5x5/1     10x10x16    1600   2,400   240K     14     2",
        "features.pool2  avgpool 2x2/2  5x5x16       400       0      0     16     4",
        "classifier.fc1  linear         120          120  48,000  48.0K     32",
        "classifier.fc2  linear         84            84  10,080  10.1K     32",
        "classifier.fc3  linear         10            10     840    840     32",
        "---------------------------------------------------------------------------",
        "61,470 parameters without biases and normalisation (61,706 with)",
        "416,520 MACs (multiply-accumulates; FLOPs are twice as many)",
        "9,118 numbers x 4 bytes = 0.04 MB for one image, forward only",
    ]


def test_names_are_shortened_in_front():
    lines = table.as_text(wide_numbers(), width=70).splitlines()
    assert lines[5].startswith("s…g_name conv 7x11/1 p3x5 ")


@pytest.mark.parametrize("arch", ["densenet121", "inception_v3", "googlenet", "resnet152"])
def test_shortened_names_are_told_apart(arch):
    counted = summary_of(arch)
    rows = table.as_text(counted).splitlines()[5 : 5 + len(counted.layers)]
    assert max(map(len, rows)) <= 80
    assert len({row.split()[0] for row in rows}) == len(rows)


def test_names_are_whole_where_the_output_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert command.main(["densenet121"]) == 0
    printed = capsys.readouterr().out.split()
    assert {line.name for line in summary_of("densenet121").layers} <= set(printed)


def test_names_grow_where_they_would_look_the_same():
    names = ["first.weight_of_the_same_name", "fifth.weight_of_the_same_name"]
    assert table.shortened(names, 8) == names


def test_heads_that_were_not_called_are_mentioned():
    counted = md.summary(TwoHeads(), (3, 6, 10))
    assert "(not called)" in table.as_text(counted)
    assert "| (not called) |  |  |  | 84 |" in table.as_markdown(counted, bias=False)


def test_markdown_has_exact_numbers():
    lines = table.as_markdown(summary_of("vgg16")).splitlines()
    assert lines[0] == "### vgg16, input 224x224x3"
    assert (
        lines[5]
        == "| features.0 | conv 3x3/1 p1 | 224x224x64 | 3,211,264 | 1,792 | 86,704,128 | 3 | 1 |"
    )
    assert len({line.count("|") for line in lines[2:26]}) == 1


def test_json_has_all_fields():
    counted = summary_of("vgg16")
    loaded = json.loads(table.as_json(counted))
    assert loaded["memory_bytes"] == 60_950_432
    assert (loaded["params"], loaded["weights"]) == (counted.params, counted.weights)
    assert loaded["layers"][0] == {
        "name": "features.0",
        "layer": "conv 3x3/1 p1",
        "shape": [64, 224, 224],
        "params": 1792,
        "weights": 1728,
        "macs": 86_704_128,
        "memory": 3_211_264,
        "receptive_field": [3, 3],
        "jump": [1, 1],
    }


def test_a_summary_shows_itself_as_a_table():
    counted = summary_of("lenet5")
    assert str(counted) == repr(counted) == table.as_text(counted)


# ---- the command ----


@pytest.mark.parametrize(
    ("form", "beginning"),
    [
        ("rich", "lenet5, input 28x28x3"),
        ("text", "lenet5, input 28x28x3"),
        ("markdown", "### lenet5, input 28x28x3"),
        ("json", "{"),
    ],
)
def test_command(capsys, form, beginning):
    arguments = "lenet5 --no-bias --depth 1 --in-channels 3 --image-size 28 --num-classes 7"
    assert command.main([*arguments.split(), "--format", form]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(beginning)
    assert "classifier" in printed
    assert "fc1" not in printed


def test_command_lists_the_numbers_of_the_lectures(capsys):
    assert command.main(["--seeds"]) == 0
    assert "vgg16_total_memory (000 004): differs" in capsys.readouterr().out
    assert command.main(["--seeds", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 41


def test_numbers_of_the_lectures_as_rich_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert command.main(["--seeds", "--format", "rich"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(tuple(seeds.COLOURS)) for line in lines) == 41
    assert "differs     vgg16_total_memory (000 004)" in lines
    assert lines[-1].startswith("41 numbers: ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", "give the name of an architecture, or --seeds"),
        ("vgg16 --seeds", "give the name of an architecture, or --seeds"),
        ("vgg-16", "unknown architecture 'vgg-16'; did you mean 'vgg16'?"),
        ("vgg16 --image-size 8", "vgg16: image_size must be at least 32, got 8"),
        ("vgg16 --depth -1", "argument --depth: expected a whole number >= 0, got '-1'"),
    ],
)
def test_command_complains_in_one_line(capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments.split())
    assert stopped.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("minidl.summary: ")
    assert complaint.count("\n") == 1
    assert text in complaint


def test_importing_the_command_leaves_the_function_callable():
    assert isinstance(md.summary(md.models.create("lenet5")), Summary)
    assert command(md.models.create("lenet5")) == summary(md.models.create("lenet5"))


def test_the_command_runs_as_a_module_without_warnings():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "minidl.summary", "lenet5", "--depth", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "61,706 parameters" in done.stdout
