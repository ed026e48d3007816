"""Features: what a layer of a trained network puts out for each image, for transfer learning.

Donahue et al., "DeCAF: A Deep Convolutional Activation Feature for Generic Visual Recognition",
ICML 2014, take those of AlexNet's fully connected layers.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Split
from ..errors import MinidlError
from ..io.files import replace_file
from ..io.npz import write_npz
from ..nn import Linear, Module, ReLU, Sequential
from ..tensor import Tensor
from .dense import fully_convolutional
from .predict import Progress, chosen, mean_over_views, softmax
from .protocols import Protocol


def paper_names(model: Module) -> dict[str, str]:
    """The fully connected layers that papers call fc6, fc7 and fc8, and pool5 before them.

    AlexNet, ZFNet and VGG have them; here, as in torchvision, their layers are numbered. A name
    stands for the layer with its ReLU, as in Caffe: `classifier.3` is fc7 of VGG without.

    >>> import minidl as md
    >>> with md.nn.parameter.parameters_without_values():
    ...     alexnet = md.models.create("alexnet_owt")
    >>> paper_names(alexnet)
    {'pool5': 'features.12', 'fc6': 'classifier.2', 'fc7': 'classifier.5', 'fc8': 'classifier.6'}
    """
    features, classifier = (getattr(model, name, None) for name in ("features", "classifier"))
    if not isinstance(features, Sequential) or not isinstance(classifier, Sequential):
        return {}
    layers = list(classifier.named_children())
    linear = [index for index, (_, layer) in enumerate(layers) if isinstance(layer, Linear)]
    if len(linear) != 3 or not all(name.isdigit() for name, _ in layers):
        return {}
    names = {"pool5": f"features.{list(features.named_children())[-1][0]}"}
    for number, index in enumerate(linear, 6):
        activated = index + 1 < len(layers) and isinstance(layers[index + 1][1], ReLU)
        names[f"fc{number}"] = f"classifier.{layers[index + activated][0]}"
    return names


def find_layer(model: Module, name: str) -> str:
    """The module's name of the layer `name`, which may be one of `paper_names`.

    Raises:
        MinidlError: there is none; the text suggests some.

    >>> import minidl as md
    >>> find_layer(md.models.create("lenet5"), "fc3")
    Traceback (most recent call last):
    ...
    minidl.errors.MinidlError: no layer 'fc3'; did you mean classifier.fc3?
    """
    papers = paper_names(model)
    layers = [layer for layer, _ in model.named_modules() if layer]
    if name in papers or name in layers:
        return papers.get(name, name)
    known = [*papers, *layers]
    near = [layer for layer in known if name and layer.endswith(f".{name}")]
    near = (near or get_close_matches(name, known, n=3, cutoff=0.6))[:3]
    parts = ", ".join([*papers, *(layer for layer, _ in model.named_children())])
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {parts}, and their parts"
    raise MinidlError(f"no layer {name!r}; {hint}")


def extract(
    model: Module,
    layer: str,
    split: Split,
    protocol: Protocol,
    limit: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    progress: Progress | None = None,
) -> np.ndarray:
    """What `layer` puts out for each image, (N, D) float32: the mean over the protocol's views.

    Feature maps (C, H, W) are laid out in a row, D = C*H*W; with `dense`, where their size depends
    on the image, they are averaged over all places, D = C. The other arguments, and the errors,
    are those of `predict`.

    Raises:
        MinidlError: the model has no such layer, uses it twice, or not in evaluation.

    >>> import minidl as md
    >>> test = md.data.load(channels=1).val
    >>> extract(md.models.create("lenet5"), "classifier.act4", test, Protocol(), limit=3).shape
    (3, 84)
    """
    name = find_layer(model, layer)
    network = fully_convolutional(model) if protocol.name == "dense" else model
    network.eval()
    module = dict(network.named_modules()).get(name)
    if module is None:
        raise MinidlError(f"layer {layer!r} has no part in a dense evaluation")
    outputs: list[Any] = []

    def output(images: Tensor) -> np.ndarray:
        outputs.clear()
        logits = network(images).cpu().numpy()
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
            raise MinidlError(
                f"layer {layer!r} is used {len(outputs)} times for an image, expected once"
            )
        array = outputs[0].cpu().numpy()
        if protocol.name == "dense" and array.ndim == 4:
            array = array.mean(axis=(2, 3))  # (n, C)
        return np.hstack([array.reshape(len(array), -1), softmax(logits)])  # (n, D + classes)

    indices = chosen(split, limit)
    features, done = np.empty((0, 0), np.float32), 0
    handle = module.register_forward_hook(lambda module, args, result: outputs.append(result))
    try:
        for batch, part in mean_over_views(output, split, indices, protocol, batch_size, device):
            values, probabilities = np.split(part, [-model.num_classes], axis=1)
            if done == 0:
                features = np.empty((len(indices), values.shape[1]), np.float32)
            features[done : done + len(batch)] = values
            done += len(batch)
            if progress is not None:
                progress(batch, probabilities)
    finally:
        handle.remove()
    return features


def save_features(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays and texts as `.npz`, all or nothing; `numpy.load` reads it without pickle.

    Raises:
        MinidlError: the file cannot be written; an older one of that name is unchanged.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "feats.npz"
    >>> save_features(path, {"features": np.zeros((2, 3)), "layer": "fc7"})
    >>> {name: array.shape for name, array in np.load(path, allow_pickle=False).items()}
    {'features': (2, 3), 'layer': ()}
    """
    try:
        replace_file(path, lambda temporary: write_npz(temporary, arrays))
    except OSError as error:
        raise MinidlError(f"{path}: cannot write the features ({error.strerror})") from error
