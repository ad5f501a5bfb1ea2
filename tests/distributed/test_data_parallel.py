"""Data parallel training is the training of one rank on the same mini-batches."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn
from thalweg.distributed import DataParallel, LocalComm, share

TOLERANCE = 1e-5  # relative, of every loss of a trajectory


@pytest.fixture(scope="module")
def results(launch, tmp_path_factory):
    """ranks -> arrays of all cases; each job runs once."""
    directory = tmp_path_factory.mktemp("data_parallel")
    done = {}

    def get(ranks):
        if ranks not in done:
            file = directory / f"{ranks}.npz"
            launch(ranks, "data_parallel.py", file)
            done[ranks] = dict(np.load(file))
        return done[ranks]

    return get


CASES = [
    "batch norm and dropout",
    "one sample in the last batch",
    "clipped by the global norm",
    "parameters that some ranks do not use",
    "accumulated",
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_follow_the_trajectory_of_one(results, ranks, case):
    one, many = results(0), results(ranks)
    np.testing.assert_allclose(
        many[f"{case}/losses"], one[f"{case}/losses"], rtol=TOLERANCE, atol=0
    )
    for key in one:
        if key.startswith(case):
            np.testing.assert_allclose(many[key], one[key], rtol=1e-4, atol=3e-5, err_msg=key)


def test_trajectories_have_somewhere_to_go(results):
    """A comparison of constants would show nothing."""
    for case in CASES:
        losses = results(0)[f"{case}/losses"]
        assert np.ptp(losses) > 0.05, case


@pytest.mark.parametrize("ranks", [2, 3])
def test_trainer_follows_the_trajectory_of_one(launch, tmp_path, ranks):
    results = []
    for count in (0, ranks):
        launch(count, "trainer.py", tmp_path / f"{count}.npz")
        results.append(dict(np.load(tmp_path / f"{count}.npz")))
    one, many = results
    for key in one:
        tolerance = TOLERANCE if key.endswith("loss") else 1e-4
        np.testing.assert_allclose(many[key], one[key], rtol=tolerance, atol=1e-6, err_msg=key)


def test_command_line_follows_the_trajectory_of_one(launch, tmp_path):
    """mpirun -n 2 thalweg train digits, with the default net: BatchNorm and dropout.

    By SGD: where a pixel is constant over a batch, BatchNorm makes the gradients of its weights
    zero up to rounding, and Adam makes whole steps of that rounding, on any number of ranks.
    """
    pytest.importorskip("sklearn", reason="scikit-learn, which carries the digits, is missing")
    options = ["--epochs", 3, "--optimizer", "sgd", "--lr", 0.1]
    curves = []
    for ranks in (0, 2):
        run = tmp_path / str(ranks)
        launch(ranks, "thalweg", "train", "digits", *options, "--output", run)
        with (run / "metrics.csv").open(newline="") as file:
            curves.append(list(csv.DictReader(file)))
    one, many = curves
    assert len(one) == len(many) == 3
    for ours, theirs in zip(many, one, strict=True):
        for name in ("train_loss", "val_loss", "val_accuracy"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=TOLERANCE), name


@pytest.mark.parametrize("samples", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_contiguous_and_even(samples, size):
    parts = [share(samples, rank, size) for rank in range(size)]
    assert [i for part in parts for i in range(samples)[part]] == list(range(samples))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


def _alone():
    model = nn.Linear(3, 2)
    return DataParallel(model, tw.optim.SGD(model.parameters(), lr=0.1), LocalComm())


def test_alone_the_step_is_the_plain_one():
    tw.random.manual_seed(0)
    model, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(model.state_dict())
    x = tw.randn(5, 3, seed=1)
    dp = DataParallel(model, tw.optim.SGD(model.parameters(), lr=0.1), LocalComm())
    dp.backward((dp(x) ** 2).mean(), 1.0)
    dp.step()
    (plain(x) ** 2).mean().backward()
    tw.optim.SGD(plain.parameters(), lr=0.1).step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_share_outside_the_batch_is_refused(fraction):
    dp = _alone()
    loss = dp(tw.ones(4, 3)).mean()
    message = re.escape(f"DataParallel.backward: share must be in [0, 1], got {fraction}")
    with pytest.raises(ValueError, match=message):
        dp.backward(loss, fraction)
    assert all(p.grad is None for p in dp.model.parameters())


def test_bucket_bytes_must_be_positive():
    with pytest.raises(ValueError, match="DataParallel: bucket_bytes must be positive, got 0"):
        DataParallel(nn.Linear(3, 2), None, LocalComm(), bucket_bytes=0)


def test_step_needs_an_optimizer():
    with pytest.raises(RuntimeError, match="constructed without an optimizer"):
        DataParallel(nn.Linear(3, 2), None, LocalComm()).step()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("models", "ValueError: model differs between ranks: 0 has weight float32[2, 3], 1 has"),
        (
            "data",
            "ValueError: fit: rank 0 has 1 epochs of 20 samples in 3 mini-batches, rank 1 has",
        ),
        ("backward twice", "RuntimeError: DataParallel.backward: the gradients of the last"),
    ],
)
def test_misuse_in_a_job_ends_it_with_a_reason(launch, how, message):
    job = launch(2, "misuse.py", how, check=False)
    assert job.returncode != 0
    assert message in job.stderr


@pytest.mark.parametrize("ranks", [0, 2])
def test_infinity_on_one_rank_skips_the_step_on_all(launch, ranks):
    launch(ranks, "nonfinite.py")
