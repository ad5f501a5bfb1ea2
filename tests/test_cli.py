"""The `thalweg` command: runs and their files, refusals, and the same under mpirun."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thalweg import cli
from thalweg.distributed import LocalComm
from thalweg.serialization import load


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small learnable data set of one's own."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 120)
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x=generator.normal(size=(120, 4)) + 3 * np.eye(3, 4)[y], y=y)
    return path


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message with which the command line is refused."""
    try:
        status = cli.main(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    assert status == 2
    return capsys.readouterr().err.splitlines()[-1]


# --- train ----------------------------------------------------------------------------------------


def test_train_leaves_a_whole_run(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    run = Path("here")
    arguments = ["train", str(table), "--epochs", "4", "--output", str(run), "--hidden", "16,8"]
    assert cli.main([*arguments, "--dropout", "0.1", "--activation", "tanh", "--lr", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "84 training, 12 validation, 24 test samples" in out
    assert "4/4" in out and "test accuracy" in out
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [row["epoch"] for row in metrics(run)] == ["1", "2", "3", "4"]
    config = json.loads((run / "config.json").read_text())
    assert config["hidden"] == [16, 8] and config["lr"] == 0.01
    assert len(config["input_scaling"]["mean"]) == 4
    assert load(run / "model.safetensors")["model"]["0.weight"].shape == (16, 4)
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        "checkpoint-000003.safetensors",
        "checkpoint-000004.safetensors",
    ]


def test_a_run_gets_a_name_of_its_own(table: Path) -> None:
    assert cli.main(["train", str(table), "--epochs", "1"]) == 0
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("clouds-")


def test_targets_that_are_no_labels_are_regressed(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    np.savez("plane.npz", x=x, y=x @ np.array([[1.0], [2.0], [3.0]]))
    assert cli.main(["train", "plane.npz", "--epochs", "40", "--lr", "0.01", "--output", "r"]) == 0
    out = capsys.readouterr().out
    assert "accuracy" not in out
    assert float(metrics(Path("r"))[-1]["val_loss"]) < 1


def test_a_resumed_run_ends_as_an_uninterrupted_one(table: Path) -> None:
    options = ["--dropout", "0.2", "--seed", "4", "--hidden", "8"]
    assert cli.main(["train", str(table), "--epochs", "6", "--output", "whole", *options]) == 0
    assert cli.main(["train", str(table), "--epochs", "3", "--output", "part", *options]) == 0
    assert cli.main(["train", "--resume", "part", "--epochs", "6"]) == 0
    whole, part = (load(f"{run}/model.safetensors")["model"] for run in ("whole", "part"))
    assert {name: a.tobytes() for name, a in whole.items()} == {
        name: a.tobytes() for name, a in part.items()
    }
    assert [row["val_loss"] for row in metrics(Path("whole"))] == [
        row["val_loss"] for row in metrics(Path("part"))
    ]


@pytest.mark.torch
def test_the_model_loads_into_torch_and_agrees(table: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    import thalweg as tw

    options = ["--epochs", "2", "--hidden", "8", "--dropout", "0"]
    assert cli.main(["train", str(table), *options, "--output", "r"]) == 0
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 8, bias=False),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    )
    theirs.load_state_dict(load_file("r/model.safetensors"), strict=True)
    ours = tw.nn.Sequential(
        tw.nn.Linear(4, 8, bias=False), tw.nn.BatchNorm1d(8), tw.nn.ReLU(), tw.nn.Linear(8, 3)
    )
    tw.load("r/model.safetensors", ours)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours.eval()(tw.Tensor(x)).data, expected, rtol=1e-5, atol=1e-6)


def test_digits_by_default_reach_97_percent(capsys: pytest.CaptureFixture[str], isa: str) -> None:
    pytest.importorskip("sklearn")
    start = time.monotonic()
    assert cli.main(["train"]) == 0
    assert time.monotonic() - start < 60
    accuracy = capsys.readouterr().out.split("test accuracy ")[1].split("%")[0]
    assert float(accuracy) >= 97


# --- refusals -------------------------------------------------------------------------------------

UNKNOWN: dict[str, tuple[list[str], str]] = {
    "command": (["trian"], "unknown command 'trian'; did you mean 'train'?"),
    "data set": (["train", "digts"], "unknown 'digts'; did you mean 'digits'?"),
    "file type": (["train", "data.csv"], "unknown 'data.csv'; expected one of digits, mnist"),
    "optimizer": (["train", "--optimizer", "adan"], "unknown 'adan'; did you mean 'adam'?"),
    "activation": (["train", "--activation", "rela"], "unknown 'rela'; did you mean 'relu'?"),
    "option": (["train", "--epoch", "3"], "unknown option '--epoch'; did you mean '--epochs'?"),
    "epochs": (["train", "--epochs", "0"], "expected an integer of at least 1, got '0'"),
    "batch size": (["train", "--batch-size", "x"], "expected an integer of at least 1, got 'x'"),
    "lr": (["train", "--lr", "-0.1"], "expected a number in [0, inf), got '-0.1'"),
    "lr is NaN": (["train", "--lr", "nan"], "got 'nan'"),
    "dropout": (["train", "--dropout", "1"], "expected a number in [0, 1), got '1'"),
    "hidden": (["train", "--hidden", "64,0"], "expected an integer of at least 1, got '0'"),
    "threads": (["train", "--threads", "0"], "expected an integer of at least 1, got '0'"),
    "too many": (["train", "digits", "mnist"], "unrecognized arguments: mnist"),
    "nothing": ([], "the following arguments are required: COMMAND"),
}


@pytest.mark.parametrize("arguments, message", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_values_are_refused_with_a_suggestion(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, *arguments)
    assert list(Path.cwd().iterdir()) == []


def test_a_missing_or_damaged_data_file_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THALWEG_DATA", raising=False)
    assert "none.npz" in refusal(capsys, "train", "none.npz")
    assert "THALWEG_DATA" in refusal(capsys, "train", "mnist")
    Path("bad.npz").write_bytes(b"PK\x03\x04 torn")
    assert "bad.npz: expected an .npz archive" in refusal(capsys, "train", "bad.npz")
    assert not Path("runs").exists()


def test_a_run_is_not_overwritten(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(table), "--epochs", "1", "--output", "run"]) == 0
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    assert "run holds a run already" in refusal(capsys, "train", str(table), "--output", "run")
    message = refusal(capsys, "train", "--resume", "run", "--lr", "1", "--output", "other")
    assert "--resume keeps the run's own settings; leave out lr, output" in message
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before


def edit(run: Path, old: str, new: str) -> None:
    config = run / "config.json"
    config.write_text(config.read_text().replace(old, new))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (lambda run: shutil.rmtree(run), "config.json"),
    "no config": (lambda run: (run / "config.json").write_text("{"), "config.json: expected"),
    "another config": (lambda run: (run / "config.json").write_text("{}"), "config.json: expected"),
    "a number as text": (lambda run: edit(run, '"epochs": 1', '"epochs": "1"'), "epochs='1'"),
    "an unknown name": (lambda run: edit(run, '"relu"', '"rleu"'), "activation='rleu'"),
    "no widths": (lambda run: edit(run, "256", "true"), "hidden=(True, 128)"),
    "no checkpoints": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "expected a whole checkpoint, found 0 files",
    ),
}


@pytest.mark.parametrize("damage, message", DAMAGES.values(), ids=DAMAGES)
def test_what_cannot_be_resumed_is_said(
    table: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    message: str,
) -> None:
    assert cli.main(["train", str(table), "--epochs", "1", "--output", "run"]) == 0
    damage(Path("run"))
    assert message in refusal(capsys, "train", "--resume", "run")


def test_resume_names_the_bad_checkpoint_and_uses_the_one_before(table: Path) -> None:
    assert cli.main(["train", str(table), "--epochs", "2", "--output", "run"]) == 0
    newest = Path("run/checkpoints/checkpoint-000002.safetensors")
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=newest.name):
        assert cli.main(["train", "--resume", "run", "--epochs", "3"]) == 0
    assert [row["epoch"] for row in metrics(Path("run"))] == ["1", "2", "3"]


# --- the other commands ---------------------------------------------------------------------------


def test_doctor_reports_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--limits"]) == 0
    report = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    for name in ("thalweg", "ISA", "threads", "memory", "MPI", "CUDA", "CuPy", "read_gbytes"):
        assert report[name]
    assert "baseline" in report["ISA"] and "GiB" in report["memory"]


def test_doctor_says_which_path_a_product_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--matmul", "64x100x3072", "--precision", "strict"]) == 0
    line = "64x100x3072 strict       multiply-adds: precision 'strict' allows nothing else"
    assert capsys.readouterr().out.rstrip() == line
    assert cli.main(["doctor", "--matmul", "2x100x3072", "--dtype", "bfloat16"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--matmul", "64x100"])
    assert "expected MxKxN, like 64x100x3072, got '64x100'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n", b"epoch\n1\n", b"epoch,train_loss\n1,x\n", b"epoch,x\n1\n", b"\xff,\n1,2\n"],
)
def test_plot_says_what_is_no_table_of_metrics(
    content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("metrics.csv").write_bytes(content)
    assert "metrics.csv: expected the metrics.csv of a run" in refusal(capsys, "plot", ".")
    assert not Path("curves.png").exists()


def test_plot_and_inspect_read_a_run(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["train", str(table), "--epochs", "1", "--output", "run"]) == 0
    Path("run/curves.png").unlink()
    assert cli.main(["plot", "run"]) == 0 and Path("run/curves.png").exists()
    capsys.readouterr()
    assert cli.main(["inspect", "run/model.safetensors"]) == 0
    assert "model/0.weight" in capsys.readouterr().out
    Path("run/model.safetensors").write_bytes(b"short")
    assert "run/model.safetensors: expected" in refusal(capsys, "inspect", "run/model.safetensors")
    assert "metrics.csv" in refusal(capsys, "plot", "nowhere")


# --- ranks ----------------------------------------------------------------------------------------


class SecondRank(LocalComm):
    rank = 1


def test_only_rank_0_speaks_and_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "world", SecondRank)
    for arguments in (["doctor"], ["plot", "nowhere"], ["inspect", "nowhere"]):
        assert cli.main(arguments) == 0
    with pytest.raises(SystemExit):
        cli.main(["trian"])
    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def mpirun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `thalweg …` on ranks, with real MPI."""
    pytest.importorskip("mpi4py")
    command = shutil.which("mpirun") or shutil.which(
        "mpirun", path=str(Path(sys.executable).parent)
    )
    if command is None:
        pytest.skip("no mpirun (extra: mpi)")

    def run(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        launcher = [command, "-n", str(ranks), "--oversubscribe", "--allow-run-as-root"]
        return subprocess.run(
            [*launcher, sys.executable, "-m", "thalweg", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"THALWEG_NUM_THREADS": "1"},
        )

    return run


Mpirun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.mpi
def test_ranks_follow_the_trajectory_of_one(table: Path, mpirun: Mpirun) -> None:
    options = ["train", str(table), "--epochs", "4", "--dropout", "0.2", "--batch-size", "20"]
    assert cli.main([*options, "--output", "alone"]) == 0
    done = mpirun(3, *options, "--output", "together")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert "3 ranks" in done.stdout
    for one, many in zip(metrics(Path("alone")), metrics(Path("together")), strict=True):
        for column in ("train_loss", "val_loss"):
            assert float(many[column]) == pytest.approx(float(one[column]), rel=1e-5)


@pytest.mark.mpi
def test_a_run_resumes_on_ranks_bit_for_bit(table: Path, mpirun: Mpirun) -> None:
    options = ["train", str(table), "--dropout", "0.2"]
    assert mpirun(2, *options, "--epochs", "4", "--output", "whole").returncode == 0
    assert mpirun(2, *options, "--epochs", "2", "--output", "part").returncode == 0
    assert mpirun(2, "train", "--resume", "part", "--epochs", "4").returncode == 0
    whole, part = (load(f"{run}/model.safetensors")["model"] for run in ("whole", "part"))
    for name in whole:
        assert whole[name].tobytes() == part[name].tobytes(), name


@pytest.mark.mpi
def test_a_refused_command_line_is_said_once(mpirun: Mpirun) -> None:
    done = mpirun(2, "train", "digts")
    assert done.returncode != 0
    assert done.stderr.count("did you mean 'digits'?") == 1


@pytest.mark.mpi
def test_a_failing_rank_ends_the_job(mpirun: Mpirun) -> None:
    start = time.monotonic()
    done = mpirun(2, "train", "none.npz")
    assert done.returncode != 0 and "none.npz" in done.stderr
    assert time.monotonic() - start < 30  # start of two interpreters included
