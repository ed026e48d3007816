"""Bringing batches to the device, the next one while this one is computed with."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..device import namespace_on
from ..tensor import Tensor, from_numpy

__all__ = ["copied_ahead"]


def copied_ahead(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], device: str
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yield each batch with its images on `device`; the labels stay, to be checked.

    For a GPU the images are put into page-locked memory, from where they are copied without the
    processor, on a stream of their own, while the GPU computes with the batch before.

    >>> batches = [(np.zeros((2, 3)), np.array([0, 1]))]
    >>> [(images.shape, labels.shape) for images, labels in copied_ahead(batches, "cpu")]
    [((2, 3), (2,))]
    """
    xp = namespace_on(device)
    if xp is np:
        for images, labels in batches:
            yield from_numpy(images), labels
        return
    copies = _Copies(xp)
    ahead: Any = None
    for images, labels in batches:
        started = (*copies.start(images), labels)
        if ahead is not None:
            yield copies.finished(*ahead)
        ahead = started
    if ahead is not None:
        yield copies.finished(*ahead)


class _Copies:
    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.stream = xp.cuda.Stream(non_blocking=True)

    def start(self, images: np.ndarray) -> tuple[Any, np.ndarray, Any]:
        """The array on the GPU, the memory it is copied from, and the event that ends the copy."""
        memory = self.xp.cuda.alloc_pinned_memory(images.nbytes)
        source = np.frombuffer(memory, images.dtype, images.size).reshape(images.shape)
        source[...] = images
        # The array may lie where kernels that are still queued read another: those come first.
        array = self.xp.empty(images.shape, images.dtype)
        self.stream.wait_event(self.xp.cuda.get_current_stream().record())
        array.set(source, stream=self.stream)
        return array, source, self.stream.record()

    def finished(
        self, array: Any, source: np.ndarray, event: Any, labels: np.ndarray
    ) -> tuple[Tensor, np.ndarray]:
        """The batch, for kernels that are queued from now on."""
        self.xp.cuda.get_current_stream().wait_event(event)
        event.synchronize()  # long over; only then may `source` be used for something else
        return Tensor(array), labels
