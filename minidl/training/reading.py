"""Results on their way from the device, which meanwhile goes on computing."""

from typing import Any

import numpy as np

from .._kernels import array_namespace
from ..tensor import Tensor

__all__ = ["Reading"]


class Reading:
    """Copies of tensors for the processor; a GPU makes them when it has come that far.

    It goes on with what is queued after them, so whoever waits for a loss while the backward pass
    runs keeps no GPU idle.

    >>> import minidl as md
    >>> Reading(md.tensor([1.0, 2.0])).wait()
    [array([1., 2.], dtype=float32)]
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._arrays: list[np.ndarray] = []
        self._copied: Any = None
        for tensor in tensors:
            array = tensor.data
            xp = array_namespace(array)
            if xp is np:
                self._arrays.append(array)
                continue
            memory = xp.cuda.alloc_pinned_memory(array.nbytes)
            copy = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
            array.get(out=copy, blocking=False)
            self._arrays.append(copy)
            self._copied = xp.cuda.get_current_stream().record()

    def wait(self) -> list[np.ndarray]:
        """The arrays, once they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._arrays
