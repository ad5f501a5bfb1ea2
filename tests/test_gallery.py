"""The gallery's figures, with few steps."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import thalweg as tw
from thalweg.cli import main
from thalweg.gallery import batchnorm_mnist as figure


@pytest.fixture(scope="module")
def made(data_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("gallery")
    mnist = str(data_directory / "mnist")
    threads = tw.get_num_threads()
    arguments = ["--data", mnist, "--steps", "1200", "--output", str(output)]
    assert main(["gallery", "batchnorm-mnist", *arguments]) == 0
    assert tw.get_num_threads() == threads
    return output


def test_batchnorm_mnist_learns_faster_with_batch_norm(made: Path) -> None:
    with (made / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = {name: [r for r in rows if r["run"] == name] for name in ("with BatchNorm", "without")}
    for points in runs.values():
        assert [int(point["step"]) for point in points] == [0, 500, 1000, 1200]
        for point in points:
            low, middle, high = (float(point[f"input_p{p}"]) for p in (15, 50, 85))
            assert low < middle < high
    normalised, plain = (float(points[-1]["test_accuracy"]) for points in runs.values())
    assert normalised > max(plain + 0.05, 0.91)


def test_the_picture_is_a_picture(made: Path) -> None:
    assert (made / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_captured_runs_are_those_of_define_by_run(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = tw.data.mnist(data_directory / "mnist", validation=0, standardise=False)

    def points() -> list[figure.Point]:
        return figure.run(splits.train, splits.test, batch_norm=True, steps=40, seed=1)

    captured = points()
    monkeypatch.setattr(figure, "capture", lambda step: step)
    assert captured == points()


@pytest.fixture(scope="module")
def inception(data_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("inception")
    cifar10 = str(data_directory / "cifar-10-batches-bin")
    arguments = ["--data", cifar10, "--steps", "80", "--output", str(output)]
    assert main(["gallery", "batchnorm-inception", *arguments]) == 0
    return output


def test_batchnorm_inception_learns_faster_with_batch_norm(inception: Path) -> None:
    with (inception / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = {row["run"]: float(row["test_accuracy"]) for row in rows}
    assert [row["step"] for row in rows] == ["0", "80"] * 4
    assert last["BatchNorm x1"] > max(last["without"], 0.25)
    with (inception / "steps.csv").open(newline="") as file:
        steps = {row["run"]: row for row in csv.DictReader(file)}
    assert list(steps) == list(last)
    assert int(steps["without"]["steps_to"]) <= 80
    assert (inception / "figure.png").read_bytes().startswith(b"\x89PNG")
