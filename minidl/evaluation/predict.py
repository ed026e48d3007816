"""What a network says about the images of a split, averaged over the views of a protocol."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import numpy as np

from .._kernels.cpu.threads import available_cpus
from ..autograd import no_grad
from ..data import DataLoader, Split
from ..data.loader import MOST_WORKERS
from ..errors import DataError, MinidlError
from ..nn import Module
from ..tensor import Tensor, from_numpy
from .dense import fully_convolutional
from .protocols import Protocol
from .scaled import scaled

Progress = Callable[[np.ndarray, np.ndarray], None]


def predict(
    model: Module,
    split: Split,
    protocol: Protocol,
    limit: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    progress: Progress | None = None,
) -> np.ndarray:
    """Probabilities (N, classes) float64: the softmax of each view's logits, averaged.

    Args:
        model: the network, on `device`; it is put into evaluation mode.
        split: the images, as the network takes them.
        protocol: which views of an image count.
        limit: how many images (see `chosen`); all by default.
        batch_size: how many images are loaded at a time; their views come one after the other.
        device: where the network is.
        progress: is told the images (n,) of each batch and their probabilities (n, classes).

    Raises:
        MinidlError: the network cannot take the views, or its output is not finite; an image
            cannot be read.
        ValueError: a scale of the protocol is too small.

    >>> import minidl as md
    >>> test = md.data.load(channels=1).val
    >>> predict(md.models.create("lenet5"), test, Protocol("10-crop"), limit=3).shape
    (3, 10)
    """
    network = fully_convolutional(model) if protocol.name == "dense" else model
    network.eval()

    def probabilities(images: Tensor) -> np.ndarray:
        logits = network(images).cpu().numpy()
        if not np.isfinite(logits).all():
            raise MinidlError("the output of the network is not finite")
        return softmax(logits)

    parts = []
    indices = chosen(split, limit)
    for batch, part in mean_over_views(probabilities, split, indices, protocol, batch_size, device):
        parts.append(part)
        if progress is not None:
            progress(batch, part)
    return np.concatenate(parts)


def chosen(split: Split, limit: int | None) -> np.ndarray:
    """The indices (N,) int64 of `limit` images spread evenly over the split; of all for None.

    They are the same that training's evaluation takes. Raises DataError if there are none.
    """
    if len(split) == 0:
        raise DataError("there are no test images")
    return DataLoader(split, batch_size=1, limit=limit).order(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) float64 of logits (N, classes).

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return powers / powers.sum(axis=1, keepdims=True)


def mean_over_views(
    function: Callable[[Tensor], np.ndarray],
    split: Split,
    indices: np.ndarray,
    protocol: Protocol,
    batch_size: int,
    device: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batch by batch, which images (n,) and the mean (n, D) float64 of `function` over their views.

    `function` takes images (n, C, H, W) float32 on `device`, preprocessed, and returns (n, D).

    Raises:
        MinidlError: `function` cannot take the views; an image cannot be read.
        ValueError: a scale of the protocol is too small.
    """
    size = split.image_size
    for batch, scales in _loaded_ahead(split, indices, protocol.sides(size), batch_size):
        total: np.ndarray | None = None
        for images in scales:
            for which, pixels in protocol.views(images, size):
                try:
                    inputs = from_numpy(split.preprocessing(pixels)).to(device)
                    with no_grad():
                        result = function(inputs)
                except ValueError as error:
                    raise MinidlError(str(error)) from error
                if total is None:
                    total = np.zeros((len(batch), result.shape[1]))
                total[which] += result
        if total is not None:
            yield batch, total / protocol.count(size)


def _loaded_ahead(
    split: Split, indices: np.ndarray, sides: Sequence[int], batch_size: int
) -> Iterator[tuple[np.ndarray, list[list[np.ndarray]]]]:
    """Batches of indices with their images at all scales; threads share in making the next one."""
    batches = np.split(indices, range(batch_size, len(indices), batch_size))
    workers = min(available_cpus(), MOST_WORKERS)
    with ThreadPoolExecutor(workers, thread_name_prefix="minidl-data") as pool:

        def begin(batch: np.ndarray) -> list[Future[list[list[np.ndarray]]]]:
            parts = np.split(batch, range(split.images_per_task, len(batch), split.images_per_task))
            return [pool.submit(scaled, split, part, sides) for part in parts]

        coming = begin(batches[0])
        for number, batch in enumerate(batches, 1):
            parts = [future.result() for future in coming]
            if number < len(batches):
                coming = begin(batches[number])
            yield batch, [list(chain(*images)) for images in zip(*parts, strict=True)]
