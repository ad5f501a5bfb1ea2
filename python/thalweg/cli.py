"""The `thalweg` command: train, doctor, plot, inspect, gallery; also under `mpirun -n N`."""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from . import _core
from . import doctor as diagnosis
from . import option_values as option
from .data import DataError
from .distributed import Communicator, world
from .experiment import (
    ACTIVATIONS,
    DATASETS,
    OPTIMIZERS,
    Config,
    data_folder,
    new_run,
    read_config,
    run_training,
)
from .history import History
from .plots import learning_curves
from .serialization import CheckpointError, load

RESUMABLE = ("epochs", "patience")


class UsageError(Exception):
    """Options that do not go together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit status."""
    comm = world()
    parser = _parser(comm)
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else ""
    if command and not command.startswith("-") and command not in COMMANDS:
        parser.error(f"unknown command {command!r}{option.suggestion(command, COMMANDS)}")
    options = parser.parse_args(arguments)
    given = {
        name: value
        for name, value in vars(options).items()
        if value is not None and name not in ("command", "parser")
    }
    try:
        options.command(comm, **given)
    except UsageError as error:
        options.parser.error(str(error))
    except (DataError, CheckpointError, OSError, ModuleNotFoundError) as error:
        # The user's to mend; anything else is ours and keeps its traceback.
        where = f" on rank {comm.rank}" if comm.size > 1 else ""
        print(f"thalweg: error{where}: {error}", file=sys.stderr)
        return 2
    return 0


# --- commands -------------------------------------------------------------------------------------


def train(
    comm: Communicator,
    *,
    threads: int | None = None,
    resume: Path | None = None,
    output: Path | None = None,
    **settings: Any,
) -> None:
    """Train a fully connected net, or continue an earlier run."""
    if threads is not None:
        _core.set_num_threads(threads)
    if resume is not None:
        fixed = [name for name in settings if name not in RESUMABLE] + ["output"] * bool(output)
        if fixed:
            names = ", ".join(name.replace("_", "-") for name in fixed)
            raise UsageError(f"--resume keeps the run's own settings; leave out {names}")
        run_training(replace(read_config(resume), **settings), resume, comm, resume=True)
        return
    config = Config(**settings)
    run: Path = comm.broadcast_object(output or new_run(config.dataset))
    taken = comm.broadcast_object((run / "config.json").exists())
    if taken:
        raise UsageError(f"{run} holds a run already; use another --output, or --resume {run}")
    run_training(config, run, comm, resume=False)


def doctor(
    comm: Communicator,
    *,
    limits: bool = False,
    matmul: tuple[int, int, int] | None = None,
    dtype: str = "float32",
    precision: str | None = None,
) -> None:
    """Say what this installation has, and what it lacks and why; or how it multiplies a shape."""
    if comm.rank != 0:
        return
    if matmul:
        findings = diagnosis.products(matmul, dtype, precision)
    else:
        findings = diagnosis.report() + (diagnosis.limits() if limits else [])
    for name, finding in findings:
        print(f"{name:24} {finding}")


def plot(comm: Communicator, *, run: Path) -> None:
    """Draw a run's learning curves again from its metrics."""
    if comm.rank == 0:
        learning_curves(_read_metrics(run / "metrics.csv"), run / "curves.png")
        print(f"wrote {run / 'curves.png'}")


def _read_metrics(path: Path) -> History:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: float(cell) for k, cell in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: expected the metrics.csv of a run, found: {error}") from error
    if not rows or not {"epoch", "train_loss"} <= rows[0].keys():
        raise DataError(
            f"{path}: expected the metrics.csv of a run, with epoch and train_loss, "
            f"found {len(rows)} rows of {', '.join(rows[0]) if rows else 'nothing'}"
        )
    return History(rows)


def inspect(comm: Communicator, *, file: Path) -> None:
    """Verify a model or checkpoint and list what is in it."""
    if comm.rank == 0:
        for name, value in _leaves("", load(file)):
            shown = f"{value.dtype} {value.shape}" if hasattr(value, "dtype") else repr(value)
            print(f"{name:40} {shown}")


def _leaves(place: str, tree: Any) -> list[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, item in tree.items() for leaf in _leaves(f"{place}/{key}", item)]
    return [(place.removeprefix("/"), tree)]


def gallery(
    comm: Communicator, *, name: str, data: str | None = None, output: Path | None = None, **o: Any
) -> None:
    """Make a published figure again."""
    from .gallery import GALLERY

    if comm.rank == 0:
        start = time.perf_counter()
        folder = output or Path("gallery") / name
        figure = GALLERY[name]
        runs = figure.make(data_folder(name, figure.data, data), folder, **o)
        seconds = time.perf_counter() - start
        for title, points in runs.items():
            print(f"{title:16} test accuracy {points[-1].accuracy:.2%} at step {points[-1].step}")
        print(f"wrote {folder / 'figure.png'} and {folder / 'points.csv'} in {seconds:.1f} s")


def info(comm: Communicator, *, network: str) -> None:
    """List a network's parameters and operations per layer, beside published ones."""
    from .analysis.counts import GOOGLENET_PAPER, counts, table
    from .networks import NETWORKS

    if comm.rank == 0:
        build, shape = NETWORKS[network]
        published = GOOGLENET_PAPER if network == "googlenet" else None
        print(table(counts(build(), shape), published))
        if published is not None:
            print("paper: Szegedy et al. 2015, table 1 (K is 1024); * where it is over 3 % away")


# --- options --------------------------------------------------------------------------------------


def _parser(comm: Communicator) -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        """Under mpirun all ranks read the same command line; one speaks, then all leave."""

        def _print_message(self, message: str, file: Any = None) -> None:
            if comm.rank == 0:
                super()._print_message(message, file)

        def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
            self._print_message(message or "", sys.stderr)
            comm.barrier()
            sys.exit(status)

    class Command(Parser):
        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            # argparse would take an unknown option's value for a positional, and blame that.
            known = re.findall(r"--[\w-]+", self.format_help())
            for name in (text.split("=")[0] for text in args if text.startswith("--")):
                if name not in known:
                    self.error(f"unknown option {name!r}{option.suggestion(name, known)}")
            return super().parse_known_args(args, namespace)

    parser = Parser(prog="thalweg", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=diagnosis.installed("thalweg"))
    parser.set_defaults(parser=parser)
    children = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Command)
    for name, (command, add_options) in COMMANDS.items():
        child = children.add_parser(
            name, help=command.__doc__, description=command.__doc__, allow_abbrev=False
        )
        child.set_defaults(command=command, parser=child)
        add_options(child)
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    default = Config()
    add = parser.add_argument
    add(
        "dataset",
        nargs="?",
        type=option.dataset,
        help=f"{', '.join(DATASETS)} or FILE.npz (digits)",
    )
    add("--data", metavar="FOLDER", help="where the data set's files are (in THALWEG_DATA)")
    add("--epochs", type=option.integer(1), help=f"at most, in all ({default.epochs})")
    add(
        "--batch-size", type=option.integer(1), help=f"of all ranks together ({default.batch_size})"
    )
    add("--lr", type=option.real(0, math.inf), help=f"learning rate ({default.lr})")
    add("--optimizer", type=option.one_of(OPTIMIZERS), help=f"{', '.join(OPTIMIZERS)} (adam)")
    add(
        "--hidden",
        type=option.widths,
        metavar="N,N,…",
        help="widths of the hidden layers (256,128)",
    )
    add("--batchnorm", action=argparse.BooleanOptionalAction, help="BatchNorm in each (on)")
    add("--dropout", type=option.real(0, 1), help="probability that a hidden unit is dropped (0.3)")
    add("--activation", type=option.one_of(ACTIVATIONS), help=f"{', '.join(ACTIVATIONS)} (relu)")
    add("--patience", type=option.integer(0), help="epochs without improvement; 0 never stops (15)")
    add("--seed", type=option.integer(0), help="of split, weights, shuffling and dropout (0)")
    add("--threads", type=option.integer(1), help="of each rank (the cores that it may use)")
    add("--output", type=Path, metavar="RUN", help="directory of the run (runs/<name>)")
    add("--resume", type=Path, metavar="RUN", help="continue that run from its newest checkpoint")


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limits", action="store_true", help="measure this machine, too")
    parser.add_argument(
        "--matmul",
        type=option.product,
        metavar="MxKxN",
        help="say which path this product takes, and why",
    )
    parser.add_argument("--dtype", choices=["float32", "float64", "bfloat16"], default="float32")
    parser.add_argument(
        "--precision", choices=["strict", "highest", "high", "medium"], help="of --matmul; else all"
    )


def _plot_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of the run")


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="CHECKPOINT", help="a .safetensors file of ours")


def _gallery_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", type=option.figure, metavar="NAME", help="batchnorm-mnist or batchnorm-inception")
    add("--data", metavar="FOLDER", help="where the data set's files are (in THALWEG_DATA)")
    add("--steps", type=option.integer(1), help="of each run (50000 on MNIST, 1000 on CIFAR-10)")
    add("--seed", type=option.integer(0), help="of weights and order (0)")
    add("--output", type=Path, metavar="FOLDER", help="where to write (gallery/NAME)")


def _info_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network", type=option.network, metavar="NETWORK", help="googlenet, lenet, …"
    )


COMMANDS: dict[str, tuple[Callable[..., None], Callable[[argparse.ArgumentParser], None]]] = {
    "train": (train, _train_options),
    "doctor": (doctor, _doctor_options),
    "plot": (plot, _plot_options),
    "inspect": (inspect, _inspect_options),
    "gallery": (gallery, _gallery_options),
    "info": (info, _info_options),
}
