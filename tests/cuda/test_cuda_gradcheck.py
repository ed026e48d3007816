"""Gradient checking on a GPU's arrays: minidl's operations there, and pairs of CuPy functions."""

import importlib

import numpy as np
from kernel_cases import normal

import minidl as md
from minidl import functional as F
from minidl import nn


def on_gpu(*shape):
    return md.tensor(normal(0, *shape), device="cuda")


def test_operations_and_modules(cuda):
    inputs = on_gpu(2, 2, 3, 4), on_gpu(2, 2, 2, 2), on_gpu(2)
    report = md.gradcheck(lambda x, w, b: F.conv2d(x, w, b, stride=(1, 2)), inputs, seeds=[0, 1])
    assert report, f"\n{report}"
    net = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)).to("cuda")
    report = md.gradcheck(net, inputs[0])
    assert report, f"\n{report}"
    assert net[0].running_mean.device.startswith("cuda")
    report = md.gradcheck(net, inputs[0], mode="directional")
    assert report, f"\n{report}"
    report = md.gradgradcheck(F.tanh, on_gpu(4))
    assert report, f"\n{report}"


def test_kinks(cuda):
    x = normal(0, 3, 4)
    x[1, 2] = 0
    report = md.gradcheck(F.relu, md.tensor(x, device="cuda"))
    assert (report.status, report.kinks) == ("passed", 1)


def test_pairs_and_diagnoses(cuda):
    cupy = importlib.import_module("cupy")
    x = cupy.asarray(normal(0, 4, 3))
    pair = (lambda x, w: x * w, lambda d, x, w: (d * w, d * x))
    assert md.gradcheck(pair, (x, x + 1)).ok
    report = md.gradcheck((pair[0], lambda d, x, w: (d * w, -d * x)), (x, x + 1))
    assert report["w"].wrong == 12
    assert isinstance(report["w"].numeric, np.ndarray)
    assert report.diagnoses[0].name == "w: the sign is wrong"
    assert "w (4, 3): 12 of 12 wrong" in str(report)
