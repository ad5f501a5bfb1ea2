"""Where parameters are evaluated: at their moving average, or where a rule means them to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .memory import Array
from .options import Group
from .slots import Slots


class Evaluation:
    """The part of an optimizer that sets parameters to other values for a while."""

    ema_decay: float | None
    copy_dtype: str | None
    param_groups: list[Group]
    _name: str
    _slots: list[Slots]

    def _refresh(self) -> None:
        raise NotImplementedError

    def _initialise(self, group: Group, slots: Slots) -> None:
        raise NotImplementedError

    @property
    def ema(self) -> list[Array]:
        """The averaged weights, one array per parameter (live, not copies)."""
        if self.ema_decay is None:
            raise RuntimeError(f"{self._name}: no averages are kept; construct with ema_decay")
        for group, slots in zip(self.param_groups, self._slots, strict=True):
            if slots.fresh:
                self._initialise(group, slots)
        return [average for slots in self._slots for average in slots.averages or ()]

    @property
    def copies(self) -> list[Array]:
        """The parameters as the last step left them, rounded to `copy_dtype` (live)."""
        if self.copy_dtype is None:
            raise RuntimeError(f"{self._name}: no copies are written; construct with copy_dtype")
        return [copy for slots in self._slots for copy in slots.copies or ()]

    @contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Inside the context the parameters hold their averages; after it, their own values."""
        with self._holding(self.ema):
            yield

    @contextmanager
    def _holding(self, values: Sequence[Array]) -> Iterator[None]:
        """Parameters take `values` inside the context and are restored bit for bit."""
        self._refresh()
        own = [view.copy() for slots in self._slots for view in slots.views]
        self._write(values)
        try:
            yield
        finally:
            self._write(own)

    def _write(self, values: Sequence[Array]) -> None:
        rest = iter(values)
        for slots in self._slots:
            slots.write([next(rest) for _ in slots.owners])

    def finalize(self) -> None:
        """Call after training: parameters come to where they are meant to be evaluated.

        Only `SGD(nesterov="interim")` moves them during training.
        """
