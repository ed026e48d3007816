"""Random numbers: one generator for tensors and initialisers, and counters for dropout.

Both come from Philox, a generator that computes its numbers from a counter: the n-th number
follows from the seed and n alone. Dropout masks are therefore never stored: a seed and an offset
name them, and the backward pass computes them again, on any device. Source: Salmon et al. (2011),
"Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

__all__ = [
    "generator",
    "get_rng_state",
    "manual_seed",
    "next_dropout_key",
    "set_rng_state",
]

_STATE_KEYS = {"generator", "dropout_seed", "dropout_offset"}


class _RandomState:
    def __init__(self, seed: int) -> None:
        streams = np.random.SeedSequence(seed).spawn(2)  # independent of each other
        self.generator = np.random.Generator(np.random.Philox(streams[0]))
        self.dropout_seed = int(streams[1].generate_state(1, np.uint64)[0])
        self.dropout_offset = 0


_state = _RandomState(secrets.randbits(64))


def manual_seed(seed: int) -> None:
    """Start all random numbers anew from `seed`, a non-negative integer.

    >>> manual_seed(7)
    >>> first = generator().random()
    >>> manual_seed(7)
    >>> generator().random() == first
    True
    """
    global _state
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"manual_seed: seed must be a non-negative integer, got {seed!r}")
    _state = _RandomState(int(seed))


def generator() -> np.random.Generator:
    """The generator that random tensors and initialisers draw from.

    Ask for it each time: `manual_seed` replaces it.
    """
    return _state.generator


def next_dropout_key(n: int) -> tuple[int, int]:
    """A (seed, offset) for a dropout mask of `n` elements that no other mask shares.

    One step of the counter gives four numbers, so the offset moves on by ceil(n / 4).

    >>> manual_seed(0)
    >>> [next_dropout_key(n)[1] for n in (8, 9, 1)]
    [0, 2, 5]
    """
    offset = _state.dropout_offset
    _state.dropout_offset += -(-n // 4)
    return _state.dropout_seed, offset


def get_rng_state() -> dict[str, Any]:
    """Everything random numbers depend on, as plain numbers, lists and dicts (JSON will do).

    >>> manual_seed(0)
    >>> state = get_rng_state()
    >>> first = generator().random()
    >>> set_rng_state(state)
    >>> generator().random() == first
    True
    """
    return {
        "generator": _plain(_state.generator.bit_generator.state),
        "dropout_seed": _state.dropout_seed,
        "dropout_offset": _state.dropout_offset,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Continue from a state that `get_rng_state` returned. Raises ValueError for anything else."""
    if not isinstance(state, dict) or set(state) != _STATE_KEYS:
        raise ValueError("set_rng_state: expected a dict from get_rng_state()")
    _state.generator.bit_generator.state = _restored(state["generator"])
    _state.dropout_seed = int(state["dropout_seed"])
    _state.dropout_offset = int(state["dropout_offset"])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(entry) for key, entry in value.items()}
    return np.array(value, dtype=np.uint64) if isinstance(value, list) else value
