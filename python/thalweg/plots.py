"""Pictures; needs matplotlib, the extra thalweg[plot]."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .files import atomic_write
from .history import History


def new_figure(inches: tuple[float, float]) -> Any:
    """A matplotlib figure. Errors: ModuleNotFoundError that names the extra."""
    try:
        # Not pyplot: no global state, and no display is looked for.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plots need matplotlib: pip install 'thalweg[plot]'", name=error.name
        ) from error
    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a PNG file, atomically."""
    with atomic_write(Path(path)) as file:
        figure.savefig(file, format="png", dpi=120)


def learning_curves(history: History, path: str | os.PathLike[str]) -> None:
    """Draw training and validation loss, and validation accuracy, over epochs into a PNG file.

    Args:
        history: at least one epoch.
        path: the file; written atomically.

    Errors: ValueError for an empty history; ModuleNotFoundError that names the extra.
    """
    if not len(history):
        raise ValueError("learning_curves: expected at least one epoch, the history is empty")
    with_accuracy = "val_accuracy" in history.columns
    figure = new_figure((10 if with_accuracy else 5.5, 4))
    axes = figure.subplots(1, 1 + with_accuracy, squeeze=False)[0]
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        if name in history.columns:
            axes[0].plot(history["epoch"], history[name], label=label)
    axes[0].set_ylabel("loss")
    axes[0].legend()
    if with_accuracy:
        axes[1].plot(history["epoch"], history["val_accuracy"], color="C1", label="validation")
        axes[1].set_ylabel("accuracy")
        axes[1].legend()
    for panel in axes:
        panel.set_xlabel("epoch")
        panel.locator_params(axis="x", integer=True)
        panel.grid(alpha=0.3)
    save_figure(figure, path)
