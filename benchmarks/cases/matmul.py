"""Matrix products: squares, the thin products of small networks, batches, transposed operands, and
every precision. 2 M N K floating-point operations.

Everybody writes into memory of his own that is there before the call (JAX allocates its result).
The error is the largest deviation from the product in float64, over its largest magnitude.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from case import Array, Case, Side, Work
from measure import Record, Run, compare

SEED = 0
TOLERANCE = {
    "strict": 1e-5,
    "highest": 1e-5,
    "high": 1e-4,
    "medium": 2e-2,
    "float64": 1e-13,
    "bfloat16": 2e-2,
}


@dataclass(frozen=True)
class Product:
    """(batch, M, K) @ (batch, K, N); a letter T says that an operand is stored transposed.

    `kind` is a precision of float32 products, or a type of both operands.
    """

    batch: int
    m: int
    k: int
    n: int
    layout: str = "NN"
    kind: str = "highest"

    @property
    def name(self) -> str:
        suffix = "" if self.layout == "NN" else f" {self.layout}"
        suffix += "" if self.kind == "highest" else f" {self.kind}"
        return f"{self.batch}x({self.m},{self.k},{self.n}){suffix}"

    @property
    def dtype(self) -> str:
        return self.kind if self.kind in ("float64", "bfloat16") else "float32"

    @property
    def work(self) -> Work:
        elements = self.m * self.k + self.k * self.n + self.m * self.n
        size = {"float64": 8.0, "bfloat16": 2.0}.get(self.dtype, 4.0) * self.batch * elements
        rates = {"float64": "fma_f64_gflops", "bfloat16": "bf16_gflops", "medium": "bf16_gflops"}
        flops = 2.0 * self.batch * self.m * self.k * self.n
        return Work(flops, size, footprint=size, rate=rates.get(self.kind, "fma_f32_gflops"))


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
TRANSPOSED = [
    Product(*shape, layout)
    for shape in [(1, 512, 512, 512), (1, 128, 3072, 100), (256, 64, 64, 64)]
    for layout in ("NT", "TN", "TT")
]
PRECISE = [
    Product(*shape, "NN", kind)
    for shape in [(1, 256, 256, 256), (1, 1024, 1024, 1024), (1, 2048, 2048, 2048)]
    for kind in ("strict", "high", "medium", "float64", "bfloat16")
]
PRECISE += [Product(256, 64, 64, 64, "NN", kind) for kind in ("float64", "bfloat16")]
QUICK = [SQUARES[0], SQUARES[2], SQUARES[5], THIN[1], BATCHED[0], BATCHED[2], BATCHED[4]]
QUICK += [TRANSPOSED[0], *PRECISE[1:5]]


def records(run: Run) -> Iterator[Record]:
    return compare("matmul", cases(run.quick), run)


def cases(quick: bool) -> list[Case]:
    products = QUICK if quick else SQUARES + THIN + BATCHED + TRANSPOSED + PRECISE
    return [_case(product) for product in products]


def _case(product: Product) -> Case:
    sides = {"thalweg": _ours, "torch": _torch, "jax": _jax}
    if product.dtype != "bfloat16":
        sides["numpy"] = _numpy
    return Case(
        product.name,
        {impl: functools.partial(side, product) for impl, side in sides.items()},
        TOLERANCE[product.kind],
        product.work,
        functools.partial(_reference, product),
    )


def _operands(product: Product) -> tuple[Array, Array]:
    """In float32 or float64; bfloat16 operands are rounded to it."""
    rng = np.random.default_rng(SEED)
    shapes = [(product.m, product.k), (product.k, product.n)]
    pair = []
    for (rows, columns), letter in zip(shapes, product.layout, strict=True):
        stored = (columns, rows) if letter == "T" else (rows, columns)
        stack = (product.batch,) if product.batch > 1 else ()
        values = rng.standard_normal((*stack, *stored), np.float32)
        if product.dtype == "float64":
            values = values.astype(np.float64)
        elif product.dtype == "bfloat16":
            values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
        pair.append(values.swapaxes(-1, -2) if letter == "T" else values)
    return pair[0], pair[1]


def _reference(product: Product) -> list[Array]:
    a, b = _operands(product)
    return [np.matmul(a.astype(np.float64), b.astype(np.float64))]


def _ours(product: Product) -> Side:
    import thalweg as tw

    a, b = _operands(product)
    if product.dtype == "bfloat16":
        import ml_dtypes

        a, b = a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)
    precision = product.kind if product.dtype == "float32" else None
    out = np.empty_like(tw.matmul(a, b))
    return Side(lambda: tw.matmul(a, b, out=out, precision=precision), lambda: [_wide(out)])


def _numpy(product: Product) -> Side:
    a, b = _operands(product)
    out = np.empty_like(np.matmul(a, b))
    return Side(lambda: np.matmul(a, b, out=out), lambda: [out])


def _torch(product: Product) -> Side:
    import torch

    low = product.kind in ("high", "medium")
    torch.set_float32_matmul_precision(product.kind if low else "highest")
    dtype = getattr(torch, product.dtype)
    a, b = (torch.from_numpy(x).to(dtype) for x in _operands(product))
    out = torch.matmul(a, b)
    return Side(lambda: torch.matmul(a, b, out=out), lambda: [out.double().numpy()])


def _jax(product: Product) -> Side:
    import jax

    jax.config.update("jax_enable_x64", product.dtype == "float64")
    a, b = (jax.numpy.asarray(x, product.dtype) for x in _operands(product))
    multiply = jax.jit(jax.numpy.matmul)
    last: dict[str, Any] = {}

    def call() -> None:
        last["out"] = multiply(a, b).block_until_ready()

    return Side(call, lambda: [_wide(np.asarray(last["out"]))])


def _wide(x: Array) -> Array:
    return x.astype(np.float64)
