"""The benchmark on GPUs compares like with like, and says so where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from benchmarks import gpu, measure

CASES = {  # stride, padding, groups, and windows that are not square
    measure.Convolution((4, 9, 8), (6, 4, 3, 2), (2, 1), (1, 0), 1): 1000,
    measure.Convolution((6, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), 2): 2000,
}


@pytest.fixture
def emulated(cuda, monkeypatch):
    """The stand-in for CuPy times itself, and PyTorch computes on the CPU, uncompiled."""
    torch = oracle()
    monkeypatch.setattr(gpu, "gpu_seconds", measure.seconds)
    monkeypatch.setattr(gpu, "GPU", "cpu")
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    monkeypatch.setattr(torch, "compile", lambda model: model)
    before = md.config.conv_algorithm
    md.config.conv_algorithm = "im2col"
    yield cuda
    md.config.conv_algorithm, md.config.allow_tf32 = before, False
    gpu.set_precision("fp32")


def test_without_a_gpu_it_says_so_in_one_line():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("benchmarks.gpu: device 'cuda:0'")


@pytest.mark.parametrize("conv", CASES, ids=str)
@pytest.mark.parametrize("precision", gpu.PRECISIONS)
def test_all_modes_compute_the_same(emulated, conv, precision):
    arrays = gpu.random_arrays(conv, 2)
    gpu.set_precision(precision)
    tolerance = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}[precision]
    by_work = gpu.convolution_makers(conv, arrays, precision, (measure.MINIDL, *gpu.PYTORCH))
    assert list(by_work) == list(measure.CONVOLUTION_WORKS)
    for makers in by_work.values():
        ours = emulated.numpy(makers.pop(measure.MINIDL)()()).astype(np.float64)
        assert list(makers) == list(gpu.PYTORCH)
        for make in makers.values():
            result = make()()
            if isinstance(result, tuple):
                (result,) = [gradient for gradient in result if gradient is not None]
            bound = tolerance * np.abs(ours).max()
            np.testing.assert_allclose(result.double().numpy(), ours, rtol=0, atol=bound)


def test_tables_fit_80_columns_and_json_has_all_times(emulated, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "NETWORKS", {"squeezenet1_1": 2})
    monkeypatch.setattr(gpu, "SIDE", 32)
    monkeypatch.setattr(gpu, "rates", lambda precision: (1e12, 1e13))
    monkeypatch.setattr(gpu, "convolutions", lambda name, side: CASES)
    path = tmp_path / "figures.json"
    options = ["--precisions", "bf16", "--rounds", "2", "--json", str(path)]
    assert gpu.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80  # the last one names the file
    names = ["4x9x8", "6x8x8", "squeezenet1_1"]
    assert [line.split()[0] for line in lines if line.startswith(tuple(names))] == names
    figures = json.loads(path.read_text())
    assert set(figures["machine"]) == {"GPU", "driver", "CuPy", "PyTorch", "date"}
    assert [entry["precision"] for entry in figures["results"]] == 7 * ["bf16"]
    *layers, step = figures["results"]
    assert [entry["work"] for entry in layers] == 2 * list(measure.CONVOLUTION_WORKS)
    assert {mode: len(times) for mode, times in step["seconds"].items()} == {
        "minidl": 2, "NCHW": 2, "NHWC": 2, "NHWC*": 2,
    }  # fmt: skip
    assert step["ratio"] > 0
    assert layers[0]["roof"] == 2 * 64 * 1000 / 1e12


def test_rates_count_a_product_and_a_copy(emulated, monkeypatch):
    monkeypatch.setattr(gpu, "gpu_seconds", lambda work, calls: 0.5)
    assert gpu.rates("tf32", size=8) == (4 * 8**3, 4 * 4 * 8**2)
    assert md.config.allow_tf32


def test_what_does_not_fit_the_memory_is_left_out(emulated):
    def full():
        raise MemoryError("asked for too much")

    def broken():
        raise RuntimeError("misaligned address")

    assert list(gpu.turns({"full": lambda: full, "fits": lambda: bool}, rounds=1)) == ["fits"]
    with pytest.raises(RuntimeError, match="misaligned"):
        gpu.turns({"broken": lambda: broken}, rounds=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "must be at least 1"),
        (["--precisions", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_wrong_options_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(options)
    assert message in capsys.readouterr().err
