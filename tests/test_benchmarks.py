"""The benchmark runner: answers before times, all fields, losses counted like wins."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from case import Case, Peers, Trial, Work
from cases import SUITES, load_suite
from measure import Record, Run, compare
from report import Report

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FIELDS = ["suite", "case", "impl", "version", "median_s", "q1_s", "q3_s", "ratio", "limit_fraction"]
LIMITS = {"fma_f32_gflops": 100.0, "triad_gbytes": 10.0}


def run(**overrides):
    peers = Peers.load(["numpy"], threads=1)
    return Run(quick=True, rounds=20, only="", peers=peers, limits=LIMITS, **overrides)


def trial(check=lambda: None, ours=lambda: sum(range(3000)), theirs=lambda: None):
    return Trial(ours, {"numpy": theirs}, check, Work(flops=1e3))


def test_records_have_the_agreed_fields():
    assert [field.name for field in fields(Record)] == FIELDS
    ours, theirs = compare("some", [Case("sum", lambda peers: trial())], run())
    assert (ours.impl, theirs.impl) == ("thalweg", "numpy")
    assert ours.ratio == 1
    assert theirs.ratio == theirs.median_s / ours.median_s < 1
    assert ours.q1_s <= ours.median_s <= ours.q3_s
    assert ours.limit_fraction == pytest.approx(1e3 / 100e9 / ours.median_s)


def test_a_wrong_answer_is_not_timed():
    calls = []

    def check():
        raise AssertionError("off by one")

    wrong = Case("wrong", lambda peers: trial(check, ours=lambda: calls.append(1)))
    with pytest.raises(AssertionError, match="off by one"):
        list(compare("some", [wrong], run()))
    assert calls == []


def test_losses_are_reported_beside_wins(capsys):
    file = io.StringIO()
    report = Report({"suite": "some", "absent": {"jax": "No module named 'jax'"}}, file)
    for record in compare("some", [Case("sum", lambda peers: trial())], run()):
        report.add(record)
    report.close()
    printed = capsys.readouterr().out
    assert "# absent: jax No module named 'jax'" in printed
    assert "faster in 0 of 1 comparisons" in printed
    assert "slower: sum to numpy" in printed
    header, *rows = map(json.loads, file.getvalue().splitlines())
    assert header["header"]["suite"] == "some"
    assert [list(row) for row in rows] == [FIELDS, FIELDS]


@pytest.mark.parametrize(
    ("flops", "footprint", "seconds"),
    [(1e9, 0, 0.01), (0, 1e12, 0.1), (1e11, 1e12, 1.0), (0, 10, None)],
    ids=["compute", "memory", "both", "in cache"],
)
def test_limit_is_the_slower_of_arithmetic_and_memory(flops, footprint, seconds):
    assert Work(flops, bytes=1e9, footprint=footprint).limit_seconds(LIMITS) == seconds


@pytest.mark.parametrize("name", SUITES)
def test_suites_load(name):
    assert callable(load_suite(name).records)


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(SystemExit, match=r"unknown suite 'optm'.*did you mean optim\?"):
        load_suite("optm")
    with pytest.raises(SystemExit, match="--vs: unknown peer 'torhc', have torch, numpy, jax"):
        Peers.load(["torhc"], threads=1)


def test_command_line_writes_table_and_records(tmp_path):
    records = tmp_path / "records.json"
    runner = BENCHMARKS / "run.py"
    command = [sys.executable, runner, "matmul", "--quick", "--only", "1x(64,", "--vs", "numpy"]
    job = subprocess.run(
        [*command, "--json", records], capture_output=True, text=True, check=True, timeout=60
    )
    assert "# threads: " in job.stdout
    assert len(records.read_text().splitlines()) == 3  # header, ours, numpy's
