"""Philox4x32-10: random numbers from a counter, without a state.

Block number `counter` of the stream `key` is four 32-bit words that look random and can be worked
out on their own, in any order, on any device. Source: Salmon et al. (2011), "Parallel random
numbers: as easy as 1, 2, 3", section 3.3.
"""

import numpy as np

__all__ = ["philox4x32", "random_words"]

ROUNDS = 10
MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
KEY_INCREMENTS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)  # golden ratio, sqrt(3) - 1
LOW_WORD = np.uint64(0xFFFFFFFF)
WORD_BITS = np.uint64(32)


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Scramble counters (..., 4) under a key (2,); words are uint64 holding 32 bits each.

    Each round multiplies two of the four words, and mixes the high halves of the products with
    the other two words and the key.
    """
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, np.uint64), -1, 0)
    k0, k1 = np.asarray(key, np.uint64)
    for i in range(ROUNDS):
        round_k0, round_k1 = (
            (k + np.uint64(i) * step) & LOW_WORD
            for k, step in zip((k0, k1), KEY_INCREMENTS, strict=True)
        )
        product_0, product_1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0 = (product_1 >> WORD_BITS) ^ c1 ^ round_k0
        c2 = (product_0 >> WORD_BITS) ^ c3 ^ round_k1
        c1, c3 = product_1 & LOW_WORD, product_0 & LOW_WORD
    return np.stack([c0, c1, c2, c3], axis=-1)


def random_words(count: int, seed: int, offset: int) -> np.ndarray:
    """The first `count` words of stream `seed` from block `offset` on, as uint64 below 2^32."""
    blocks = np.uint64(offset) + np.arange(-(-count // 4), dtype=np.uint64)
    zero = np.zeros_like(blocks)
    counter = np.stack([blocks & LOW_WORD, blocks >> WORD_BITS, zero, zero], axis=-1)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint64)
    return philox4x32(counter, key).reshape(-1)[:count]
