"""Learning curves as a picture; needs matplotlib, the extra thalweg[plot]."""

from __future__ import annotations

import os
from pathlib import Path

from .files import atomic_write
from .history import History


def learning_curves(history: History, path: str | os.PathLike[str]) -> None:
    """Draw training and validation loss, and validation accuracy, over epochs into a PNG file.

    Args:
        history: at least one epoch.
        path: the file; written atomically.

    Errors: ValueError for an empty history; ModuleNotFoundError that names the extra.
    """
    if not len(history):
        raise ValueError("learning_curves: expected at least one epoch, the history is empty")
    try:
        # Not pyplot: no global state, and no display is looked for.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "learning curves need matplotlib: pip install 'thalweg[plot]'", name=error.name
        ) from error
    with_accuracy = "val_accuracy" in history.columns
    figure = Figure(figsize=(10 if with_accuracy else 5.5, 4), layout="constrained")
    FigureCanvasAgg(figure)
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
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    with atomic_write(Path(path)) as file:
        figure.savefig(file, format="png", dpi=120)
