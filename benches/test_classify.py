"""Venue text to ErrorCode, side by side: known texts, and an unknown one of 120 bytes; each answer checked."""

from __future__ import annotations

import re
import timeit
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from venue_texts import TEXTS

from hlconn import ErrorCode, classify
from hlconn._core.classify_table import PARTS

KNOWN = "Order must have minimum value of $10. asset=0"
LONGEST = "Post only order would have immediately matched, bbo was 98450.0@98451.0. asset=110003"
UNKNOWN = (
    "The engine could not accept this instruction because of a condition that no table has heard of; "
    "leave it, and try again."
)
CASES = [(KNOWN, ErrorCode.MIN_NOTIONAL), (LONGEST, ErrorCode.POST_ONLY_WOULD_MATCH), (UNKNOWN, ErrorCode.UNKNOWN)]
IDS = ["known", "longest", "unknown of 120 bytes"]
PATTERNS = [(re.compile(re.escape(part), re.IGNORECASE), code) for part, code in PARTS]


def by_regex_list(text: str) -> ErrorCode:
    for pattern, code in PATTERNS:
        if pattern.search(text):
            return code
    return ErrorCode.UNKNOWN


def by_lower_and_in(text: str) -> ErrorCode:
    text = text.lower()
    for part, code in PARTS:
        if part in text:
            return code
    return ErrorCode.UNKNOWN


def measure(benchmark: BenchmarkFixture, call: Callable[[str], object], text: str) -> None:
    """A thousand calls a round, in one C loop over the same text."""
    texts = [text] * 1000

    def run() -> None:
        for one in texts:
            call(one)

    benchmark(run)


@pytest.mark.parametrize("case", range(3), ids=IDS)
@pytest.mark.parametrize("call", [len, classify, by_lower_and_in, by_regex_list], ids=lambda call: call.__name__)
def test_classify(benchmark: BenchmarkFixture, call: Callable[[str], object], case: int) -> None:
    text, code = CASES[case]
    benchmark.group = f"1000 texts to codes: {IDS[case]}"
    measure(benchmark, call, text)
    assert call is len or call(text) is code


def ns(call: Callable[[str], object], text: str, number: int) -> float:
    return (
        min(timeit.repeat("call(text)", globals={"call": call, "text": text}, number=number, repeat=9)) / number * 1e9
    )


def test_ratios(request: pytest.FixtureRequest) -> None:
    """Prints what a text costs, in bare `len()` of one run: the slowest known text, an unknown one, a regex list."""
    assert len(UNKNOWN) == 120
    number = 1 if request.config.getoption("benchmark_disable") else 100_000
    bare = ns(len, KNOWN, number)
    known = max(ns(classify, text, max(1, number // 5)) for text, _ in TEXTS) / bare
    unknown = ns(classify, UNKNOWN, number) / bare
    regexes = ns(by_regex_list, UNKNOWN, max(1, number // 200)) / (unknown * bare)
    print(f"slowest known text {known:.1f} len, unknown {unknown:.1f} len, regex list {regexes:.0f} times classify")
