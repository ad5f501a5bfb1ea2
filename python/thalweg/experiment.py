"""One training run as the command line starts it: configuration, model, run directory.

`runs/<name>/` holds config.json (settings and how inputs were scaled), metrics.csv, curves.png,
model.safetensors (the model alone, loadable by PyTorch) and checkpoints/ (everything a resumed run
needs).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from . import data, nn, optim
from .callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, Progress
from .data import ArrayDataset, DataError, Splits, Standardise
from .distributed import Communicator
from .files import atomic_write, remove_leftovers
from .plots import learning_curves
from .random import manual_seed
from .serialization import save
from .trainer import Trainer

DATASETS = ("digits", "mnist", "cifar10")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    name.lower(): cls
    for name, cls in vars(optim).items()
    if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer
}
# One standard deviation for all pixels of a picture, one per column of a table.
SCALING_AXIS: dict[str, int | None] = {"digits": None, "mnist": None, "cifar10": None}


@dataclass
class Config:
    """Settings of a run; what the command line does not give has these values."""

    dataset: str = "digits"
    data: str | None = None
    epochs: int = 40
    batch_size: int = 64
    lr: float = 3e-3
    optimizer: str = "adam"
    hidden: tuple[int, ...] = (256, 128)
    batchnorm: bool = True
    dropout: float = 0.3
    activation: str = "relu"
    patience: int = 15
    seed: int = 0


def read_config(run: Path) -> Config:
    """The settings of an earlier run.

    Errors: DataError for a file that is not a run's config.json, FileNotFoundError.
    """
    path = run / "config.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        settings = {field.name: stored[field.name] for field in fields(Config)}
        config = Config(**{**settings, "hidden": tuple(settings["hidden"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected the config.json of a run, found: {error!r}") from error
    for name, value in asdict(config).items():
        if not _is_setting(name, value):
            raise DataError(f"{path}: expected the config.json of a run, found {name}={value!r}")
    return config


def _is_setting(name: str, value: object) -> bool:
    """Whether `value` has the kind of the setting's default, and is a name where it has to be."""
    names = {"activation": list(ACTIVATIONS), "optimizer": list(OPTIMIZERS)}
    if name in names:
        return value in names[name]
    if isinstance(value, tuple):
        return name == "hidden" and all(type(width) is int and width > 0 for width in value)
    kinds = {"lr": (int, float), "dropout": (int, float), "data": (str, type(None))}
    return type(value) in kinds.get(name, (type(getattr(Config(), name)),))


def load_data(config: Config) -> Splits:
    """The data set that the settings name, not yet standardised."""
    if config.dataset == "digits":
        return data.digits(seed=config.seed, standardise=False)
    if config.dataset == "mnist":
        return data.mnist(
            data_folder(config.dataset, "mnist", config.data), seed=config.seed, standardise=False
        )
    if config.dataset == "cifar10":
        folder = data_folder(config.dataset, "cifar-10-batches-bin", config.data)
        return data.cifar10(folder, seed=config.seed, standardise=False)
    return data.npz(config.dataset, seed=config.seed, standardise=False)


def build_model(config: Config, features: int, outputs: int) -> nn.Sequential:
    """A fully connected net: Linear, BatchNorm1d, activation and dropout per hidden layer."""
    layers: list[nn.Module] = []
    width = features
    for hidden in config.hidden:
        layers.append(nn.Linear(width, hidden, bias=not config.batchnorm))
        if config.batchnorm:
            layers.append(nn.BatchNorm1d(hidden))
        layers.append(ACTIVATIONS[config.activation]())
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        width = hidden
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers)


def run_training(config: Config, output: Path, comm: Communicator, *, resume: bool) -> None:
    """Train as `config` says and leave everything in `output`; only rank 0 prints and writes."""
    splits = load_data(config)
    scale = Standardise(SCALING_AXIS.get(config.dataset, 0)).fit(splits.train.x)
    train, validation, test = (
        ArrayDataset(scale(part.x), part.y, classes=part.classes)
        for part in splits
        if part is not None  # every loader used here sets validation samples aside
    )
    outputs = train.classes or math.prod(train.y.shape[1:])
    manual_seed(config.seed)
    model = build_model(config, train.x.shape[1], outputs)
    optimizer = OPTIMIZERS[config.optimizer](model.parameters(), lr=config.lr)
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss() if train.classes else nn.MSELoss(),
        optimizer,
        callbacks=_callbacks(config, output),
        seed=config.seed,
        comm=comm,
    )
    root = comm.rank == 0
    if resume:
        trainer.restore(output / "checkpoints")
    if root:
        output.mkdir(parents=True, exist_ok=True)
        remove_leftovers(output)
        _write_config(config, scale, output)
        print(_headline(config, splits, model, comm), flush=True)
    trainer.fit(
        train,
        validation,
        epochs=max(config.epochs - trainer.epoch, 0),
        batch_size=config.batch_size,
        # The rest of an epoch could be one sample, too few for BatchNorm and for N ranks.
        drop_last=len(train) > config.batch_size,
    )
    result = trainer.evaluate(test)
    if root:
        save(output / "model.safetensors", model)
        if len(trainer.history):
            _draw_curves(trainer, output)
        print("  ".join(f"test {k} {_shown(k, v)}" for k, v in result.items()))
        print(f"wrote {output}", flush=True)


def new_run(dataset: str) -> Path:
    """A directory name under runs/ for a run that starts now."""
    return Path("runs") / f"{Path(dataset).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def data_folder(dataset: str, name: str, given: str | None) -> Path:
    """Where a data set's files are: the folder given, or `name` in THALWEG_DATA."""
    if given is not None:
        return Path(given)
    root = os.environ.get("THALWEG_DATA")
    if root is None:
        raise FileNotFoundError(
            f"{dataset}: say where its files are, with --data FOLDER or the environment "
            f"variable THALWEG_DATA (a folder that contains {name})"
        )
    return Path(root) / name


def _callbacks(config: Config, output: Path) -> list[Callback]:
    callbacks: list[Callback] = [
        Progress(),
        CSVLogger(output / "metrics.csv"),
        Checkpoint(output / "checkpoints"),
    ]
    if config.patience:
        callbacks.append(EarlyStopping(config.patience))
    return callbacks


def _write_config(config: Config, scale: Standardise, output: Path) -> None:
    numbers = {"mean": scale.mean.ravel().tolist(), "std": scale.std.ravel().tolist()}
    text = json.dumps({**asdict(config), "input_scaling": numbers}, indent=2)
    with atomic_write(output / "config.json") as file:
        file.write(text.encode())


def _headline(config: Config, splits: Splits, model: nn.Module, comm: Communicator) -> str:
    train, validation, test = (0 if part is None else len(part) for part in splits)
    parameters = sum(p.numel() for p in model.parameters())
    return (
        f"{config.dataset}: {train} training, {validation} validation, {test} test samples; "
        f"{parameters} parameters, {config.optimizer}, {comm.size} rank{'s' * (comm.size > 1)}"
    )


def _draw_curves(trainer: Trainer, output: Path) -> None:
    try:
        learning_curves(trainer.history, output / "curves.png")
    except ModuleNotFoundError as error:
        print(f"no curves.png: {error}")


def _shown(name: str, value: float) -> str:
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4f}"
