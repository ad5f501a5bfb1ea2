"""The CUDA half beside PyTorch on CUDA tensors: fused optimizers, cuBLAS, cuDNN.

A call is several operations and one synchronisation, so that the time is the GPU's. Fractions of
the limit are of the device-to-device copy bandwidth measured in the same run.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from case import Array, Case, Side, Work
from measure import Record, Run, compare

REPEATS = 10  # operations a synchronisation
SHOWN = 10_000  # elements of each tensor that are compared
OPTIMIZERS: list[tuple[str, dict[str, Any], int]] = [
    ("SGD", {"lr": 1e-3, "momentum": 0.9}, 1),
    ("Adam", {}, 2),
    ("AdamW", {}, 2),
]
SIZES = [(1, 64_000_000), (100, 500_000), (400, 2000)]  # tensors, elements of each
PRODUCTS = [1024, 4096, 8192]
# ours -> (PyTorch's allow_tf32, dtype, tolerance)
PRECISIONS = {
    "strict": (False, "float32", 1e-5),
    "high": (True, "float32", 1e-2),
    "medium": (True, "bfloat16", 3e-2),
}


def records(run: Run) -> Iterator[Record]:
    from thalweg import cuda

    cuda.load("benchmarks: suite gpu")
    if "torch" not in run.contestants:
        raise SystemExit("suite gpu needs PyTorch: --vs torch")
    limits = {**run.limits, "triad_gbytes": copy_bandwidth() / 1e9}
    print(f"# copies at {limits['triad_gbytes']:.0f} GB/s")
    return compare("gpu", cases(run.quick), dataclasses.replace(run, limits=limits))


def cases(quick: bool) -> Iterator[Case]:
    for tensors, elements in SIZES[1:] if quick else SIZES:
        for name, options, states in OPTIMIZERS:
            count = 4.0 * tensors * elements
            work = Work(bytes=count * (3 + 2 * states), footprint=count * (2 + states))
            arguments = (name, options, tensors, elements)
            yield _case(f"{name} {tensors}x{elements}", optimizer, arguments, 1e-5, work)
    for n in PRODUCTS[:2] if quick else PRODUCTS:
        for precision, (_, _, tolerance) in PRECISIONS.items():
            work = Work(flops=2.0 * n**3, rate="")
            yield _case(f"matmul {precision} {n}", product, (precision, n), tolerance, work)
    shape = (64, 256, 56, 56)
    size = 4.0 * math.prod(shape)
    work = Work(bytes=3 * size, footprint=2 * size)
    yield _case("batch_norm 64x256x56x56", batch_norm, (shape,), 1e-4, work)


def _case(
    name: str, make: Callable[..., Side], arguments: Any, tolerance: float, work: Work
) -> Case:
    sides = {impl: functools.partial(make, impl, *arguments) for impl in ("thalweg", "torch")}
    repeated = dataclasses.replace(work, flops=work.flops * REPEATS, bytes=work.bytes * REPEATS)
    return Case(name, sides, tolerance, repeated, units=REPEATS)


def copy_bandwidth() -> float:
    """Bytes read and written a second."""
    import torch

    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(REPEATS):
            target.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return float(2 * source.numel() * 4 * REPEATS / best)


def _side(operation: Callable[[], Any], tensors: Callable[[], list[Any]]) -> Side:
    import torch

    def call() -> None:
        for _ in range(REPEATS):
            operation()
        torch.cuda.synchronize()

    def answer() -> list[Array]:
        return [
            torch.as_tensor(t, device="cuda").flatten()[:SHOWN].cpu().numpy() for t in tensors()
        ]

    return Side(call, answer)


def optimizer(
    impl: str, name: str, options: Mapping[str, Any], tensors: int, elements: int
) -> Side:
    import torch

    import thalweg as tw

    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(elements, device="cuda")) for _ in range(tensors)]
    for p in params:
        p.grad = torch.randn(elements, device="cuda")
    if impl == "torch":
        step = getattr(torch.optim, name)(params, **options, fused=True).step
    else:
        mine = getattr(tw.optim, name)([p.detach() for p in params], **options)
        step = functools.partial(mine.step, [p.grad for p in params])
    return _side(step, lambda: [p.detach() for p in params])


def product(impl: str, precision: str, n: int) -> Side:
    import torch

    from thalweg import _core

    tf32, dtype, _ = PRECISIONS[precision]
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.manual_seed(0)
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    if impl == "torch":
        a, b = a.to(getattr(torch, dtype)), b.to(getattr(torch, dtype))
        out = torch.empty_like(a)
        return _side(lambda: torch.matmul(a, b, out=out), lambda: [out.float()])
    out = torch.empty_like(a)
    return _side(lambda: _core.matmul(a, b, out=out, precision=precision), lambda: [out])


def batch_norm(impl: str, shape: tuple[int, ...]) -> Side:
    import torch

    from thalweg import _core

    torch.manual_seed(0)
    x = torch.randn(shape, device="cuda")
    gamma, beta, mean, var = (torch.rand(shape[1], device="cuda") for _ in range(4))
    last: dict[str, Any] = {}

    def ours() -> None:
        last["y"] = _core.batch_norm(x, gamma, beta, mean, var, training=True)[0]

    def theirs() -> None:
        last["y"] = torch.nn.functional.batch_norm(x, mean, var, gamma, beta, training=True)

    return _side(theirs if impl == "torch" else ours, lambda: [last["y"]])
