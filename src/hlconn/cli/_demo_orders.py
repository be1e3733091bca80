"""The demo's orders: one of each kind, signed, sent over HTTP, and checked against what the venue says it did.

Blocks: for a thread.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from .._core import action
from .._core.sign import Signer
from ..config import Endpoints
from ..instruments import Instruments
from ..responses import Filled, Outcome, Request, Resting, Success, read_http
from ..types import Order, Side, Tif
from . import CommandError

__all__ = ["Orders"]

_TIMEOUT_S = 5.0
_COIN, _SZ = "BTC", "0.01"


class Orders:
    """Places, modifies by oid, cancels, is filled, and ends flat. `told` says what happened, a sentence each."""

    def __init__(self, endpoints: Endpoints, key: str) -> None:
        parts = urlsplit(endpoints.http_url)
        # not urllib: it would ask a proxy from the environment for an address of this machine
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        self._signer = Signer(key, endpoints.network)
        self._instruments = Instruments.from_meta(self._info({"type": "meta", "dex": ""}))
        self._nonce = 0
        self.answers_us: list[float] = []
        self.told: list[str] = []

    def close(self) -> None:
        self._http.close()
        self._signer.close()

    def run(self, best_bid: float, best_ask: float) -> None:
        """The whole story, around these prices. Raises CommandError where the venue did not do as it was asked."""
        instrument = self._instruments[_COIN]

        def order(side: Side, px: float, tif: Tif, *, reduce_only: bool = False) -> Order:
            price = instrument.round_px(px, side, "passive" if tif is Tif.ALO else "aggressive")
            return Order(_COIN, side, price, _SZ, tif, reduce_only=reduce_only)

        low, higher = order(Side.BUY, best_bid * 0.98, Tif.ALO), order(Side.BUY, best_bid * 0.985, Tif.ALO)
        placed = self._send(action.order([low], self._instruments), Resting, "place")
        moved = self._send(action.batch_modify([(placed.oid, higher)], self._instruments), Resting, "modify")
        if moved.oid == placed.oid:
            raise CommandError(f"order {placed.oid} kept its oid through a modify")
        self._send(action.cancel([(_COIN, moved.oid)], self._instruments), Success, "cancel")
        self.told.append(f"order {placed.oid} placed at {low.px}, modified by oid to {higher.px}, canceled")
        bought = self._send(
            action.order([order(Side.BUY, best_ask * 1.01, Tif.IOC)], self._instruments), Filled, "buy at once"
        )
        sell = order(Side.SELL, best_bid * 0.99, Tif.IOC, reduce_only=True)
        sold = self._send(action.order([sell], self._instruments), Filled, "sell at once")
        self.told.append(f"bought {bought.total_sz} {_COIN} at {bought.avg_px}, sold {sold.total_sz} at {sold.avg_px}")
        self._check({bought.oid: "B", sold.oid: "A"})

    def _check(self, filled: dict[int, str]) -> None:
        """What the venue keeps about the account: both orders filled whole, no open order, no position."""
        user = {"user": self._signer.address}
        fills = self._info({"type": "userFills", **user})
        for oid, side in filled.items():
            total = sum(float(fill["sz"]) for fill in fills if fill["oid"] == oid and fill["side"] == side)
            if abs(total - float(_SZ)) > 1e-9:
                raise CommandError(f"fills of order {oid} add up to {total:g}, not to {_SZ}")
        for kind, key in (("openOrders", None), ("clearinghouseState", "assetPositions")):
            answer = self._info({"type": kind, **user})
            if left := answer if key is None else answer[key]:
                raise CommandError(f"{kind} should be empty at the end and is {left}")
        count = f"{len(fills)} fill" + "s" * (len(fills) != 1)
        self.told.append(f"{count} add up, no order and no position is left")

    def _send(self, act: action.Action, expected: type[Any], what: str) -> Any:
        self._nonce = max(self._nonce + 1, time.time_ns() // 1_000_000)
        signed = self._signer.sign(act, self._nonce)
        began_s = time.perf_counter()
        status, body = self._post("/exchange", signed.payload)
        self.answers_us.append((time.perf_counter() - began_s) * 1e6)
        outcome: Outcome = read_http(Request(act.type, self._nonce), status, body).items[0]
        if not isinstance(outcome, expected):
            raise CommandError(f"{what}: expected {expected.__name__}, the venue's answer means {outcome!r}")
        return outcome

    def _info(self, request: dict[str, str]) -> Any:
        status, body = self._post("/info", json.dumps(request).encode())
        if status != http.HTTPStatus.OK:
            raise CommandError(f"the venue does not answer {request}: HTTP {status}, {body[:200]!r}")
        return json.loads(body)

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            self._http.request("POST", path, body, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise CommandError(f"the venue does not answer any more: {exc}") from exc
