"""Normal numbers by counter, readable: what csrc/include/mfakit/random.hpp computes (Philox4x32-10, Box and Muller)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["normal_pairs"]

Array = NDArray[Any]

WORD = np.uint64(0xFFFFFFFF)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def philox(counter: Array, key: int) -> tuple[Array, Array, Array, Array]:
    """Four words of 32 bits, uint64 [n] each, for counters uint64 [n] (Salmon, Moraes, Dror & Shaw 2011)."""
    half = np.uint64(32)
    x, y, z, w = counter & WORD, counter >> half, np.zeros_like(counter), np.zeros_like(counter)
    key0, key1 = np.uint64(key) & WORD, np.uint64(key) >> half
    for _ in range(10):
        first, second = MULTIPLIERS[0] * x, MULTIPLIERS[1] * z
        x, y, z, w = (second >> half) ^ y ^ key0, second & WORD, (first >> half) ^ w ^ key1, first & WORD
        key0, key1 = (key0 + KEY_STEPS[0]) & WORD, (key1 + KEY_STEPS[1]) & WORD
    return x, y, z, w


def _uniform(high: Array, low: Array) -> Array:
    """In (0, 1), from 52 bits of two words."""
    return np.asarray(((((high << np.uint64(32)) | low) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def normal_pairs(key: int, index: Array) -> Array:
    """Two independent standard normals [n, 2] for each number `index` [n] of the stream `key`."""
    x, y, z, w = philox(index.astype(np.uint64), key)
    radius, angle = np.sqrt(-2.0 * np.log(_uniform(x, y))), 2.0 * np.pi * _uniform(z, w)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
