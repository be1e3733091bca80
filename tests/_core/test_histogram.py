"""histogram.pyx against numpy's percentiles, and what it does with what is no duration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlconn import ConfigError, Histogram

#: Half the width of a bucket, by its lowest value.
ERROR = 1 / 64
MOST = 2**63 - 1


def filled(values: Any) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(int(value))
    return histogram


@given(st.lists(st.integers(0, MOST), min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_is_within_its_error_of_the_nearest_rank(values: list[int], p: float) -> None:
    want = float(np.percentile(np.array(values, np.float64), p, method="inverted_cdf"))
    got = filled(values).percentile(p)
    # at the edge of a rank, float noise may take numpy to the next value
    ranks = sorted(values)
    at = min(range(len(ranks)), key=lambda i: abs(ranks[i] - want))
    near = {float(ranks[i]) for i in (at - 1, at, at + 1) if 0 <= i < len(ranks) and abs(p / 100 * len(ranks) - i) <= 1}
    assert any(abs(got - value) <= ERROR * value + 0.5 for value in near | {want})


@pytest.mark.parametrize("scale", [50.0, 3_000.0, 200_000.0, 2e9])
def test_percentiles_of_many_values_are_those_of_numpy(scale: float) -> None:
    values = np.random.default_rng(7).lognormal(0, 1.5, 50_000) * scale
    histogram = filled(values)
    exact = values.astype(np.int64)
    for p in (0.1, 1, 10, 50, 90, 99, 99.9, 99.99):
        want = float(np.percentile(exact, p, method="inverted_cdf"))
        assert abs(histogram.percentile(p) - want) <= ERROR * want + 0.5, p
    assert histogram.count == len(exact)
    assert histogram.min == exact.min()
    assert histogram.max == exact.max() == histogram.percentile(100)
    assert histogram.mean == pytest.approx(exact.mean(), rel=1e-12)


def test_small_values_are_exact() -> None:
    histogram = filled(range(32))
    assert [histogram.percentile(100 * (i + 1) / 32) for i in range(32)] == list(range(32))


def test_every_value_is_in_the_bucket_whose_bounds_hold_it() -> None:
    lowest = Histogram.lowest()
    assert (np.diff(lowest) > 0).all()
    edges = [int(v) for v in lowest]
    for value in {*edges, *(v - 1 for v in edges[1:]), MOST, 2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**62 - 1}:
        counts = filled([value]).snapshot()
        (bucket,) = np.nonzero(counts)[0]
        assert edges[bucket] <= value, value
        assert bucket == len(edges) - 1 or value < edges[bucket + 1], value


def test_an_empty_one_has_no_values() -> None:
    histogram = Histogram()
    assert histogram.count == 0
    assert np.isnan([histogram.min, histogram.max, histogram.mean, histogram.percentile(50)]).all()
    assert repr(histogram) == "<Histogram, empty>"
    histogram.record(5)
    histogram.reset()
    assert np.isnan(histogram.percentile(50))
    assert not histogram.snapshot().any()


def test_what_is_below_zero_counts_as_zero() -> None:
    histogram = filled([-1, -(2**63), 4])
    assert (histogram.count, histogram.min, histogram.max, histogram.percentile(50)) == (3, 0, 4, 0)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, float("inf"), float("nan"), "7", None])
def test_what_is_no_64_bit_number_is_refused_and_not_counted(value: Any) -> None:
    histogram = Histogram()
    with pytest.raises((TypeError, ValueError, OverflowError)):
        histogram.record(value)
    assert histogram.count == 0


@pytest.mark.parametrize("p", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_percentile_that_cannot_be_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match="0 to 100"):
        filled([1]).percentile(p)


@given(st.lists(st.integers(0, MOST), max_size=50), st.lists(st.integers(0, MOST), max_size=50))
def test_merged_ones_count_as_one(one: list[int], other: list[int]) -> None:
    merged, both = filled(one), filled(one + other)
    merged.merge(filled(other))
    assert (merged.snapshot() == both.snapshot()).all()
    for p in (0, 50, 99.9, 100):
        assert merged.percentile(p) == both.percentile(p) or not both.count
    if both.count:
        assert (merged.count, merged.min, merged.max) == (both.count, both.min, both.max)
        assert merged.mean == pytest.approx(both.mean)
    copy = merged.copy()
    copy.record(1)
    assert copy.count == merged.count + 1
    with pytest.raises(TypeError):
        merged.merge(None)  # type: ignore[arg-type]


def test_a_snapshot_is_a_copy_and_a_summary_has_the_percentiles() -> None:
    histogram = filled([10] * 99 + [1000])
    counts = histogram.snapshot()
    counts[:] = 0
    assert histogram.percentile(50) == 10
    assert histogram.summary() == {
        "count": 100, "min": 10, "mean": 19.9, "p50": 10, "p90": 10, "p99": 10, "p99.9": 1000, "max": 1000,
    }  # fmt: skip
    assert repr(histogram) == "<Histogram of 100: p50 10, p99 10, max 1,000>"
