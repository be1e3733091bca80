"""What the venue says about orders, as parsed JSON in its own spelling, for tests of the order table and the trader."""

from __future__ import annotations

from typing import Any

from hlconn import Cloid, Order, Side, Tif
from hlconn.responses import Answer, read_post
from hlconn.trading.orders import Flight, Item, Kind, OrderTable, TrackedOrder
from hlconn.trading.outbox import _Post

CLOID = Cloid(0xC10D)
USER = "0x" + "ab" * 20


def order(px: str = "100", sz: str = "10", cloid: Cloid | None = CLOID, side: Side = Side.BUY, **more: Any) -> Order:
    return Order("BTC", side, px, sz, cloid=cloid, **more)


def row(oid: int, wanted: Order, remaining: str | None = None, **more: Any) -> dict[str, Any]:
    """An order as orderUpdates and openOrders have it."""
    cloid = {} if wanted.cloid is None else {"cloid": wanted.cloid.hex}
    sz = str(wanted.sz)
    return {
        "coin": wanted.coin,
        "side": wanted.side.wire,
        "limitPx": f"{wanted.px}.0",
        "sz": remaining or sz,
        "oid": oid,
        "timestamp": 1,
        "origSz": sz,
        **cloid,
        **more,
    }


def update(oid: int, wanted: Order, status: str, remaining: str | None = None) -> dict[str, Any]:
    return {"order": row(oid, wanted, remaining), "status": status, "statusTimestamp": 2}


def status(oid: int, wanted: Order, state: str, remaining: str | None = None) -> dict[str, Any]:
    """The answer to orderStatus."""
    return {"status": "order", "order": update(oid, wanted, state, remaining)}


UNKNOWN_OID = {"status": "unknownOid"}


def fill(
    oid: int, sz: str, tid: int, *, px: str = "100.0", side: Side = Side.BUY, time: int = 1000, **more: Any
) -> Any:
    return {
        "coin": "BTC",
        "px": px,
        "sz": sz,
        "side": side.wire,
        "time": time,
        "startPosition": "0.0",
        "dir": "Open Long",
        "closedPnl": "0.0",
        "hash": "0x",
        "oid": oid,
        "crossed": False,
        "fee": "0.01",
        "tid": tid,
        "feeToken": "USDC",
        "twapId": None,
        **more,
    }


def statuses(*entries: Any) -> dict[str, Any]:
    """`data.response` of a post: an accepted action."""
    response = {"type": "order", "data": {"statuses": list(entries)}}
    return {"type": "action", "payload": {"status": "ok", "response": response}}


def refused(text: str) -> dict[str, Any]:
    """`data.response` of a post: the whole action refused."""
    return {"type": "action", "payload": {"status": "err", "response": text}}


def resting(oid: int, cloid: Cloid | None = CLOID) -> dict[str, Any]:
    return {"resting": {"oid": oid} | ({} if cloid is None else {"cloid": cloid.hex})}


def filled(oid: int, sz: str, px: str = "100.0") -> dict[str, Any]:
    return {"filled": {"totalSz": sz, "avgPx": px, "oid": oid}}


def placing(nonce: int, *wanted: Order, expires_after: int | None = None) -> Flight:
    items = tuple(
        Item(Kind.PLACE, TrackedOrder(one.coin, one.side, one.cloid, one), one, coin=one.coin) for one in wanted
    )
    return Flight("order", nonce, items, expires_after, 0)


def modifying(
    table: OrderTable,
    nonce: int,
    target: int | Cloid,
    new: Order,
    *,
    always_place: bool = False,
    expires_after: int | None = None,
) -> Flight:
    item = Item(Kind.MODIFY, table.order_for(new.coin, target), new, target, new.coin, always_place)
    return Flight("batchModify", nonce, (item,), expires_after, 0)


def canceling(table: OrderTable, nonce: int, target: int | Cloid, *, expires_after: int | None = None) -> Flight:
    item = Item(Kind.CANCEL, table.order_for("BTC", target), None, target, "BTC")
    return Flight("cancel", nonce, (item,), expires_after, 0)


def answer(flight: Flight, response: Any) -> Answer:
    return read_post(_Post(flight, False).request, response)


class Told:
    """A table, and what it told."""

    def __init__(self) -> None:
        self.table = OrderTable()
        self.table.begin(0)
        self.table.on_positions("", {"assetPositions": [], "time": 0})

    def send(self, flight: Flight) -> Flight:
        self.table.sent(flight)
        return flight

    def answer(self, flight: Flight, response: Any) -> None:
        self.table.answered(flight.nonce, answer(flight, response))

    def rest(self, nonce: int = 1, oid: int = 11, wanted: Order | None = None) -> TrackedOrder:
        """An order that was placed and rests."""
        flight = self.send(placing(nonce, wanted or order()))
        self.answer(flight, statuses(resting(oid, (wanted or order()).cloid)))
        found = self.table.find(oid)
        assert found is not None
        return found


ALO = Tif.ALO
