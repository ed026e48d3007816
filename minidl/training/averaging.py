"""An exponential moving average of the weights, to evaluate and to keep."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from .._kernels import array_namespace, kernels_for
from ..device import to_device
from ..nn import Module


class WeightAverage:
    """average = d average + (1 - d) weight after each step, d = min(decay, (1 + n) / (10 + n)).

    n counts the updates before this one: it keeps the first, arbitrary weights from staying in the
    average for long. Only parameters that learn are averaged. Buffers, such as the running
    statistics of batch normalisation, are averages already; the model's go with either weights.

    Raises ValueError if `decay` is not between 0 and 1.

    Source: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J.
    Control Optim. 30 (1992); in this form in the training of Szegedy et al., "Rethinking the
    Inception architecture", 2015, section 8.

    >>> import minidl as md
    >>> model = md.nn.Linear(1, 1, bias=False)
    >>> model.weight.data = md.tensor([[1.0]]).data
    >>> average = WeightAverage(model, decay=0.999)
    >>> model.weight.data = md.tensor([[2.0]]).data
    >>> average.update()
    >>> with average.in_place_of_weights():
    ...     print(round(model.weight.item(), 6))
    1.9
    >>> model.weight.item()
    2.0
    """

    def __init__(self, model: Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"WeightAverage: decay must be between 0 and 1, got {decay}")
        self.decay = decay
        self.updates = 0
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.data.copy() for name, p in self._parameters.items()}

    def update(self) -> None:
        """Take in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages = list(self._averages.values())
        weights = [parameter.data for parameter in self._parameters.values()]
        # p = p - lr (g + weight_decay p) with g = weight, lr = decay - 1 and weight_decay = -1 is
        # p = p + (1 - decay) (weight - p): the optimiser's kernel, one launch for all on a GPU.
        kernels_for(averages[0]).sgd_step(averages, weights, None, decay - 1, weight_decay=-1.0)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Inside this block the model has the averages as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._averages[name] = self._averages[name], parameter.data

    def state_dict(self) -> dict[str, np.ndarray]:
        """The averages by the parameters' names, on the CPU."""
        return {name: to_device(array, "cpu") for name, array in self._averages.items()}

    def load_state_dict(self, averages: Mapping[str, np.ndarray], updates: int) -> None:
        """Go on with what `state_dict` gave, after so many `updates`.

        Raises:
            ValueError: names or shapes are not the model's, or an average is not finite.
        """
        found = {name: array.shape for name, array in averages.items()}
        expected = {name: array.shape for name, array in self._averages.items()}
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"WeightAverage.load_state_dict: the average of {name} has shape "
                    f"{found.get(name)}, expected {expected.get(name)}"
                )
            if not np.isfinite(averages[name]).all():
                raise ValueError(f"WeightAverage.load_state_dict: {name} is not finite")
        for name, own in self._averages.items():
            array = to_device(averages[name], self._parameters[name].device)
            self._averages[name] = array_namespace(own).array(array, dtype=own.dtype)
        self.updates = updates
