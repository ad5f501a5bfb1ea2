"""What users hand to an optimizer: parameter groups in any form, options within their ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np

Group: TypeAlias = dict[str, Any]
Parameters: TypeAlias = Iterable[Any] | Mapping[str, Any]

Nonfinite = Literal["propagate", "skip", "raise"]


class Around(TypedDict, total=False):
    """Keyword arguments that every optimizer takes, see `Optimizer`."""

    maximize: bool
    max_norm: float | None
    clip_value: float | None
    ema_decay: float | None
    nonfinite: Nonfinite
    state_dtype: Literal["int8"] | None
    copy_dtype: Literal["bfloat16", "float16"] | None


# One name means one thing in every rule, so its range is stated once.
RANGES = {
    "lr": "[0, inf)",
    "weight_decay": "[0, inf)",
    "eps": "[0, inf)",
    "beta1": "[0, 1)",
    "beta2": "[0, 1)",
    "momentum": "[0, inf)",
    "dampening": "(-inf, inf)",
    "rho": "[0, 1]",
    "alpha": "[0, 1]",
    "lr_decay": "[0, inf)",
    "initial_accumulator_value": "[0, inf)",
    "momentum_decay": "[0, inf)",
    "eta_minus": "(0, 1)",
    "eta_plus": "(1, inf)",
    "step_min": "[0, inf)",
    "step_max": "[0, inf)",
    "trust_coefficient": "[0, inf)",
    "lr_scale": "[0, inf)",
    "max_norm": "(0, inf]",
    "clip_value": "(0, inf]",
    "ema_decay": "[0, 1)",
    "grad_scale": "(-inf, inf)",
    "init_scale": "(0, inf)",
    "growth_factor": "(1, inf)",
    "backoff_factor": "(0, 1)",
    "growth_interval": "[1, inf)",
}


def _closed(interval: str) -> tuple[float, float]:
    """The least and the largest float of an interval."""
    low, high = map(float, interval[1:-1].split(","))
    return (
        low if interval[0] == "[" else math.nextafter(low, math.inf),
        high if interval[-1] == "]" else math.nextafter(high, -math.inf),
    )


_BOUNDS = {name: _closed(interval) for name, interval in RANGES.items()}


def check_range(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a number in the interval that `RANGES` gives to `name`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    low, high = _BOUNDS[name]
    if not low <= float(value) <= high:  # NaN too
        raise ValueError(f"{owner}: {name} must be in {RANGES[name]}, got {value}")


def own_options(arguments: Mapping[str, Any]) -> Group:
    """The options among the arguments of an optimizer's constructor, given as its `locals()`."""
    others = ("self", "params", "around", "__class__")
    return {name: value for name, value in arguments.items() if name not in others}


def check_choice(owner: str, name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ValueError(f"{owner}: {name} must be one of {expected}, got {value!r}")


def check_pair(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a pair, as `betas`, `etas` and `step_sizes` are."""
    if not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{owner}: {name} must be a pair of numbers, got {value!r}")


def is_fixed(group: Group) -> bool:
    """Whether no option in `group` can change in place; the list of the parameters has no say."""
    plain = (bool, int, float, str, tuple, np.generic, type(None))
    return all(isinstance(v, plain) or k in ("params", "param_names") for k, v in group.items())


def is_single(value: object) -> bool:
    """Whether `value` is one parameter rather than several."""
    return hasattr(value, "__dlpack__") or hasattr(value, "__array__")


def as_groups(owner: str, params: Parameters) -> list[Group]:
    """Bring parameters in any accepted form into a list of groups.

    Accepted are an iterable of parameters, of `(name, parameter)` pairs or of groups
    (dictionaries with "params"), and a dictionary `{name: parameter}`.
    """
    if is_single(params):
        raise TypeError(f"{owner}: params must be several parameters; write [params] for one")
    if isinstance(params, Mapping):
        return [{"params": params}]
    if isinstance(params, set | frozenset):
        raise TypeError(f"{owner}: params must have an order, got a set; pass a list")
    if isinstance(params, str | bytes) or not isinstance(params, Iterable):
        raise TypeError(f"{owner}: params must be an iterable, got {type(params).__name__}")
    items = list(params)
    if not items:
        raise ValueError(f"{owner}: params is empty")
    if not any(isinstance(item, Mapping) for item in items):
        return [{"params": items}]
    for item in items:
        if not isinstance(item, Mapping) or "params" not in item:
            raise TypeError(f"{owner}: a parameter group is a dict with 'params', got {item!r}")
    return [dict(item) for item in items]


def split_names(owner: str, params: Any) -> tuple[list[Any], list[str] | None]:
    """Parameters of one group and their names, where they came with names."""
    if is_single(params):
        return [params], None
    if isinstance(params, set | frozenset):
        raise TypeError(f"{owner}: params must have an order, got a set; pass a list")
    items = list(params.items()) if isinstance(params, Mapping) else list(params)
    named = [isinstance(item, tuple) and len(item) == 2 for item in items]
    if not any(named):
        return items, None
    if not all(named):
        raise TypeError(f"{owner}: either all parameters of a group have names or none has")
    return [item[1] for item in items], [str(item[0]) for item in items]


def as_scale(owner: str, scale: Any, count: int) -> float | tuple[float, ...]:
    """`lr_scale` as one number or a tuple of `count`, both immutable so that changes are seen."""
    if not isinstance(scale, Sequence | np.ndarray):
        check_range(owner, "lr_scale", scale)
        return float(scale)
    if len(scale) != count:
        raise ValueError(f"{owner}: lr_scale has {len(scale)} entries for {count} parameters")
    for value in scale:
        check_range(owner, "lr_scale", value)
    return tuple(map(float, scale))


def check_unique(owner: str, groups: Sequence[Group]) -> None:
    """Raise where a parameter object or a name stands twice in `groups`."""
    for what, key, identity in (("parameter", "params", id), ("name", "param_names", str)):
        seen: dict[Any, int] = {}
        values = [value for group in groups for value in group.get(key, ())]
        for index, value in enumerate(values):
            first = seen.setdefault(identity(value), index)
            if first != index:
                raise ValueError(f"{owner}: {what} {index} was given already as {what} {first}")
