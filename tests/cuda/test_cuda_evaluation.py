"""Networks are evaluated on a GPU as they are on the CPU."""

import numpy as np
import pytest

import minidl as md
from minidl.evaluation import Candidate, Protocol, extract, judge


@pytest.mark.parametrize("protocol", [Protocol("centre", flip=True), Protocol("dense", (36,))])
def test_probabilities_and_features_are_those_of_the_cpu(cuda, tmp_path, protocol):
    md.manual_seed(0)
    path = tmp_path / "weights.npz"
    md.save(md.models.create("lenet5"), path)
    candidate = Candidate.of_weights(path, "lenet5")
    found = []
    for device in ("cpu", "cuda"):
        model, split = candidate.open(device)
        features = extract(model, "features.pool2", split, protocol, limit=2, device=device)
        found.append((judge([candidate], protocol, 2, device=device).probabilities, features))
    for on_cpu, on_gpu in zip(*found, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-5)
