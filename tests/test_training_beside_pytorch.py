"""LeNet-5 on files in MNIST's format learns what the same recipe gives in PyTorch."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import data
from minidl.data.sources import EMBEDDED_FILE, find_fashion_mnist
from minidl.errors import DataError
from minidl.models import LeNet5
from minidl.train import main
from minidl.training import default_settings, load_checkpoint


def write_idx(folder: Path) -> Path:
    """The embedded images as MNIST's four gzipped files."""
    with np.load(EMBEDDED_FILE) as arrays:
        for prefix, split in (("train", "train"), ("t10k", "test")):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.uint8)
            for stem, values in (("images-idx3", images), ("labels-idx1", labels)):
                header = bytes([0, 0, 8, values.ndim]) + struct.pack(
                    f">{values.ndim}I", *values.shape
                )
                with gzip.open(folder / f"{prefix}-{stem}-ubyte.gz", "wb", 1) as file:
                    file.write(header + values.tobytes())
    return folder


def full_fashion_mnist(folder: Path) -> Path:
    try:
        return find_fashion_mnist()
    except DataError as error:
        pytest.skip(str(error))


def accuracy_of_pytorch(spec: str, epochs: int) -> float:
    """The same network, weights, batches, optimiser and schedule, computed by PyTorch."""
    torch = oracle()
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84),
        nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
    md.manual_seed(0)
    start = [parameter.detach().numpy() for parameter in LeNet5().parameters()]
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), start, strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    settings = default_settings("lenet5", epochs=epochs)
    splits = data.load(spec, channels=1)
    loader = data.DataLoader(splits.train, settings.batch_size, shuffle=True, augment=None)
    optimizer = torch.optim.Adam(network.parameters(), settings.lr)
    total = epochs * len(loader)
    warmup = round(0.05 * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            (1 + 2 * step / warmup) / 3
            if step < warmup
            else (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) / 2
        ),
    )
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            output = network(torch.from_numpy(images))
            nn.functional.cross_entropy(output, torch.from_numpy(labels)).backward()
            optimizer.step()
            schedule.step()
    images, labels = splits.val.batch(np.arange(len(splits.val)))
    with torch.no_grad():
        right = network(torch.from_numpy(images)).argmax(1).numpy() == labels
    return float(right.mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "epochs"), [(write_idx, 6), (full_fashion_mnist, 1)], ids=["embedded", "full"]
)
def test_lenet_on_idx_files(tmp_path, files, epochs):
    spec = f"mnist:{files(tmp_path)}"  # as digits: never mirrored
    run = tmp_path / "run"
    options = ["--arch", "lenet5", "--data", spec, "--epochs", str(epochs), "--out", str(run)]
    assert main(options) == 0
    history = load_checkpoint(run).state["progress"]
    ours, theirs = history["best_accuracy"], accuracy_of_pytorch(spec, epochs)
    print(f"test accuracy after {epochs} epochs: minidl {ours:.2%}, PyTorch {theirs:.2%}")
    assert theirs > 0.8
    assert ours >= 0.99 * theirs
