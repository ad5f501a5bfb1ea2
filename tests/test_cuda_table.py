"""What the CUDA table promises beyond the CPU's tests: the CPU's bits, and its own precisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from device import on_the_cpu
from thalweg import _core

Array = npt.NDArray[Any]
ACTIVATIONS = ["sigmoid", "tanh", "relu", "leaky_relu", "gelu", "softplus"]
UNARY = ["abs", "neg", "sign", "square", "sqrt", "reciprocal", "exp", "log", "erf", *ACTIVATIONS]
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "above", "less", "equal", "join"]
GRADIENTS = [f"{name}_backward" for name in ACTIVATIONS]
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def drawn(shape: tuple[int, ...], dtype: npt.DTypeLike, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_same_bits(call: Callable[[], Any]) -> None:
    ours = call()
    with on_the_cpu():
        expected = call()
    ours, expected = (x if isinstance(x, tuple) else (x,) for x in (ours, expected))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@every_dtype
@pytest.mark.parametrize("name", UNARY + BINARY + GRADIENTS)
def test_elementwise_has_the_bits_of_the_cpu(name: str, dtype: Any) -> None:
    x, y = drawn((37, 41), dtype), drawn((37, 41), dtype, 1)[::-1]
    operands = (np.abs(x),) if name == "log" else (x,) if name in UNARY else (x, y)
    assert_same_bits(lambda: getattr(_core, name)(*operands))


@every_dtype
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "sum_squares"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((9001,), None), ((3, 9001), 1), ((9001, 3), 0), ((40, 20, 30), (0, 2))]
)
def test_reductions_have_the_bits_of_the_cpu(
    name: str, shape: tuple[int, ...], axis: Any, dtype: Any
) -> None:
    x = drawn(shape, dtype)
    assert_same_bits(lambda: getattr(_core, name)(x, axis))


@every_dtype
@pytest.mark.parametrize("length", [1, 10, 16, 4096, 4097, 70_000, 140_000])
def test_softmax_and_its_loss_have_the_bits_of_the_cpu(length: int, dtype: Any) -> None:
    x, target = drawn((3, length), dtype), np.array([0, length - 1, length // 2])
    assert_same_bits(lambda: (_core.softmax(x), _core.log_softmax(x)))
    assert_same_bits(lambda: _core.softmax_cross_entropy(x, target, label_smoothing=0.1))
    assert_same_bits(lambda: _core.softmax_backward(x, x[::-1]))


@every_dtype
def test_dropout_has_the_masks_of_the_cpu(dtype: Any) -> None:
    x = drawn((7, 3, 11), dtype)
    assert_same_bits(
        lambda: _core.dropout(x, 0.4, seed=2**40 + 3, step=5, module=2, sample_offset=9)
    )


@every_dtype
@pytest.mark.skipif("avx2" not in _core.available_isas(), reason="needs a CPU with FMA")
@pytest.mark.parametrize("depth", [1, 15, 16, 17, 384, 385, 1000])
def test_strict_products_have_the_bits_of_the_cpu(depth: int, dtype: Any) -> None:
    a, b, bias = drawn((2, 33, depth), dtype), drawn((depth, 70), dtype, 1), drawn((70,), dtype, 2)
    assert_same_bits(lambda: _core.matmul(a, b, bias=bias, activation="relu", precision="strict"))
    assert_same_bits(lambda: _core.matmul(np.asfortranarray(a), b, precision="strict"))


@pytest.mark.parametrize(("precision", "bound"), [("high", 2.0**-20), ("medium", 2.0**-7)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (130, 33, 129), (17, 300, 140), (128, 16, 128)])
def test_products_on_matrix_units_stay_within_their_bound(
    precision: str, bound: float, shape: tuple[int, int, int]
) -> None:
    """bf16 rounds each operand by 2^-9; two tf32 parts leave 2^-22, and then float32's sums."""
    m, k, n = shape
    a, b, bias = (
        drawn((m, k), np.float32),
        drawn((n, k), np.float32, 1).T,
        drawn((n,), np.float32, 2),
    )
    result = _core.matmul(a, b, bias=bias, activation="sigmoid", precision=precision)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    reference = 1 / (1 + np.exp(-(exact + bias)))
    scale = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64) + np.abs(bias)
    assert np.all(np.abs(result - reference) <= bound * scale + 1e-6)


def optimizer_steps(rule: str, dtype: Any, options: dict[str, Any]) -> tuple[Array, ...]:
    """Three steps over tensors of many sizes, more of them than one launch takes."""
    shapes = [(5000,), (0,), (3, 7)] + [(n % 40 + 1,) for n in range(450)]
    params = [drawn(s, dtype, i) for i, s in enumerate(shapes)]
    names = _core.optimizer_rules()[rule]
    states = [[np.abs(drawn(s, dtype, 7)) for s in shapes] for _ in names]
    averages = [p.copy() for p in params]
    steps = np.array([[0.0, 1, 1, 1]] * len(shapes))
    native = _core.FusedOptimizer()
    native.add_group(
        rule, params, states, steps, averages, [1 + 0.1 * (i % 3) for i in range(len(shapes))]
    )
    values = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "momentum": 0.9, "rho": 0.9}
    values |= {"weight_decay": 0.1, "momentum_decay": 0.004, "eta_minus": 0.5, "eta_plus": 1.2}
    values |= {"step_min": 1e-6, "step_max": 50.0}
    hyper = np.array([[values.get(name, 0.0) for name in _core.HYPER_FIELDS]])
    norms = []
    for t in range(3):
        grads: list[Any] = [drawn(s, dtype, 100 * t + i) for i, s in enumerate(shapes)]
        grads[2] = None if t == 1 else [grads[2], grads[2] * dtype(0.5)]
        norms.append(native.step(hyper, [grads], ema_decay=0.9, zero_grad=True, **options) or 0.0)
        assert not any(g.any() for g in grads if isinstance(g, np.ndarray))
    return (*params, *(s for column in states for s in column), *averages, steps, np.array(norms))


@every_dtype
@pytest.mark.parametrize("rule", sorted(_core.optimizer_rules()))
def test_optimizer_steps_have_the_bits_of_the_cpu(rule: str, dtype: Any) -> None:
    assert_same_bits(lambda: optimizer_steps(rule, dtype, {"max_norm": 5.0, "clip_value": 0.05}))


@every_dtype
@pytest.mark.parametrize(
    "shape", [(300, 5), (70, 33), (9, 4, 20, 30), (200, 3, 1, 1), (2, 1, 70, 70)]
)
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_batch_norm_agrees_with_the_cpu(
    shape: tuple[int, ...], activation: str | None, dtype: Any
) -> None:
    x, dy, residual = (drawn(shape, dtype, i) for i in range(3))
    gamma, beta = drawn(shape[1:2], dtype, 3), drawn(shape[1:2], dtype, 4)

    def both_ways() -> tuple[Array, ...]:
        mean, var = np.zeros(shape[1], dtype), np.ones(shape[1], dtype)
        y, saved = _core.batch_norm(
            x, gamma, beta, mean, var, training=True, residual=residual, activation=activation
        )
        fixed, _ = _core.batch_norm(x, gamma, beta, mean, var, training=False)
        return (y, fixed, mean, var, *_core.batch_norm_backward(dy, x, gamma, saved))

    ours = both_ways()
    with on_the_cpu():
        expected = both_ways()
    tolerance = 50 * float(np.finfo(dtype).eps)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))
