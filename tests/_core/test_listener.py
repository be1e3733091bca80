"""listener.pyx without a socket: what it hands to its twin. Frames over real sockets: tests/session."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from hlconn import ConfigError, Feed
from hlconn._core import _build

if version("picows") != _build.PICOWS_VERSION:  # importing the compiled listener could crash: see its docstring
    pytest.skip("built against another picows", allow_module_level=True)

from hlconn._core.listener import FeedListener
from hlconn.session.pylistener import FeedListener as Twin


def listener(*, on_error: Any = None) -> tuple[FeedListener, Twin, list[str]]:
    gone: list[str] = []
    feed = Feed()
    twin = Twin(feed, on_error or (lambda exc: None), gone.append, 1000)
    return FeedListener(feed, twin), twin, gone


def test_it_begins_active_and_stops_together_with_its_twin() -> None:
    mine, twin, _ = listener()
    assert mine.active
    mine.active = False
    assert (mine.active, twin.active) == (False, False)
    mine.active = True
    assert (mine.active, twin.active) == (True, True)


def test_the_end_of_the_connection_is_the_twins_business_and_stops_both() -> None:
    mine, twin, gone = listener()
    mine.on_ws_disconnected(None)  # type: ignore[arg-type]
    assert (mine.active, twin.active) == (False, False)
    assert gone == ["connection lost without a close frame"]


def test_it_needs_a_feed_and_a_listener() -> None:
    _, twin, _ = listener()
    for arguments in ((None, twin), (Feed(), None), (twin, twin), (Feed(), object()), (Feed(),), ()):
        with pytest.raises((TypeError, AttributeError)):
            FeedListener(*arguments)


def test_it_is_the_link_that_its_twin_says_or_the_first_one() -> None:
    _, twin, _ = listener()
    for link in (-1, 16):
        twin.link = link  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="link must be 0 to 15"):
            FeedListener(Feed(), twin)
