"""`hlconn watch` as a user runs it, against a venue of its own."""

from __future__ import annotations

import re

import pytest

from hlconn import Book, Gap
from hlconn.cli import main, watch


@pytest.mark.parametrize("stats", [False, True])
def test_it_shows_the_book_its_ages_and_on_request_percentiles(stats: bool, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["watch", "BTC", "--network", "sim", "--seconds", "1.5", "--every", "0.25"]
    assert main([*arguments, "--stats"] if stats else arguments) == 0
    text = capsys.readouterr().out
    tops = re.findall(r"^BTC  ([0-9.,]+) x [0-9.e+-]+ / ([0-9.,]+) x [0-9.e+-]+  live  ages: bbo ", text, re.MULTILINE)
    assert len(tops) >= 2
    assert all(float(bid.replace(",", "")) < float(ask.replace(",", "")) for bid, ask in tops)
    assert ("lag" in text) == stats
    if stats:
        found = re.search(r"^callback +([0-9,]+)((?: +[0-9.,]+){5})$", text, re.MULTILINE)
        assert found is not None
        values = [float(value.replace(",", "")) for value in found[2].split()]
        assert values == sorted(values)
        assert int(found[1].replace(",", "")) > 0


def test_a_book_that_is_not_to_be_trusted_is_shown_as_such() -> None:
    line = watch._line(Book("BTC", feeds=("bbo", "slow")), 7)
    assert line == ("BTC  nobody / nobody  STALE (nothing received yet)  ages: bbo -  slow -  messages 0  trades 7")


def test_a_gap_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    watch._say_gap(Gap("trades", "BTC", 1000, 3500, True, "closed by the venue"))
    watch._say_gap(Gap("book", "BTC", 1000, 1500, False, "slow feed silent"))
    assert capsys.readouterr().out.splitlines() == [
        "gap  trades of BTC, 2,500 ms, nothing is missing: closed by the venue",
        "gap  book of BTC, 500 ms, something may be missing: slow feed silent",
    ]


@pytest.mark.parametrize(
    "arguments", [[], ["BTC", "--seconds", "0"], ["BTC", "--network", "moon"], ["BTC", "--every", "nan"]]
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["watch", *arguments])
    assert left.value.code == 2
    assert "usage: hlconn watch" in capsys.readouterr().err
