"""Philox4x32-10 (Salmon et al., SC 2011) with Python's integers."""

from __future__ import annotations

Words = tuple[int, int, int, int]

_MASK = 0xFFFFFFFF


def philox(counter: Words, key: tuple[int, int]) -> Words:
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        p, q = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (q >> 32) ^ x1 ^ k0, q & _MASK, (p >> 32) ^ x3 ^ k1, p & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return x0, x1, x2, x3
