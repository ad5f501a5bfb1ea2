"""The values of the command's options: each function reads one, or says what was expected."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable

from .experiment import DATASETS


def suggestion(value: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(value, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(known)}"


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in known:
            raise argparse.ArgumentTypeError(f"unknown {text!r}{suggestion(text.lower(), known)}")
        return text.lower()

    return parse


def dataset(text: str) -> str:
    return text if text.endswith(".npz") else one_of([*DATASETS, "FILE.npz"])(text)


def figure(text: str) -> str:
    from .gallery import GALLERY

    return one_of(GALLERY)(text)


def network(text: str) -> str:
    from .networks import NETWORKS

    return one_of(NETWORKS)(text)


def product(text: str) -> tuple[int, int, int]:
    if not (match := re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)):
        raise argparse.ArgumentTypeError(f"expected MxKxN, like 64x100x3072, got {text!r}")
    m, k, n = map(int, match.groups())
    return m, k, n


def integer(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected an integer of at least {least}, got {text!r}"
            )
        return int(text)

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"expected a number in [{low}, {high}), got {text!r}")
        return value

    return parse


def widths(text: str) -> tuple[int, ...]:
    return tuple(map(integer(1), text.split(","))) if text else ()
