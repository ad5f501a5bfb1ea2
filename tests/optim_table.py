"""The table that drives all optimizer tests, and what those tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from reference import optim as reference
from thalweg import optim

Array = np.ndarray[Any, Any]
Options = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """shared: variants that torch.optim has under the same names; own: variants that it lacks.
    fixed: what the class means by itself and its reference must be told.
    layerwise: norms of whole tensors enter, so that pieces of a tensor are another problem."""

    make: type[optim.Optimizer]
    reference: Callable[..., Any]
    shared: list[Options]
    own: list[Options] = field(default_factory=list)
    fixed: Options = field(default_factory=dict)
    layerwise: bool = False


L2 = {"weight_decay": 0.1}
ROWS = [
    Row(
        optim.SGD,
        reference.sgd,
        shared=[
            {"lr": 0.1},
            {"lr": 0.1, **L2},
            {"lr": 0.1, "maximize": True, **L2},
            {"lr": 0.1, "momentum": 0.9},
            {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, **L2},
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, **L2},
        ],
        own=[
            {"lr": 0.1, "momentum": 0.9, "nesterov": "interim"},
            {"lr": 0.1, "momentum": 0.9, "momentum_form": "velocity", **L2},
            {"lr": 0.1, "momentum": 0.9, "momentum_form": "average"},
            {"lr": 0.1, "momentum": 0.9, "decoupled": True, **L2},
        ],
    ),
    Row(
        optim.Adagrad,
        reference.adagrad,
        shared=[{}, {"lr": 0.1, "lr_decay": 0.01, "initial_accumulator_value": 0.5, **L2}],
    ),
    Row(
        optim.Adadelta,
        reference.adadelta,
        shared=[{}, {"lr": 0.5, "rho": 0.8, "eps": 1e-4, **L2}, {"maximize": True}],
    ),
    Row(
        optim.RMSprop,
        reference.rmsprop,
        shared=[
            {},
            {"alpha": 0.9, **L2},
            {"momentum": 0.9},
            {"centered": True, **L2},
            {"centered": True, "momentum": 0.5},
        ],
        own=[{"eps_inside": True, "eps": 1e-6}, {"eps_inside": True, "centered": True}],
    ),
    Row(
        optim.Adam,
        reference.adam,
        shared=[{}, {"lr": 0.1, "betas": (0.8, 0.9), **L2}, {"amsgrad": True}, {"maximize": True}],
    ),
    Row(
        optim.AdamW,
        reference.adam,
        shared=[{}, {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}],
        fixed={"decoupled": True, "weight_decay": 1e-2},
    ),
    Row(
        optim.Adamax,
        reference.adamax,
        shared=[{}, {"lr": 0.1, "betas": (0.8, 0.9), **L2}, {"maximize": True}],
    ),
    Row(
        optim.NAdam,
        reference.nadam,
        shared=[
            {},
            {"momentum_decay": 0.1, **L2},
            {"decoupled_weight_decay": True, **L2},
        ],
    ),
    Row(
        optim.RAdam,
        reference.radam,
        shared=[{}, {"betas": (0.8, 0.9), **L2}, {"decoupled_weight_decay": True, **L2}],
    ),
    Row(
        optim.Rprop,
        reference.rprop,
        shared=[{}, {"lr": 0.1, "etas": (0.4, 1.5), "step_sizes": (1e-3, 0.2)}, {"maximize": True}],
    ),
    Row(
        optim.Lion,
        reference.lion,
        shared=[],
        own=[{}, {"lr": 0.01, "betas": (0.8, 0.9), **L2}, {"maximize": True}],
        fixed={"decoupled": True},
    ),
    Row(
        optim.LARS,
        reference.lars,
        shared=[],
        own=[
            {"lr": 1.0},
            {"lr": 1.0, "momentum": 0.0, "trust_coefficient": 0.1, **L2},
            {"lr": 1.0, "maximize": True},
        ],
        fixed={"decays_itself": True},
        layerwise=True,
    ),
    Row(
        optim.LAMB,
        reference.lamb,
        shared=[],
        own=[{}, {"lr": 0.01, "betas": (0.8, 0.9), **L2}, {"maximize": True}],
        fixed={"decays_itself": True},
        layerwise=True,
    ),
]


def variants(shared_only: bool = False, layerwise: bool = True) -> list[Any]:
    """One pytest parameter `(row, options)` for each variant of each row."""

    def name(row: Row, options: Options) -> str:
        return f"{row.make.__name__}({','.join(f'{k}={v}' for k, v in options.items())})"

    return [
        pytest.param(row, options, id=name(row, options))
        for row in ROWS
        if layerwise or not row.layerwise
        for options in (row.shared if shared_only else row.shared + row.own)
    ]


every_variant = pytest.mark.parametrize(("row", "options"), variants())
every_elementwise_variant = pytest.mark.parametrize(("row", "options"), variants(layerwise=False))
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def reference_options(row: Row, options: Options) -> Options:
    """Options of the class as `reference.update` wants them: complete and with one name each."""
    merged = {**row.fixed, **options}
    if "decoupled_weight_decay" in merged:
        merged["decoupled"] = merged.pop("decoupled_weight_decay")
    merged.setdefault("lr", row.reference.__kwdefaults__.get("lr"))
    return merged


def drawn(shapes: Sequence[tuple[int, ...]], dtype: Any, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def trained(
    row: Row,
    options: Options,
    params: list[Array],
    steps: int = 4,
    seed: int = 1,
    **kwargs: Any,
) -> list[Array]:
    """`params` after some steps with drawn gradients."""
    opt = row.make(params, **options)
    for t in range(steps):
        grads = drawn([p.shape for p in params], params[0].dtype, seed + t)
        opt.step(grads, **kwargs)
    return params


def assert_same_bits(a: Sequence[Array], b: Sequence[Array]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y, strict=True)
