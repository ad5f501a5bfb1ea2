"""What all optimizers share: parameter groups, the step, state dictionaries, weight averages.

A rule's own part (formula, options, checks) is in `rules.py`; its arithmetic is the struct of the
same name in `csrc/rules/optim_*.h`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from operator import is_
from typing import Any, Literal, get_args

from .. import _core
from ..recording import active
from . import state
from .evaluation import Evaluation
from .gradients import Gradients
from .half import HALF
from .hyper import Hyperparameters
from .options import (
    Group,
    Nonfinite,
    Parameters,
    as_groups,
    as_scale,
    check_choice,
    check_range,
    check_unique,
    is_fixed,
    split_names,
)
from .slots import Slots

_DERIVED = {"_native", "_block", "_bound", "_seen", "_slots"}  # made again from all the rest


class Optimizer(Hyperparameters, Evaluation, Gradients):
    """Base of all optimizers; `step()` is one call into compiled code whatever the tensors.

    Args:
        params: arrays, `tw.Tensor`s or `torch.nn.Parameter`s (dtypes may be mixed),
            `(name, parameter)` pairs, a dictionary of parameters, or groups
            `{"params": ..., "lr": ..., "lr_scale": ...}`. They are updated in place, not copied.
        defaults: options of groups that do not give their own.
        maximize: go up the gradient (a group's option).
        max_norm: clip the global gradient norm; `math.inf` measures it and does not clip.
        clip_value: clip every gradient element into [-clip_value, clip_value].
        ema_decay: keep averages `ema = ema_decay*ema + (1-ema_decay)*p`, which start at the
            parameters before the first step.

        nonfinite: what a step does that meets Inf or NaN in a gradient: "propagate" lets them
            through, "skip" leaves parameters, states and step counts as they are, "raise" does so
            and raises FloatingPointError with the parameter's name. The last two read the
            gradients once more, as `max_norm` does. The policy is one of the whole optimizer, over
            all its groups; ranks of a pipeline look each at its own stage.
        state_dtype: "int8" keeps states in 8 bits and one float32 for 256 of them, on the dynamic
            map of Dettmers et al. 2022 (arXiv:2110.02861), for SGD, Adagrad, RMSprop, Adam, AdamW
            and Lion on parameters of at most 32 bits; None keeps them in the parameters' dtype, or
            in float32 for parameters of 16 bits.
        copy_dtype: "bfloat16" or "float16": every step also writes `copies`, the float32 parameters
            rounded to it.

    Parameters of bfloat16 and float16 have float32 master weights, states and averages; the
    parameter is its master rounded to nearest even, and takes gradients of its dtype or float32.
    Who writes such a parameter between steps writes its master too.

    A group's "lr_scale" multiplies its learning rate: one number, or one per parameter.

    Attributes:
        param_groups: the groups, as in PyTorch; what is written there holds from the next step.
        last_grad_norm: global gradient norm before clipping that the last `step` (with `max_norm`
            or a `nonfinite` other than "propagate") or `grad_norm` measured, else None.
        skipped_steps: how many steps were left out for Inf or NaN.

    Raises:
        ValueError: an option outside its range, a parameter given twice, read-only or overlapping.
        TypeError: a parameter that is no array of float32, float64, bfloat16 or float16.
    """

    def __init__(
        self,
        params: Parameters,
        defaults: Mapping[str, Any],
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        clip_value: float | None = None,
        ema_decay: float | None = None,
        nonfinite: Nonfinite = "propagate",
        state_dtype: Literal["int8"] | None = None,
        copy_dtype: Literal["bfloat16", "float16"] | None = None,
    ) -> None:
        super().__init__()
        self._name = type(self).__name__
        check_choice(self._name, "nonfinite", nonfinite, get_args(Nonfinite))
        self.max_norm, self.clip_value, self.ema_decay = max_norm, clip_value, ema_decay
        self._check_stages()
        check_choice(self._name, "state_dtype", state_dtype, (None, "int8"))
        self.nonfinite, self.skipped_steps = nonfinite, 0
        check_choice(self._name, "copy_dtype", copy_dtype, (None, *HALF))
        self.state_dtype, self.copy_dtype = state_dtype, copy_dtype
        self.defaults = {**defaults, "maximize": maximize, "lr_scale": 1.0}
        self.param_groups: list[Group] = []
        self.last_grad_norm: float | None = None
        self._slots: list[Slots] = []
        for group in as_groups(self._name, params):
            self._append(group)
        self._bind()

    # --- groups --------------------------------------------------------------------------------

    def add_param_group(self, group: Group) -> None:
        """Add a group of parameters; after an error the optimizer is as before."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"{self._name}: a parameter group is a dict with 'params'")
        self._append(group)
        try:
            self._bind()
        except BaseException:
            self.param_groups.pop()
            self._slots.pop()
            raise

    def _append(self, group: Group) -> None:
        owners, names = split_names(self._name, group["params"])
        unknown = group.keys() - self.defaults.keys() - {"params", "param_names", "initial_lr"}
        if unknown:
            expected = ", ".join(self.defaults)
            raise ValueError(f"{self._name}: unknown option {min(unknown)!r}, expected {expected}")
        group = {**self.defaults, **group, "params": owners}
        if names is not None:
            group["param_names"] = names
        group["lr_scale"] = as_scale(self._name, group["lr_scale"], len(owners))
        self.check(group)
        check_unique(self._name, [*self.param_groups, group])
        self._hold(owners)
        self.param_groups.append(group)

    def _hold(self, owners: list[Any]) -> None:
        first = sum(len(slots.owners) for slots in self._slots)
        self._slots.append(
            Slots(
                self._name,
                owners,
                first,
                averaged=self.ema_decay is not None,
                quantized=self.state_dtype is not None,
                copy_dtype=self.copy_dtype,
            )
        )

    def _bind(self) -> None:
        """Tell the compiled side which arrays there are."""
        native = _core.FusedOptimizer()
        bound = []
        for group, slots in zip(self.param_groups, self._slots, strict=True):
            rule, scale = self.rule(group), group["lr_scale"]
            slots.bind(native, rule, scale)
            bound.append((rule, scale))
        self._native, self._bound = native, bound
        self._seen = []

    def _refresh(self) -> None:
        """Bind again where a parameter's memory, a rule's variant or a scale has changed, and take
        over the hyperparameters; raise before that where one was set out of its range."""
        self._check_stages()
        self._check_owners()
        moved = [slots for slots in self._slots if slots.moved()]
        options = list(chain.from_iterable(map(dict.values, self.param_groups)))
        if not moved and len(options) == len(self._seen) and all(map(is_, options, self._seen)):
            return
        for group in self.param_groups:
            if missing := self.defaults.keys() - group.keys():
                raise ValueError(f"{self._name}: a group in param_groups lacks {min(missing)!r}")
            group["lr_scale"] = as_scale(self._name, group["lr_scale"], len(group["params"]))
            self.check(group)
        self._rebind(moved)
        self._fill_block()
        self._seen = options if all(map(is_fixed, self.param_groups)) else []

    def _check_owners(self) -> None:
        """Raise where `param_groups` names other parameters than those that are stepped."""
        groups, slots = self.param_groups, self._slots
        if len(groups) != len(slots) or not all(
            own.holds(group["params"]) for own, group in zip(slots, groups, strict=True)
        ):
            raise ValueError(
                f"{self._name}: param_groups has other parameters than the optimizer was given; "
                "use add_param_group, or make a new optimizer"
            )

    def _rebind(self, moved: list[Slots]) -> None:
        wanted = [(self.rule(group), group["lr_scale"]) for group in self.param_groups]
        if moved or wanted != self._bound:
            self._seen, self._bound = [], []  # until all have been followed
            for slots in moved:
                slots.follow()
            self._bind()

    # --- the step ------------------------------------------------------------------------------

    def step(self, grads: Any = None, grad_scale: float = 1.0, zero_grad: bool = False) -> None:
        """Update the parameters in place.

        Args:
            grads: a gradient for each parameter in order, or `{name: gradient}` where parameters
                have names; default: their `.grad`. A gradient may be a list of arrays, which are
                summed. A parameter whose gradient is None is left alone.
            grad_scale: multiplies every gradient first (1/loss scale, 1/ranks).
            zero_grad: set the gradient arrays to zero after use, of a skipped step too.

        Raises, and changes nothing:
            ValueError, TypeError: an option that was changed out of its range; gradients that do
                not fit the parameters.
            FloatingPointError: Inf or NaN in a gradient where `nonfinite` is "raise".
        """
        check_range(self._name, "grad_scale", grad_scale)
        self._refresh()
        sources = self._gradients(grads)
        for group, slots in zip(self.param_groups, self._slots, strict=True):
            if slots.fresh:
                self._initialise(group, slots)
                slots.fresh = False
        if (recorder := active()) is not None:
            recorder.optimizer(self)
        norm = self._native.step(
            self._block,
            sources,
            grad_scale=grad_scale,
            max_norm=self.max_norm,
            clip_value=self.clip_value,
            ema_decay=self.ema_decay,
            zero_grad=zero_grad,
            nonfinite=self.nonfinite,
        )
        self._conclude(norm)

    def _conclude(self, norm: float | None) -> None:
        """Take over what a compiled step found."""
        self.last_grad_norm = norm
        found = self._native.nonfinite_tensor
        if found is not None:
            self.skipped_steps += 1
            if self.nonfinite == "raise":
                raise FloatingPointError(
                    f"{self._name}: Inf or NaN in the gradient of {self._describe(found)}; "
                    "nothing was changed"
                )

    def _initialise(self, group: Group, slots: Slots) -> None:
        scale = group["lr_scale"]

        def value(name: str, i: int) -> float:
            return self.initial_state(name, group, scale[i] if isinstance(scale, tuple) else scale)

        slots.initialise(value)

    # --- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's layout: `{"state": {index: {name: value}}, "param_groups": [...]}`.

        Arrays are the live ones (as in PyTorch): copy them to keep a moment. A parameter that was
        never stepped has no entry.
        """
        return state.to_dict(self.param_groups, self._slots)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, ours or PyTorch's of the same optimizer.

        Raises ValueError, and changes nothing, where groups, names or shapes do not match.
        """
        groups = state.check_groups(self._name, self.param_groups, state_dict)
        for group in groups:
            group["lr_scale"] = as_scale(self._name, group["lr_scale"], len(group["params"]))
            self.check(group)
        rules = [self.rule(group) for group in groups]
        entries = state.check_entries(rules, self._slots, state_dict)
        for group, new in zip(self.param_groups, groups, strict=True):
            group.update(new)
        self._bind()
        for group, slots, rows in zip(self.param_groups, self._slots, entries, strict=True):
            state.restore(slots, rows, self.kernel_options(group))

    # --- copies --------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """For `copy.deepcopy` and `pickle`: parameters come along, as in PyTorch; copied together
        with its model, the copy steps the model's copy."""
        held = {key: value for key, value in self.__dict__.items() if key not in _DERIVED}
        return held | {"state": self.state_dict()}

    def __setstate__(self, held: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(held)
        del self.__dict__["state"]
        self._slots = []
        for group in self.param_groups:
            self._hold(group["params"])
        self.load_state_dict(held["state"])
