"""The benchmark runner: answers before times, all fields, losses counted like wins."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from case import Case, Side, Work, deviation
from cases import SUITES, load_suite
from contestant import sample
from document import documented
from measure import Record, Run, compare
from report import Report

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FIELDS = ["suite", "case", "impl", "version", "median_s", "q1_s", "q3_s", "ratio", "limit_fraction"]
LIMITS = {"fma_f32_gflops": 100.0, "triad_gbytes": 10.0}


class InProcess:
    """A contestant without a process of its own."""

    version = "1.0"

    def __init__(self, cases):
        self.cases = {case.name: case for case in cases}
        self.sides = {}

    def make(self, case, impl):
        self.sides[impl] = self.cases[case].sides[impl]()
        self.sides[impl].call()
        return self.sides[impl].answer()

    def sample(self, impl, repeats):
        return sample(self.sides[impl], repeats)

    def forget(self):
        self.sides.clear()


def sum_case(ours=1.0, theirs=1.0, reference=1.0):
    return Case(
        "sum",
        {
            "thalweg": lambda: Side(lambda: sum(range(3000)), lambda: [np.array([ours])]),
            "numpy": lambda: Side(lambda: None, lambda: [np.array([theirs])]),
        },
        1e-6,
        Work(flops=1e3),
        lambda: [np.array([reference])],
    )


def records(case):
    contestants = {name: InProcess([case]) for name in ("thalweg", "numpy")}
    run = Run(True, 20, "", contestants, LIMITS, {})
    return list(compare("some", [case], run)), run


def test_records_have_the_agreed_fields():
    assert [field.name for field in fields(Record)] == [*FIELDS, "detail"]
    (ours, theirs), _ = records(sum_case())
    assert (ours.impl, theirs.impl) == ("thalweg", "numpy")
    assert ours.ratio == 1
    assert theirs.ratio == theirs.median_s / ours.median_s < 1
    assert ours.q1_s <= ours.median_s <= ours.q3_s
    assert ours.limit_fraction == pytest.approx(1e3 / 100e9 / ours.median_s)
    assert ours.detail == {"gflops": pytest.approx(1e3 / ours.median_s / 1e9), "error": 0}


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_a_wrong_answer_is_not_timed(wrong):
    with pytest.raises(AssertionError, match="numpy: sum is off by"):
        records(sum_case(theirs=wrong))


def test_a_side_that_cannot_run_is_named():
    def fails():
        raise RuntimeError("no such kernel")

    case = sum_case()
    case.sides["numpy"] = fails
    (ours,), run = records(case)
    assert ours.impl == "thalweg"
    assert run.absent == {"sum, numpy": "no such kernel"}


def test_deviation_is_relative_to_the_largest_element():
    assert deviation([np.array([1.0, 3.0])], [np.array([1.0, 4.0])]) == 0.25
    assert deviation([np.zeros(2)], [np.zeros(3)]) == np.inf
    assert deviation([np.zeros(0)], [np.zeros(0)]) == 0


def test_losses_are_reported_beside_wins(capsys):
    file = io.StringIO()
    report = Report({"suite": "some", "absent": {"jax": "No module named 'jax'"}}, file)
    for record in records(sum_case())[0]:
        report.add(record)
    report.close({"sum, torch": "no such kernel"})
    printed = capsys.readouterr().out
    assert "# absent: jax No module named 'jax'" in printed
    assert "faster in 0 of 1 comparisons" in printed
    assert "slower: sum to numpy" in printed
    assert "absent: sum, torch: no such kernel" in printed
    header, *rows, absent = map(json.loads, file.getvalue().splitlines())
    assert header["header"]["suite"] == "some"
    assert [list(row)[:9] for row in rows] == [FIELDS, FIELDS]
    assert absent["absent"] == "sum, torch"


@pytest.mark.parametrize(
    ("flops", "footprint", "seconds"),
    [(1e9, 0, 0.01), (0, 1e12, 0.1), (1e11, 1e12, 1.0), (0, 10, None)],
    ids=["compute", "memory", "both", "in cache"],
)
def test_limit_is_the_slower_of_arithmetic_and_memory(flops, footprint, seconds):
    assert Work(flops, bytes=1e9, footprint=footprint).limit_seconds(LIMITS) == seconds


@pytest.mark.parametrize("name", SUITES)
def test_suites_load_and_their_cases_have_names_of_their_own(name):
    suite = load_suite(name)
    assert callable(suite.records)
    for quick in (True, False):
        names = [case.name for case in suite.cases(quick)] if hasattr(suite, "cases") else []
        assert len(set(names)) == len(names)


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(SystemExit, match=r"unknown suite 'optm'.*did you mean optim\?"):
        load_suite("optm")


def test_documentation_is_what_the_committed_records_say():
    page = BENCHMARKS.parent / "docs" / "benchmarks.md"
    assert documented(page.read_text()) == page.read_text(), "run benchmarks/document.py"


def run_benchmark(*arguments):
    command = [sys.executable, BENCHMARKS / "run.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_command_line_writes_table_and_records(tmp_path):
    file = tmp_path / "records.json"
    job = run_benchmark("matmul", "--quick", "--only", "1x(64,", "--vs", "numpy", "--json", file)
    assert "# threads: " in job.stdout, job.stderr
    assert len(file.read_text().splitlines()) == 3  # header, ours, numpy's
    job = run_benchmark("matmul", "--vs", "torhc")
    assert "--vs: unknown peer 'torhc', have torch, numpy, jax" in job.stderr
