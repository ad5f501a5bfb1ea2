"""Every error of tensors names what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import thalweg as tw
from thalweg.backend import Arena


def ones(*shape: int) -> tw.Tensor:
    return tw.ones(*shape, requires_grad=True)


F32, F64 = tw.ones(3), tw.ones(3, dtype=np.float64)

ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "dtypes add": (lambda: F32 + F64, TypeError, "float32.*float64|float64.*float32"),
    "dtypes matmul": (lambda: F32 @ F64, TypeError, "float32.*float64|float64.*float32"),
    "dtypes concatenate": (
        lambda: tw.concatenate([F32, F64]),
        TypeError,
        "array 0 is float32, array 1 is float64",
    ),
    "int data": (lambda: tw.tensor(np.arange(3)), TypeError, "float32 or float64, got int64"),
    "half data": (lambda: tw.Tensor(np.ones(3, np.float16)), TypeError, "got float16"),
    "complex data": (lambda: tw.Tensor(np.ones(3, complex)), TypeError, "got complex128"),
    "big endian": (lambda: tw.Tensor(np.ones(3, ">f4")), TypeError, "got >f4"),
    "int dtype": (lambda: tw.zeros(3, dtype=np.int64), TypeError, "got int64"),
    "int operand": (lambda: F32 + np.arange(3), TypeError, "int64"),
    "object operand": (lambda: F32 + object(), TypeError, "object"),
    "negative shape": (lambda: tw.zeros(2, -1), ValueError, r"\(2, -1\)"),
    "shapes": (lambda: F32 + tw.ones(4), ValueError, r"\(3,\).*\(4,\)"),
    "matmul shapes": (
        lambda: tw.ones(2, 3) @ tw.ones(2, 3),
        ValueError,
        r"\(2, 3\).*\(2, 3\)",
    ),
    "item": (lambda: F32.item(), ValueError, r"one element.*\(3,\)"),
    "bool": (lambda: bool(F32), ValueError, r"one element.*\(3,\)"),
    "backward without history": (
        lambda: F32.sum().backward(),
        RuntimeError,
        "nothing was recorded",
    ),
    "backward of a vector": (
        lambda: (ones(3) * 2).backward(),
        RuntimeError,
        r"gradient is needed .* \(3,\)",
    ),
    "gradient shape": (
        lambda: (ones(3) * 2).backward(tw.ones(4)),
        ValueError,
        r"gradient must have shape \(3,\), got \(4,\)",
    ),
    "gradient dtype": (
        lambda: (ones(3) * 2).backward(F64),
        TypeError,
        "gradient must be float32, got float64",
    ),
    "grad shape": (
        lambda: setattr(ones(3), "grad", tw.ones(4)),
        ValueError,
        r"\(3,\), got float32 of shape \(4,\)",
    ),
    "grad array": (
        lambda: setattr(ones(3), "grad", np.ones(3, np.float32)),
        TypeError,
        "expected a Tensor or None, got ndarray",
    ),
    "block_linear weight": (
        lambda: tw.block_linear(tw.ones(2, 4), tw.ones(4, 4)),
        ValueError,
        r"weight must be \(G, O, I\), got \(4, 4\)",
    ),
    "stop at a result": (
        lambda: (ones(3) * 2).requires_grad_(False),
        RuntimeError,
        "only a leaf",
    ),
    "numpy of a tensor with grad": (lambda: ones(3).numpy(), RuntimeError, "detach"),
    "device": (lambda: F32.to("cuda"), RuntimeError, r"Tensor.to\('cuda'\) needs the GPU"),
    "in place dtype": (lambda: F32.add_(F64), TypeError, "float32|float64"),
    "in place shape": (lambda: F32.add_(tw.ones(2, 3)), ValueError, r"\(3,\)"),
    "matmul out": (
        lambda: tw.matmul(ones(2, 2), ones(2, 2), out=np.empty((2, 2), np.float32)),
        RuntimeError,
        "not recorded.*no_grad",
    ),
    "matmul gelu": (
        lambda: tw.matmul(ones(2, 2), ones(2, 2), activation="gelu"),
        RuntimeError,
        "apply the activation",
    ),
    "grad of a constant": (
        lambda: tw.grad(ones(3).sum(), [F32]),
        RuntimeError,
        "input 0 does not require grad",
    ),
    "view of a transpose": (lambda: tw.ones(2, 3).T.view(6), ValueError, "use reshape"),
    "var of one": (lambda: tw.ones(1).var(), ValueError, "more than 1 elements, got 1"),
    "empty concatenate": (lambda: tw.concatenate([]), ValueError, "at least one"),
    "dtypes where": (
        lambda: tw.where(np.ones(3, bool), F32, F64),
        TypeError,
        "b is float64 but a is float32",
    ),
    "complex numbers": (lambda: tw.tensor([1j]), TypeError, "real numbers, got complex128"),
    "text": (lambda: tw.tensor(["1"]), TypeError, "real numbers, got <U1"),
    "unlimited clamp": (lambda: F32.clamp(), ValueError, "low, high or both, got neither"),
    "expand": (lambda: tw.ones(2, 3).expand(3), ValueError, r"at least 2 axes.*\(2, 3\)"),
    "broken seed": (lambda: tw.manual_seed(1.5), TypeError, "an integer, got 1.5"),
    "seed": (lambda: tw.manual_seed(-1), ValueError, "got -1"),
    "std": (lambda: tw.zeros(3).normal_(0, -1), ValueError, "got -1"),
    "arena twice": (lambda: Arena([w := ones(2), w]), ValueError, "tensor 1 was given twice"),
    "arena result": (lambda: Arena([ones(2) * 2]), ValueError, "recorded operation"),
}


@pytest.mark.parametrize("name", list(ERRORS))
def test_errors_name_what_was_expected_and_what_came(name: str) -> None:
    call, kind, message = ERRORS[name]
    before = F32.data.copy(), F64.data.copy()
    with pytest.raises(kind, match=message):
        call()
    np.testing.assert_array_equal(F32.data, before[0])
    np.testing.assert_array_equal(F64.data, before[1])
