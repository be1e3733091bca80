"""The error tree: who is below whom, what each says first, and that each survives pickle."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest

import hlconn
from hlconn import ErrorCode, errors

CLOID = "0x0000000000000000000000000000fe54"
EXAMPLES: list[hlconn.HlconnError] = [
    hlconn.ConfigError("depth must be positive"),
    hlconn.LinkDown("no connection", OSError("refused")),
    hlconn.Throttled("100 answers are still to come", 0.25),
    hlconn.Closed("closed"),
    hlconn.Rejected(ErrorCode.TICK, "Price must be divisible by tick size. asset=5", CLOID, 2),
    hlconn.Rejected(ErrorCode.UNKNOWN, "something new"),
    hlconn.OutcomeUnknown("order", 1_700_000_000_000, (CLOID,), 2.5),
    hlconn.OutcomeUnknown("cancel", 1_700_000_000_001, (), 0.1, "HTTP 502: <html>"),
    hlconn.QueryFailed(429, ErrorCode.RATE_LIMITED, "null"),
    hlconn.HistoryGone("BTC", "1m candles", 1, 1_700_000_000_000),
    hlconn.StaleBook("BTC", "fast feed silent", {"fast": 1510.0, "bbo": 20.0}),
    hlconn.StaleBook("BTC", "nothing received yet", {}),
    hlconn.StreamOverflow("trades", "BTC", 1000),
    hlconn.SubscriptionRefused({"type": "bbo", "coin": "NONE"}, "Invalid subscription"),
    hlconn.DecodeError("bbo", 7, b"x", "not JSON"),
    hlconn.InvalidOrder("px 1.23456 is off the grid", ("1.2345", "1.2346")),
    hlconn.UnknownCoin("no instrument is called BCT: did you mean BTC?"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_and_shows_what_it_was_made_of(error: hlconn.HlconnError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), repr(again)) == (str(error), repr(error))
    assert {k: repr(v) for k, v in vars(again).items()} == {k: repr(v) for k, v in vars(error).items()}
    assert repr(error) == f"{type(error).__name__}({', '.join(map(repr, error.args))})"


def test_there_is_an_example_of_each_class() -> None:
    classes = {
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, hlconn.HlconnError)
    }
    bases = {hlconn.HlconnError, hlconn.NotSent}
    assert {type(error) for error in EXAMPLES} | bases == classes
    assert all(getattr(hlconn, cls.__name__) is cls for cls in classes)


@pytest.mark.parametrize(
    ("cls", "first"),
    [
        (hlconn.NotSent, "Nothing left this machine"),
        (hlconn.Throttled, "Nothing left this machine"),
        (hlconn.Rejected, "The venue said no: what this request asked for is not live"),
        (hlconn.OutcomeUnknown, "The action was sent and nothing tells what came of it: what it asked for may be live"),
        (hlconn.QueryFailed, "A query had no answer. It had no effect on orders"),
    ],
)
def test_the_first_words_say_whether_an_order_may_be_live(cls: type[Exception], first: str) -> None:
    assert (inspect.getdoc(cls) or "").startswith(first)


def test_what_was_not_sent_can_be_caught_at_once_and_alone() -> None:
    for cls in (hlconn.InvalidOrder, hlconn.UnknownCoin, hlconn.LinkDown, hlconn.Throttled, hlconn.Closed):
        assert issubclass(cls, hlconn.NotSent)
    for other in (hlconn.Rejected, hlconn.OutcomeUnknown, hlconn.QueryFailed):
        assert other.__bases__ == (hlconn.HlconnError,)


def test_sentences_keep_the_venues_words_and_name_the_next_step() -> None:
    said = {type(error): str(error) for error in EXAMPLES}
    assert "try again in 0.250 s" in said[hlconn.Throttled]
    refused = "the venue refused item 2 (cloid {}): 'Price must be divisible by tick size. asset=5' (TICK)"
    assert str(EXAMPLES[4]) == refused.format(CLOID)
    assert str(EXAMPLES[6]).startswith("no answer to order (nonce 1700000000000) after 2.500 s: it may be live. ")
    assert "HTTP 502: <html>" in said[hlconn.OutcomeUnknown]
    assert said[hlconn.QueryFailed] == "the query failed: 'null' (RATE_LIMITED, HTTP 429)"


def test_codes_are_distinct_and_only_none_is_false() -> None:
    assert len({int(code) for code in ErrorCode}) == len(ErrorCode.__members__)
    assert [code for code in ErrorCode if not code] == [ErrorCode.NONE]
    assert pickle.loads(pickle.dumps(ErrorCode.TICK)) is ErrorCode.TICK


def test_numbers_that_users_may_have_stored_do_not_move() -> None:
    stored = {"NONE": 0, "UNKNOWN": 1, "TICK": 101, "POST_ONLY_WOULD_MATCH": 201, "INSUFFICIENT_MARGIN": 301}
    stored |= {"RATE_LIMITED": 429, "ORDER_NOT_FOUND": 601, "UNKNOWN_WALLET": 701, "NONCE_DUPLICATE": 711}
    stored |= {"ACCOUNT_MODE": 801, "CANCELED": 901, "INVALID_SUBSCRIPTION": 1001}
    assert {name: int(ErrorCode[name]) for name in stored} == stored


def test_the_page_about_errors_names_each_code_and_class() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "errors.md").read_text()
    assert [code.name for code in ErrorCode if f"`{code.name}`" not in page] == []
    assert [type(error).__name__ for error in EXAMPLES if f"`{type(error).__name__}" not in page] == []
