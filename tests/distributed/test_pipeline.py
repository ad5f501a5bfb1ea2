"""A pipeline over several ranks trains what one rank trains."""

from __future__ import annotations

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn
from thalweg.distributed import LocalComm, Pipeline
from thalweg.distributed.pipeline import SCHEDULES

CASES = [
    "three stages",
    "batch norm, more stages than ranks",
    "nothing to learn in the first stage",
    "clipped by the norm over all ranks",
    "whole batches",
]


@pytest.fixture(scope="module")
def results(launch, tmp_path_factory):
    """ranks -> arrays of all cases; each job runs once."""
    directory = tmp_path_factory.mktemp("pipeline")
    done = {}

    def get(ranks):
        if ranks not in done:
            file = directory / f"{ranks}.npz"
            launch(ranks, "pipeline.py", file)
            done[ranks] = dict(np.load(file))
        return done[ranks]

    return get


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_follow_the_trajectory_of_one(results, ranks, case):
    """Bit for bit: micro-batches are cut and summed alike however the stages are spread."""
    one, many = results(0), results(ranks)
    clipped = case.startswith("clipped")  # its norm is summed by rank, in another order
    assert {key for key in one if key.startswith(case)} == {
        key for key in many if key.startswith(case)
    }
    for key in one:
        if key.startswith(case):
            tolerance = 1e-5 if clipped else 0
            np.testing.assert_allclose(
                many[key], one[key], rtol=tolerance, atol=tolerance, err_msg=key
            )


@pytest.mark.parametrize("micro_batches", [1, 4, 7])
def test_micro_batches_give_the_gradient_of_the_batch(micro_batches):
    tw.random.manual_seed(0)
    stages = [nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)]
    whole = nn.Sequential(*stages)
    pipe = Pipeline(stages, comm=LocalComm(), micro_batches=micro_batches)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, 6)).astype(np.float32), rng.integers(0, 3, 10)
    criterion = nn.CrossEntropyLoss()

    loss = criterion(whole(tw.tensor(x)), y)
    loss.backward()
    expected = [p.grad.data.copy() for p in whole.parameters()]
    whole.zero_grad()
    assert pipe.backward(x, y, criterion) == pytest.approx(loss.item(), rel=1e-6)
    for parameter, gradient in zip(pipe.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.grad.data, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("ranks", "micro_batches"), [(1, 1), (2, 4), (3, 5)])
def test_schedules_do_each_part_once_and_forward_first(name, ranks, micro_batches):
    for rank in range(ranks):
        actions = list(SCHEDULES[name](rank, ranks, micro_batches))
        assert len(actions) == len(set(actions)) == 2 * micro_batches
        for i in range(micro_batches):
            assert actions.index(("forward", i)) < actions.index(("backward", i))


class _ThreeRanks(LocalComm):
    size = 3


BAD = [
    (lambda s: Pipeline(s, comm=_ThreeRanks()), "expected a stage for each of 3 ranks, got 2"),
    (lambda s: Pipeline(s, "1g1b", LocalComm()), "schedule must be one of gpipe, got '1g1b'"),
    (lambda s: Pipeline(s, comm=LocalComm(), micro_batches=0), "micro_batches must be at least 1"),
    (
        lambda s: Pipeline(s, comm=LocalComm()).backward(np.zeros((0, 2)), [], nn.MSELoss()),
        "the batch is empty",
    ),
    (
        lambda s: Pipeline(s, comm=LocalComm()).backward(
            np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32), nn.MSELoss()
        ),
        "3 inputs but 2 targets",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[row[1] for row in BAD])
def test_refuses_what_it_cannot_run(call, message):
    with pytest.raises(ValueError) as caught:
        call([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert message in str(caught.value)
