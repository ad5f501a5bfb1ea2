"""Matrix products: squares, the thin products of small networks, batches, transposed operands.

Peers write into a preallocated `out` where ours does. 2*M*N*K floating-point operations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

import thalweg as tw
from case import Call, Case, Trial, Work
from measure import Record, Run, compare

SEED = 0


@dataclass(frozen=True)
class Product:
    """(batch, M, K) @ (batch, K, N); a letter T says that an operand is stored transposed."""

    batch: int
    m: int
    k: int
    n: int
    layout: str = "NN"

    @property
    def name(self) -> str:
        suffix = "" if self.layout == "NN" else f" {self.layout}"
        return f"{self.batch}x({self.m},{self.k},{self.n}){suffix}"

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.m * self.k * self.n

    @property
    def bytes(self) -> float:
        elements = self.m * self.k + self.k * self.n + self.m * self.n
        return 4.0 * self.batch * elements


SQUARES = [Product(1, n, n, n) for n in (64, 128, 256, 512, 768, 1024, 2048, 4096)]
THIN = [
    Product(1, 4096, 64, 4096),
    Product(1, 128, 3072, 100),
    Product(1, 64, 100, 3072),
    Product(1, 4096, 4096, 1),
    Product(1, 1, 4096, 4096),
]
BATCHED = [
    Product(1, 8, 8, 8),
    Product(1000, 8, 8, 8),
    Product(1000, 16, 16, 16),
    Product(512, 32, 32, 32),
    Product(256, 64, 64, 64),
    Product(64, 128, 128, 128),
    Product(16, 256, 256, 256),
    Product(8, 512, 512, 512),
    Product(96, 128, 64, 128),
    Product(96, 128, 128, 64),
    Product(64, 1, 256, 256),
    Product(32, 17, 33, 65),
]
TRANSPOSED = [Product(1, 512, 512, 512, layout) for layout in ("NT", "TN", "TT")]
QUICK = [SQUARES[0], SQUARES[2], SQUARES[5], THIN[1], BATCHED[0], BATCHED[2], BATCHED[4]]
QUICK += TRANSPOSED[:1]


def records(run: Run) -> Iterator[Record]:
    products = QUICK if run.quick else SQUARES + THIN + BATCHED + TRANSPOSED
    cases = (Case(p.name, functools.partial(make, p)) for p in products)
    return compare("matmul", cases, run)


def make(product: Product, peers: Mapping[str, ModuleType]) -> Trial:
    rng = np.random.default_rng(SEED)
    a = _operand(rng, product.batch, product.m, product.k, product.layout[0])
    b = _operand(rng, product.batch, product.k, product.n, product.layout[1])
    out = np.empty((product.batch, product.m, product.n), np.float32)
    if product.batch == 1:
        a, b, out = a[0], b[0], out[0]
    answers = {"thalweg": (out, lambda: tw.matmul(a, b, out=out))}
    answers |= {
        name: _PEERS[name](module, a, b) for name, module in peers.items() if name in _PEERS
    }

    def check() -> None:
        exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
        for impl, (result, call) in answers.items():
            call()
            error = np.max(np.abs(np.asarray(result) - exact))
            bound = 8 * math.sqrt(product.k) * np.finfo(np.float32).eps * math.sqrt(product.k)
            assert error <= bound, f"{impl}: {product.name} is off by {error}"

    calls = {impl: call for impl, (_, call) in answers.items()}
    work = Work(product.flops, product.bytes, footprint=product.bytes)
    return Trial(calls.pop("thalweg"), calls, check, work)


def _operand(
    rng: np.random.Generator, batch: int, rows: int, columns: int, layout: str
) -> np.ndarray:
    if layout == "T":
        return rng.standard_normal((batch, columns, rows), np.float32).swapaxes(1, 2)
    return rng.standard_normal((batch, rows, columns), np.float32)


def _numpy(numpy: ModuleType, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Call]:
    out = numpy.matmul(a, b)
    return out, lambda: numpy.matmul(a, b, out=out)


def _torch(torch: ModuleType, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Call]:
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    out = torch.matmul(left, right)
    return out.numpy(), lambda: torch.matmul(left, right, out=out)


def _jax(jax: ModuleType, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Call]:
    left, right = jax.numpy.asarray(a), jax.numpy.asarray(b)
    product = jax.jit(jax.numpy.matmul)
    return np.asarray(product(left, right)), lambda: product(left, right).block_until_ready()


_PEERS = {"numpy": _numpy, "torch": _torch, "jax": _jax}
