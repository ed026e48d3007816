"""Training does not grow, and no kernel asks for a large buffer."""

import subprocess
import sys

import pytest

# Prints the resident set in bytes after 40 and after 240 steps.
TRAINING = """
import os
import numpy as np
import minidl as md

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

md.manual_seed(0)
model = md.models.create("vgg11_bn", num_classes=10, image_size=32)
optimizer = md.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
generator = np.random.default_rng(0)
for step in range(1, 241):
    images = md.from_numpy(generator.standard_normal((4, 3, 32, 32), dtype=np.float32))
    loss = md.functional.cross_entropy(model(images), md.from_numpy(np.arange(4)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step in (40, 240):
        print(resident())
"""

# Prints the bytes that convolution takes beyond its results.
CONVOLUTION = """
import numpy as np
from minidl._kernels import cpu

def peak():  # of this process alone; getrusage may count the parent's
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

cpu.set_num_threads(2)
x = np.ones((2, 64, 224, 224), np.float32)
weight = np.ones((64, 64, 3, 3), np.float32)
kwargs = {"padding": (1, 1, 1, 1)}
small = np.ones((1, 64, 8, 8), np.float32)
cpu.conv2d_weight_grad(small, small, weight.shape, **kwargs)  # loads what is loaded once
y = cpu.conv2d_forward(x, weight, **kwargs)
dx = np.ones_like(x)
before = peak()
results = [cpu.conv2d_forward(x, weight, **kwargs)]
results.append(cpu.conv2d_input_grad(y, weight, x.shape, **kwargs))
results.append(cpu.conv2d_weight_grad(y, x, weight.shape, **kwargs))
print(peak() - before - sum(result.nbytes for result in results))
"""


def run(script):
    command = [sys.executable, "-c", script]
    return [int(line) for line in subprocess.check_output(command, text=True).split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_training_does_not_grow_over_200_steps():
    early, late = run(TRAINING)
    assert late <= early * 1.01


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_convolution_needs_less_than_16_mb_a_thread():
    (extra,) = run(CONVOLUTION)
    assert extra < 2 * 16 * 2**20
