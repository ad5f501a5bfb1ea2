"""The CUDA half beside PyTorch on the same CUDA tensors: fused optimizers, cuBLAS, cuDNN.

A call is several operations and one synchronisation, so that the time is the GPU's. Fractions of
the limit are of the device-to-device copy bandwidth measured in the same run.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import thalweg as tw
from case import Call, Case, Trial, Work
from measure import Record, Run, compare
from thalweg import _core, cuda

REPEATS = 10  # operations a synchronisation
OPTIMIZERS = [("SGD", {"lr": 1e-3, "momentum": 0.9}, 1), ("Adam", {}, 2), ("AdamW", {}, 2)]
SIZES = [(1, 64_000_000), (100, 500_000), (400, 2000)]  # tensors, elements of each
PRODUCTS = [1024, 4096, 8192]
# ours -> (PyTorch's allow_tf32, dtype, relative tolerance)
PRECISIONS = {
    "strict": (False, "float32", 1e-5),
    "high": (True, "float32", 1e-2),
    "medium": (True, "bfloat16", 3e-2),
}


def records(run: Run) -> Iterator[Record]:
    cuda.load("benchmarks: suite gpu")
    torch = run.peers.modules.get("torch")
    if torch is None:
        raise SystemExit("suite gpu needs PyTorch: --vs torch")
    limits = {**run.limits, "triad_gbytes": copy_bandwidth(torch) / 1e9}
    print(f"# {torch.cuda.get_device_name()}, copies at {limits['triad_gbytes']:.0f} GB/s")
    return compare("gpu", cases(run.quick), dataclasses.replace(run, limits=limits))


def cases(quick: bool) -> Iterator[Case]:
    for tensors, elements in SIZES[1:] if quick else SIZES:
        for name, options, states in OPTIMIZERS:
            make = functools.partial(optimizer, name, options, states, tensors, elements)
            yield Case(f"{name} {tensors}x{elements}", make)
    for n in PRODUCTS[:2] if quick else PRODUCTS:
        for precision in PRECISIONS:
            yield Case(f"matmul {precision} {n}", functools.partial(product, precision, n))
    yield Case("batch_norm 64x256x56x56", functools.partial(batch_norm, (64, 256, 56, 56)))


def copy_bandwidth(torch: ModuleType) -> float:
    """Bytes read and written a second."""
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


def repeated(torch: ModuleType, call: Call) -> Call:
    def run() -> None:
        for _ in range(REPEATS):
            call()
        torch.cuda.synchronize()

    return run


def optimizer(
    name: str,
    options: Mapping[str, Any],
    states: int,
    tensors: int,
    elements: int,
    peers: Mapping[str, ModuleType],
) -> Trial:
    torch = peers["torch"]
    start = [torch.randn(elements, device="cuda") for _ in range(tensors)]
    grads = [torch.randn(elements, device="cuda") for _ in range(tensors)]
    ours = [p.clone() for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    for p, g in zip(theirs, grads, strict=True):
        p.grad = g
    mine = getattr(tw.optim, name)(ours, **options)
    peer = getattr(torch.optim, name)(theirs, **options, fused=True)

    def check() -> None:
        for _ in range(3):
            mine.step(grads)
            peer.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6)

    count = tensors * elements
    work = Work(
        bytes=4.0 * count * (3 + 2 * states) * REPEATS, footprint=4.0 * count * (2 + states)
    )
    return Trial(
        repeated(torch, lambda: mine.step(grads)),
        {"torch fused": repeated(torch, peer.step)},
        check,
        work,
    )


def product(precision: str, n: int, peers: Mapping[str, ModuleType]) -> Trial:
    torch = peers["torch"]
    tf32, dtype, tolerance = PRECISIONS[precision]
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(n, n, device="cuda") for _ in range(2))
    out = torch.empty_like(a)
    low_a, low_b = a.to(getattr(torch, dtype)), b.to(getattr(torch, dtype))

    def ours() -> object:
        return _core.matmul(a, b, out=out, precision=precision)

    def check() -> None:
        ours()
        reference = a.double() @ b.double()
        error = (out.double() - reference).norm() / reference.norm()
        assert error < tolerance, f"{precision}: relative error {float(error):.2e}"

    calls = {f"torch {dtype}{' tf32' * (tf32 and dtype == 'float32')}": lambda: low_a @ low_b}
    peers_calls = {name: repeated(torch, call) for name, call in calls.items()}
    return Trial(repeated(torch, ours), peers_calls, check, Work())


def batch_norm(shape: tuple[int, ...], peers: Mapping[str, ModuleType]) -> Trial:
    torch = peers["torch"]
    x = torch.randn(shape, device="cuda")
    gamma, beta, mean, var = (torch.rand(shape[1], device="cuda") for _ in range(4))

    def ours() -> Any:
        return _core.batch_norm(x, gamma, beta, mean, var, training=True)[0]

    def theirs() -> Any:
        return torch.nn.functional.batch_norm(x, mean, var, gamma, beta, training=True)

    def check() -> None:
        torch.testing.assert_close(
            torch.as_tensor(ours(), device="cuda"), theirs(), rtol=1e-4, atol=1e-5
        )

    size = 4.0 * x.numel()
    work = Work(bytes=3 * size * REPEATS, footprint=2 * size)
    return Trial(repeated(torch, ours), {"torch cudnn": repeated(torch, theirs)}, check, work)
