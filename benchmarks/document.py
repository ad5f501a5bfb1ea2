"""document.py: writes the tables of docs/benchmarks.md, and plots, from the committed records.

A table stands between `<!-- results MACHINE SUITE -->` and `<!-- end -->`; what is around is prose.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import library
from report import duration

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "plots"
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"<!-- results (\S+) (\S+) -->\n.*?<!-- end -->", re.DOTALL)

Row = dict[str, dict[str, Any]]  # implementation -> its record


@dataclass(frozen=True)
class Results:
    """The last record of each case and implementation in one file."""

    machine: str
    suite: str
    header: dict[str, Any]
    rows: dict[str, Row]
    absent: dict[str, str]

    @classmethod
    def load(cls, machine: str, suite: str) -> Results | None:
        path = RESULTS / machine / f"{suite}.json"
        if not path.exists():
            return None
        results = cls(machine, suite, {}, {}, {})
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "header" in record:
                results.header.update(record["header"])
            elif "absent" in record:
                results.absent[record["absent"]] = record["reason"]
            else:
                results.rows.setdefault(record["case"], {})[record["impl"]] = record
        return results

    def columns(self) -> list[str]:
        """Who is compared with ours: libraries, or their variants where one case has several."""
        peers = [list(row)[1:] for row in self.rows.values()]
        alone = all(len({library(i) for i in impls}) == len(impls) for impls in peers)
        names = [library(impl) if alone else impl for impls in peers for impl in impls]
        return list(dict.fromkeys(names))

    def peers(self, row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
        """Columns and records of all but ours."""
        columns = self.columns()
        for impl, record in list(row.items())[1:]:
            yield (impl if impl in columns else library(impl)), record


def documented(page: str) -> str:
    """The page with its tables written anew."""
    return TABLE.sub(lambda found: _section(*found.groups()), page)


def _section(machine: str, suite: str) -> str:
    results = Results.load(machine, suite)
    body = "Not measured yet.\n" if results is None else "\n".join(_lines(results)) + "\n"
    return f"<!-- results {machine} {suite} -->\n{body}<!-- end -->"


def _lines(results: Results) -> Iterator[str]:
    head, columns = results.header, results.columns()
    versions = {library(i): r["version"] for row in results.rows.values() for i, r in row.items()}
    versions.pop("thalweg", None)
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield (
        f"{head['machine']}, {head['isa']}, {head['threads']} threads, commit {head['commit']}"
        f"{'; ' + peers if peers else ''}."
    )
    yield ""
    yield from (_summary(results, column) for column in columns)
    yield ""
    yield from _table(results, columns)
    missing = [f"{name} ({reason})" for name, reason in results.absent.items()]
    if missing:
        yield from ("", "Not run: " + "; ".join(missing) + ".")
    if (PLOTS / f"benchmark-{results.suite}.svg").exists():
        yield from ("", f"![{results.suite}](plots/benchmark-{results.suite}.svg)")


def _summary(results: Results, column: str) -> str:
    ratios = [
        r["ratio"] for row in results.rows.values() for c, r in results.peers(row) if c == column
    ]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    wins = sum(ratio >= 1 for ratio in ratios)
    return (
        f"- against {column}: faster in {wins} of {len(ratios)}, {mean:.2f} times in the geometric"
        f" mean, {min(ratios):.2f} at worst, {max(ratios):.1f} at best"
    )


def _table(results: Results, columns: list[str]) -> Iterator[str]:
    ours = [next(iter(row.values())) for row in results.rows.values()]
    details = [key for key in DETAILS if any(key in record["detail"] for record in ours)]
    with_limit = ["of limit"] * any(record["limit_fraction"] for record in ours)
    heads = ["case", "ours", *(DETAILS[key][0] for key in details), *with_limit, *columns]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['---', *['--:'] * (len(heads) - 1)])}|"
    for case, row in results.rows.items():
        record = next(iter(row.values()))
        cells = [case, duration(record["median_s"])]
        cells += [_detail(record, key) for key in details]
        cells += [f"{record['limit_fraction']:.0%}" if record["limit_fraction"] else ""] * len(
            with_limit
        )
        peers = dict(results.peers(row))
        cells += [_ratio(peers[column]) if column in peers else "" for column in columns]
        yield f"| {' | '.join(cells)} |"


DETAILS = {
    "gflops": ("GFLOP/s", ".1f"),
    "error": ("error", ".1e"),
    "mebibytes": ("memory, MiB", ".0f"),
    "installed_mebibytes": ("on disk, MiB", ".1f"),
}


def _detail(record: dict[str, Any], key: str) -> str:
    return f"{record['detail'][key]:{DETAILS[key][1]}}" if key in record["detail"] else ""


def _ratio(record: dict[str, Any]) -> str:
    """The peer's time over ours, losses in bold, with its error or memory behind."""
    text = f"{record['ratio']:.2f}" if record["ratio"] < 10 else f"{record['ratio']:.1f}"
    text = f"**{text}**" if record["ratio"] < 1 else text
    behind = [
        _detail(record, key) for key in DETAILS if key != "gflops" and key in record["detail"]
    ]
    return f"{text} ({', '.join(behind)})" if behind else text


# --- plots ---------------------------------------------------------------------------------------
def plot(results: Results) -> None:
    """Where every row has a limit: shares of it, the limit on top; else peers' times over ours."""
    import matplotlib.pyplot as plt

    rows, columns = list(results.rows.items()), results.columns()
    shares = all(r["limit_fraction"] for _, row in rows for r in list(row.values())[:1])
    figure, axes = plt.subplots(figsize=(max(6, 0.16 * len(rows) + 2), 4.2), layout="constrained")
    for i, column in enumerate(columns):
        found = [
            (x, r) for x, (_, row) in enumerate(rows) for c, r in results.peers(row) if c == column
        ]
        values = [r["limit_fraction" if shares else "ratio"] for _, r in found]
        axes.plot(
            [x for x, _ in found], values, MARKS[i % len(MARKS)], label=column, ms=4, mfc="none"
        )
    if shares:
        ours = [next(iter(row.values()))["limit_fraction"] for _, row in rows]
        axes.plot(range(len(rows)), ours, "k.-", label="thalweg", lw=0.6)
        axes.set(ylim=(0, 1), ylabel="share of the machine's limit")
    else:
        axes.axhline(1, color="k", lw=0.8)
        axes.set(yscale="log", ylabel="peer's time over ours (above 1: ours is faster)")
    axes.set_xticks(range(len(rows)), [case for case, _ in rows], rotation=90, fontsize=5)
    axes.set_title(
        f"{results.suite}, {results.header['machine']}, {results.header['threads']} threads",
        fontsize=9,
    )
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3, lw=0.4)
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"benchmark-{results.suite}.svg", metadata={"Date": None})
    plt.close(figure)


MARKS = ["C0o", "C1s", "C2^", "C3d", "C4v", "C5x", "C6+"]


def main() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "thalweg"})
    for machine, suite in TABLE.findall(PAGE.read_text(encoding="utf-8")):
        results = Results.load(machine, suite)
        if results and len(results.rows) > 1:
            plot(results)
    PAGE.write_text(documented(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
