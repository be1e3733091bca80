"""Raw clients of the venue: hlconn's signer and nothing else of its trading side, over a pipe or over HTTP."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from hlconn import Instruments, Order, Side, Signer, Tif, Trigger, action
from hlconn.sim import Party, Venue

JsonObject = dict[str, Any]


def instruments_of(venue: Venue) -> Instruments:
    perp_dexs = venue.info(type="perpDexs")
    return Instruments.from_meta(
        venue.info(type="meta"),
        venue.info(type="spotMeta"),
        perp_dexs=perp_dexs,
        dex_metas={dex["name"]: venue.info(type="meta", dex=dex["name"]) for dex in perp_dexs if dex},
    )


class Raw:
    """One client on a stepped venue. `do` signs, sends, lets time pass until the answer is there, and returns it."""

    def __init__(self, venue: Venue, party: Party, *, vault: str | None = None, network: str = "testnet") -> None:
        self.venue, self.party = venue, party
        self.instruments = instruments_of(venue)
        self.signer = Signer(party.key, network, vault)
        self.pipe = venue.pipe()
        self.pipe.on_message = self._on_message
        self.messages: deque[JsonObject] = deque()
        self.answers: dict[int, JsonObject] = {}
        self.closed: list[int | None] = []
        self.pipe.on_close = self.closed.append
        self._next_id = 1

    def _on_message(self, message: bytes) -> None:
        if not message.startswith(b"{"):
            return
        parsed = json.loads(message)
        if parsed["channel"] == "post":
            self.answers[parsed["data"]["id"]] = parsed["data"]["response"]
        else:
            self.messages.append(parsed)

    def nonce(self) -> int:
        """Rises by one each time, near the venue's time."""
        self._next_id += 1
        return int(self.venue.now_ms()) + self._next_id

    def write(self, act: Any, nonce: int | None = None, expires_after: int | None = None, **vault: Any) -> int:
        """Sign and send; the post's id."""
        nonce = self.nonce() if nonce is None else nonce
        signed = self.signer.sign(act, nonce, expires_after, **vault)
        self._next_id += 1
        self.pipe.send(signed.post(self._next_id))
        return self._next_id

    def do(self, act: Any, nonce: int | None = None, expires_after: int | None = None, **vault: Any) -> Any:
        """The payload of the answer: {"status": ...}, or the text of a transport error."""
        post_id = self.write(act, nonce, expires_after, **vault)
        self.wait(post_id)
        return self.answers[post_id]["payload"]

    def wait(self, post_id: int) -> None:
        for _ in range(50):
            if post_id in self.answers:
                return
            self.venue.advance(0)
            if post_id not in self.answers:
                self.venue.block()
                self.venue.advance(0)
        raise AssertionError("no answer after fifty blocks")

    def post_raw(self, payload: Mapping[str, Any]) -> Any:
        """Any payload of an action; the response."""
        self._next_id += 1
        request = {"method": "post", "id": self._next_id, "request": {"type": "action", "payload": payload}}
        self.pipe.send(json.dumps(request).encode())
        self.wait(self._next_id)
        return self.answers[self._next_id]

    def order(self, *orders: Order, **more: Any) -> list[Any]:
        """The statuses of a batch."""
        answer = self.do(action.order(list(orders), self.instruments, **more))
        assert answer["status"] == "ok", answer
        statuses: list[Any] = answer["response"]["data"]["statuses"]
        return statuses

    def cancel(self, coin: str, oid: int) -> Any:
        return self.do(action.cancel([(coin, oid)], self.instruments))["response"]["data"]["statuses"][0]

    def subscribe(self, **subscription: Any) -> None:
        self.pipe.send(json.dumps({"method": "subscribe", "subscription": subscription}).encode())
        self.venue.advance(0)

    def take(self, channel: str) -> list[Any]:
        """The data of every message of a channel that has come so far."""
        self.venue.advance(0)
        found = [message["data"] for message in self.messages if message["channel"] == channel]
        self.messages = deque(message for message in self.messages if message["channel"] != channel)
        return found


def limit(side: str, px: object, sz: object, tif: Tif = Tif.GTC, coin: str = "BTC", **more: Any) -> Order:
    return Order(coin, Side.BUY if side == "B" else Side.SELL, px, sz, tif, **more)  # type: ignore[arg-type]


def trigger(side: str, px: object, sz: object, at: Trigger, coin: str = "BTC", **more: Any) -> Order:
    more.setdefault("reduce_only", True)
    return Order(coin, Side.BUY if side == "B" else Side.SELL, px, sz, trigger=at, **more)  # type: ignore[arg-type]


def quiet_venue(**more: Any) -> Venue:
    """Stepped, without traders, checked after every block."""
    return Venue(**{"stepped": True, "traders": False, "debug": True, **more})
