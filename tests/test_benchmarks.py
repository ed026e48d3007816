"""The benchmarks compare like with like, and print what they say they print."""

import json

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from benchmarks import cpu, measure

# PyTorch's torch.fx, which folds batch normalisation, imports what PyTorch itself calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

CASES = [  # stride, padding, groups, and windows that are not square
    measure.Convolution((4, 9, 8), (6, 4, 3, 2), (2, 1), (1, 0), 1),
    measure.Convolution((6, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), 2),
]


@pytest.mark.parametrize("name", cpu.NETWORKS)
def test_rival_is_the_same_network(name):
    torch = oracle()
    from benchmarks import torch_networks

    side = md.models.min_image_size(name) + 1
    md.manual_seed(0)
    model = md.models.create(name, image_size=side).eval()
    rng = np.random.default_rng(1)
    weights = {key: tensor.data for key, tensor in model.state_dict().items()}
    for array in weights.values():  # leave the start, where biases and statistics are trivial
        if array.ndim == 1:
            array += rng.uniform(0.0, 0.2, array.shape).astype(np.float32)
    rival = torch_networks.create(name, side, weights).eval()
    images = rng.standard_normal((2, 3, side, side), dtype=np.float32)
    with md.no_grad(), torch.no_grad():
        ours, theirs = model(md.from_numpy(images)).data, rival(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    assert np.ptp(theirs) > 1e-3


@pytest.mark.parametrize("conv", CASES, ids=str)
def test_convolutions_compute_the_same(conv):
    oracle()
    check_convolutions(conv, measure.PYTORCH)


@pytest.mark.parametrize("conv", CASES, ids=str)
def test_convolutions_of_jax_compute_the_same(conv):
    pytest.importorskip("jax", exc_type=ImportError)
    check_convolutions(conv, (measure.JAX,))


def check_convolutions(conv, modes):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, *conv.input_shape), dtype=np.float32)
    weight = rng.standard_normal(conv.weight_shape, dtype=np.float32)
    shape = measure.convolution_works(conv, measure.MINIDL, x, weight, x)["forward"]().shape
    dy = rng.standard_normal(shape, dtype=np.float32)
    ours = measure.convolution_works(conv, measure.MINIDL, x, weight, dy)
    for mode in modes:
        theirs = measure.convolution_works(conv, mode, x, weight, dy)
        assert list(ours) == list(theirs) == list(measure.CONVOLUTION_WORKS)
        for work in ours:
            result = theirs[work]()
            if isinstance(result, tuple):
                (result,) = [gradient for gradient in result if gradient is not None]
            found = np.asarray(result)
            if mode == measure.JAX:  # NHWC, and weights (R, S, C, K)
                found = found.transpose((3, 2, 0, 1) if work == "weight gradient" else (0, 3, 1, 2))
            np.testing.assert_allclose(ours[work](), found, rtol=1e-4, atol=1e-4)


def test_all_infer_the_same():
    """With batch normalisation folded by each in its own way."""
    oracle()
    onnx_runtime = pytest.importorskip("onnxruntime", exc_type=ImportError)
    images, labels = measure.random_batch(2, 64)
    outputs = {}

    class Session(onnx_runtime.InferenceSession):
        def run(self, *args):
            (outputs[measure.ONNX],) = super().run(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_runtime, "InferenceSession", Session)
        for mode in (measure.MINIDL, *measure.PYTORCH, measure.ONNX):
            works = measure.network_works("resnet18", mode, images, labels)
            result = works["inference"]()
            if mode != measure.ONNX:
                outputs[mode] = result.numpy()
    expected = outputs[measure.MINIDL]
    for mode, found in outputs.items():
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < 1e-5, mode


def test_the_ceiling_counts_the_operations_of_every_thread():
    alone = measure.gemm.multiply_in_cache(64, 3, 1)
    assert alone > 0
    assert alone % (2 * 64 * 3) == 0
    assert measure.gemm.multiply_in_cache(64, 3, 2) == 2 * alone


def test_scaling_compares_with_one_thread(monkeypatch):
    used = []
    monkeypatch.setattr(md, "set_num_threads", used.append)
    found = measure.measure_scaling("squeezenet1_1", 2, batch_size=1, image_size=32, rounds=1)
    assert list(found) == ["forward", "step"]
    assert set(used) == {1, 2}
    assert used[-1] == 2


def test_avx2_runs_in_a_process_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(cpu.subprocess, "call", lambda *args, **kw: asked.append((args, kw)) or 0)
    assert cpu.main(["--avx2", "--layers"]) == 0
    ((command,), options) = asked[0]
    assert command[1:] == ["-m", "benchmarks.cpu", "--avx2", "--layers"]
    assert options["env"].items() >= cpu.AVX2.items()


def test_distinct_convolutions_and_their_operations():
    found = measure.convolutions("vgg16", 224)
    assert len(found) == 9  # of thirteen
    label, macs = next((str(conv), macs) for conv, macs in found.items())
    assert (label, macs) == ("3x224x224 > 64 3x3/1", 3 * 9 * 64 * 224 * 224)
    assert "128x56x56 > 128 3x3/1 g32" in map(str, measure.convolutions("resnext50_32x4d", 224))


def test_ratio_is_the_median_against_the_faster_rival():
    seconds = {"minidl": [1.0, 2.0, 1.0], "NCHW": [9.0, 9.0, 9.0], "NHWC": [3.0, 4.0, 5.0]}
    result = measure.Result("net", "step", 6e9, seconds)
    assert (result.rival, result.ratio, result.gflops("NHWC")) == ("NHWC", 3.0, 1.5)
    alone = measure.Result("net", "step", 6e9, {"minidl": [1.0]})
    assert (alone.rival, alone.ratio) == (None, None)


def test_each_mode_has_its_turn_in_every_round(monkeypatch):
    calls = []
    works = {mode: lambda mode=mode: calls.append(mode) for mode in "ab"}
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    times = measure.take_turns(works, rounds=2)
    assert {mode: len(values) for mode, values in times.items()} == {"a": 2, "b": 2}
    assert "".join(calls[-4:]) == "abab"


def test_table_fits_100_columns_and_json_has_all_times(capsys, tmp_path, monkeypatch):
    oracle()
    monkeypatch.setattr(measure, "set_threads", lambda count, torch_too: None)
    monkeypatch.setattr(cpu, "set_threads", lambda count, torch_too: None)
    monkeypatch.setattr(cpu, "memory_of_step", lambda *settings: 5_000_000)
    path = tmp_path / "figures.json"
    options = ["--image-size", "32", "--batch-size", "1", "--rounds", "2", "--json", str(path)]
    monkeypatch.setattr(cpu, "ceiling", lambda threads: 240.0)
    assert cpu.main(["--networks", "squeezenet1_1", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[:2] for line in lines if line.startswith("squeeze")] == [
        ["squeezenet1_1", "forward"],
        ["squeezenet1_1", "inference"],
        ["squeezenet1_1", "step"],
        ["squeezenet1_1", "5"],
    ]
    figures = json.loads(path.read_text())
    (part,) = figures["figures"]
    forward, inference, step = part["results"]
    assert {"minidl", "NCHW", "NHWC"} <= set(inference["seconds"])
    assert {mode: len(times) for mode, times in step["seconds"].items()} == {
        "minidl": 2,
        "NCHW": 2,
        "NHWC": 2,
    }
    assert step["operations"] == 3 * forward["operations"]
    assert part["peak_memory"] == {
        "squeezenet1_1": dict.fromkeys(("minidl", "NCHW", "NHWC"), 5_000_000)
    }


def test_layers_table_fits_100_columns(capsys, monkeypatch):
    monkeypatch.setattr(cpu, "set_threads", lambda count, torch_too: None)
    monkeypatch.setattr(cpu, "CONVOLUTIONS_OF", ("lenet5",))
    monkeypatch.setattr(cpu, "convolutions", lambda name, side: dict.fromkeys(CASES, 1000))
    monkeypatch.setattr(cpu, "ceiling", lambda threads: 240.0)
    assert cpu.main(["--layers", "--rounds", "1", "--batch-size", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line[:1].isdigit()] == ["4x9x8", "6x8x8"]


def test_the_direct_method_throughout(capsys, monkeypatch):
    measured = []
    monkeypatch.setattr(md.config, "conv_algorithm", "auto")
    monkeypatch.setattr(cpu, "CONVOLUTIONS_OF", ("lenet5",))
    monkeypatch.setattr(cpu, "ceiling", lambda threads: 240.0)
    monkeypatch.setattr(cpu, "set_threads", lambda count, torch_too: None)
    monkeypatch.setattr(
        cpu, "measure_convolution", lambda *_: measured.append(md.config.conv_algorithm) or []
    )
    monkeypatch.setattr(
        measure.subprocess, "check_output", lambda command, **_: measured.append(command[-1]) or "1"
    )
    assert cpu.main(["--layers", "--direct", "--batch-size", "1"]) == 0
    assert capsys.readouterr().out.startswith("convolutions by the direct method, 224 x 224")
    measure.memory_of_step("lenet5", "minidl", 1, 32, 1)
    assert set(measured) == {"direct"}


def test_memory_of_a_step_comes_from_another_process():
    settings = {"batch_size": 4, "image_size": 64, "threads": 1}
    few = measure.memory_of_step("squeezenet1_1", "minidl", **settings)
    many = measure.memory_of_step("squeezenet1_1", "minidl", **(settings | {"batch_size": 32}))
    assert 0 < few < many < 2**30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "--compile"], "--layers goes without"),
        (["--networks", "vgg16", "--image-size", "31"], "--image-size must be at least 32"),
        (["--rounds", "0"], "expected a whole number >= 1, got '0'"),
        (["--json", "nowhere/figures.json"], "--json: there is no folder nowhere"),
        (["--plot", "."], "--plot: expected a file, . is a folder"),
    ],
)
def test_wrong_options_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cpu.main(options)
    assert message in capsys.readouterr().err


def test_chart_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", exc_type=ImportError)
    seconds = {"minidl": [1.0, 2.0], "NCHW": [9.0, 9.0], "NHWC": [3.0, 4.0]}
    results = [measure.Result("net", work, 6e9, {**seconds}) for work in measure.NETWORK_WORKS]
    path = tmp_path / "chart.png"
    results[1].seconds[measure.ONNX] = [2.0, 2.0]  # takes part in one kind of work
    cpu.draw(path, results, measure.NETWORK_WORKS, top=240.0)
    assert path.read_bytes().startswith(b"\x89PNG")
