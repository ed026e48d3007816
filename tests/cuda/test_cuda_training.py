"""Networks train on a GPU as they do on the CPU."""

import numpy as np
from kernel_cases import normal

import minidl as md
import minidl.functional as F


def train(where, steps, batch, build, optimizer):
    """The losses and the weights of a few steps on random images; the same for every device."""
    md.manual_seed(0)
    model = build().to(where)
    update = optimizer(model.parameters())
    images = normal(1, 4 * batch, 1, 28, 28, dtype=np.float32)
    labels = np.random.default_rng(2).integers(0, 10, 4 * batch)
    losses = []
    for step in range(steps):
        chosen = slice(step % 4 * batch, (step % 4 + 1) * batch)
        scores = model(md.tensor(images[chosen], device=where))
        loss = F.cross_entropy(scores, md.tensor(labels[chosen]))
        update.zero_grad()
        loss.backward()
        update.step()
        losses.append(loss.detach())
    weights = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    return np.array([float(loss) for loss in losses]), weights


def lenet():
    return md.models.create("lenet5", num_classes=10, in_channels=1, image_size=28)


def test_lenet_learns_the_same(cuda):
    def sgd(parameters):
        return md.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)

    losses, weights = train("cpu", 50, 4, lenet, sgd)
    cuda_losses, cuda_weights = train("cuda", 50, 4, lenet, sgd)
    assert losses[-4:].mean() < 0.7 * losses[:4].mean()  # it does learn
    np.testing.assert_allclose(cuda_losses, losses, rtol=0, atol=1e-4)
    for name, weight in weights.items():
        np.testing.assert_allclose(cuda_weights[name], weight, rtol=0, atol=1e-4)


def run(*options):
    """`python -m minidl.train` in this process; what it has printed must be a success."""
    from minidl.train import main

    common = ["--arch", "lenet5", "--limit", "30", "--batch-size", "10", "--image-size", "28"]
    assert main([*common, *options]) == 0


def test_the_command_line_trains_resumes_and_evaluates(cuda, tmp_path, capsys):
    run("--epochs", "1", "--device", "cuda:0", "--out", str(tmp_path / "a"))
    run("--epochs", "2", "--device", "cuda", "--resume", str(tmp_path / "a"))
    capsys.readouterr()
    for where in ("cuda", "cpu"):  # a checkpoint knows no device
        run("--eval-only", "--device", where, "--resume", str(tmp_path / "a" / "last.safetensors"))
    on_gpu, on_cpu = (
        line for line in capsys.readouterr().out.splitlines() if "test accuracy" in line
    )
    assert on_gpu.split(" in ")[0] == on_cpu.split(" in ")[0]


def test_a_step_with_frozen_layers_is_profiled(cuda, tmp_path, capsys):
    """Weights are read into a network on the GPU; each layer is waited for, so it has its time."""
    md.save(lenet(), tmp_path / "lenet.npz")
    weights = ["--weights", str(tmp_path / "lenet.npz"), "--replace-head"]
    run("--device", "cuda", "--profile", *weights, "--freeze", "features")
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("features.conv")}
    assert [row[4] for row in rows.values()] == ["0.00", "0.00"]  # no backward pass
    assert all(float(row[3]) > 0 for row in rows.values())
