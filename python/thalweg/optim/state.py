"""State dictionaries in PyTorch's layout: `{"state": {index: {...}}, "param_groups": [...]}`.

Loading has two halves, so that a dictionary that does not fit changes nothing: `check_groups` and
`check_entries` read and convert, `restore` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import _core
from .options import Group
from .slots import ABSMAX, INITIAL_STEP, QUANT_BLOCK, Slots

MASTER = "master_param"  # optional where it is read: a master follows from its parameter

Entry: TypeAlias = dict[str, Any]


def to_dict(groups: Sequence[Group], slots: Sequence[Slots]) -> dict[str, Any]:
    """The dictionary of an optimizer with these groups; its arrays are the live ones."""
    state: dict[int, Entry] = {}
    saved_groups = []
    first = 0
    for group, held in zip(groups, slots, strict=True):
        count = len(held.owners)
        saved_groups.append({**group, "params": list(range(first, first + count))})
        for i in range(count):
            if held.steps[i, 0] > 0:
                state[first + i] = _entry(held, i)
        first += count
    return {"state": state, "param_groups": saved_groups}


def _entry(held: Slots, i: int) -> Entry:
    fields = zip(_core.STEP_FIELDS, map(float, held.steps[i]), strict=True)
    states = {name: arrays[i] for name, arrays in held.states.items()}
    averages = {} if held.averages is None else {"ema": held.averages[i]}
    states |= {name + ABSMAX: arrays[i] for name, arrays in held.absmax.items()}
    master = held.masters[i]
    return dict(fields) | states | averages | ({} if master is None else {MASTER: master})


def check_groups(owner: str, groups: Sequence[Group], saved: Mapping[str, Any]) -> list[Group]:
    """`groups` with the saved options; keys that only PyTorch uses are kept and ignored."""
    if not {"state", "param_groups"} <= saved.keys():
        raise ValueError(f"{owner}: a state dictionary has 'state' and 'param_groups'")
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != saved_sizes:
        raise ValueError(
            f"{owner}: expected groups of {sizes} parameters, the state has {saved_sizes}"
        )
    own = ("params", "param_names")
    return [
        {**group, **{key: value for key, value in old.items() if key not in own}}
        for group, old in zip(groups, saved["param_groups"], strict=True)
    ]


def check_entries(
    rules: Sequence[str], slots: Sequence[Slots], saved: Mapping[str, Any]
) -> list[list[Entry]]:
    """The saved entry of every parameter, {} for one that was never stepped."""
    entries: list[list[Entry]] = []
    rest = iter(index for group in saved["param_groups"] for index in group["params"])
    for rule, held in zip(rules, slots, strict=True):
        expected = set(_core.optimizer_rules()[rule])
        if held.quantized:
            expected |= {name + ABSMAX for name in expected}
        if held.averages is not None:
            expected.add("ema")
        rows = []
        for name, view in zip(held.names, held.views, strict=True):
            entry = dict(saved["state"].get(next(rest), {}))
            rows.append(_check_entry(name, view, expected, entry))
        entries.append(rows)
    return entries


def _check_entry(name: str, view: np.ndarray[Any, Any], expected: set[str], entry: Entry) -> Entry:
    entry = {key: value for key, value in entry.items() if value is not None}
    if not entry:
        return entry
    given = entry.keys() - set(_core.STEP_FIELDS)
    if given - {MASTER} != expected:
        raise ValueError(f"{name}: expected states {sorted(expected)}, got {sorted(given)}")
    for key in given:
        entry[key] = np.asarray(entry[key])
        shape = (-(-view.size // QUANT_BLOCK),) if key.endswith(ABSMAX) else view.shape
        if entry[key].shape != shape:
            raise ValueError(f"{name}: {key} must be {shape}, got {entry[key].shape}")
    return entry


def restore(held: Slots, entries: Sequence[Entry], options: Mapping[str, Any]) -> None:
    """Write checked entries. Where PyTorch keeps fewer step fields than we do (no running
    products of the betas, no count for SGD) they follow from the count and the options."""
    for i, entry in enumerate(entries):
        row: Sequence[float] = INITIAL_STEP
        if entry:
            step = float(entry.get("step", 1.0))
            powers = {key: options.get(key, 0.0) ** step for key in ("beta1", "beta2")}
            default = (step, powers["beta1"], powers["beta2"], 1.0)
            fields = zip(_core.STEP_FIELDS, default, strict=True)
            row = [float(entry.get(field, value)) for field, value in fields]
        held.steps[i] = row
        for name, arrays in held.states.items():
            arrays[i][...] = entry.get(name, 0)
        for name, arrays in held.absmax.items():
            arrays[i][...] = entry.get(name + ABSMAX, 0)
        if held.averages is not None and entry:
            held.averages[i][...] = entry["ema"]
        master = held.masters[i]
        if master is not None:
            master[...] = entry.get(MASTER, held.views[i])
    held.fresh = True
