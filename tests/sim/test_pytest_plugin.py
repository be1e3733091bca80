"""The fixture for users' tests, as they would use it."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from typing import Any

import aiohttp
import pytest

from hlconn.sim import pytest_plugin


def ask(venue: Any, **request: object) -> Any:
    wanted = urllib.request.Request(
        f"{venue.url}/info", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(wanted, timeout=10) as response:
        return json.load(response)


def test_a_blocking_test_has_a_venue_of_its_own(venue: Any) -> None:
    account = venue.account(usdc=123)
    assert ask(venue, type="clearinghouseState", user=account.address)["withdrawable"] == "123.0"
    assert venue.info(type="userRole", user=account.address) == {"role": "user"}
    assert venue.history.positions(account.address) == {}
    assert venue.stats.blocks >= 0


@pytest.mark.venue(coins=("BTC",), seed=3, traders=False)
def test_its_options_come_from_the_marker(venue: Any) -> None:
    assert ask(venue, type="meta")["universe"][0]["name"] == "BTC"
    assert ask(venue, type="l2Book", coin="BTC")["levels"] == [[], []]
    oid = venue.rest("BTC", "B", px="100000", sz="0.5")
    assert isinstance(oid, int)
    assert ask(venue, type="l2Book", coin="BTC")["levels"][0] == [{"px": "100000.0", "sz": "0.5", "n": 1}]
    assert venue.cross("BTC", "A", sz="2") == "0.5"


@pytest.mark.venue(coins=("BTC",))
def test_an_asyncio_test_uses_it_from_its_own_loop(venue: Any) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as http, http.ws_connect(venue.ws_url) as ws:
            await ws.send_json({"method": "ping"})
            texts = [(await asyncio.wait_for(ws.receive(), 10)).data for _ in range(2)]
            assert texts == ["Websocket connection established.", '{"channel":"pong"}']

    asyncio.run(run())


def test_errors_come_to_the_caller_and_nothing_is_left_behind() -> None:
    with pytest_plugin.VenueThread(coins=("BTC",)) as venue:
        with pytest.raises(Exception, match="there is no coin 'NOPE' here"):
            venue.cross("NOPE", "B", sz="1")
        url = venue.url
    assert not [thread for thread in threading.enumerate() if thread.name == "hlconn.sim venue"]
    with pytest.raises(OSError, match="refused"):
        ask(type("Gone", (), {"url": url}), type="meta")


def test_a_venue_that_cannot_start_says_why() -> None:
    with pytest_plugin.VenueThread(coins=("BTC",)) as venue:
        port = int(venue.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), pytest_plugin.VenueThread(coins=("BTC",), port=port):
            raise AssertionError("the body must not run")
