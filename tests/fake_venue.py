"""A venue over real sockets that takes orders, in a few dozen lines that can misbehave. It checks no signature."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import WSMsgType, web
from order_news import row, update

from hlconn import Endpoints, Network, Order, Side


class FakeVenue:
    """Every order rests; cancels cancel. `async with` opens a port.

    swallow: actions are executed and not answered. deaf: actions are neither. actions: what came, by any way.
    """

    def __init__(self) -> None:
        self.orders: dict[int, Order] = {}
        self.actions: list[dict[str, Any]] = []
        self.over_http = 0
        self.swallow = self.deaf = False
        self.refuse_user_streams = False
        self.sockets: list[web.WebSocketResponse] = []
        self.on_action: Callable[[], object] = lambda: None
        self._oid = 100

    async def __aenter__(self) -> FakeVenue:
        app = web.Application()
        app.router.add_get("/ws", self._socket)
        app.router.add_post("/info", self._info)
        app.router.add_post("/exchange", self._exchange)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/ws", Network.LOCAL)

    def cut(self) -> None:
        for socket in self.sockets:
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()
        self.sockets.clear()

    async def publish(self, channel: str, data: Any) -> None:
        for socket in self.sockets:
            await socket.send_bytes(orjson.dumps({"channel": channel, "data": data}))

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                for reply in await self._received(orjson.loads(message.data)):
                    await socket.send_str(orjson.dumps(reply).decode())
        return socket

    async def _received(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        if value["method"] == "ping":
            return [{"channel": "pong"}]
        if value["method"] == "post":
            answer = await self._act(value["request"]["payload"])
            if answer is None:
                return []
            return [{"channel": "post", "data": {"id": value["id"], "response": {"type": "action", "payload": answer}}}]
        subscription = value["subscription"]
        if self.refuse_user_streams and "user" in subscription:
            text = "Invalid subscription " + orjson.dumps(subscription).decode()
            return [{"channel": "error", "data": text}]
        replies = [{"channel": "subscriptionResponse", "data": value}]
        if subscription["type"] == "userFills":
            data = {"isSnapshot": True, "user": subscription["user"], "fills": []}
            replies.append({"channel": "userFills", "data": data})
        return replies

    async def _act(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        self.actions.append(payload)
        self.on_action()
        if self.deaf:
            return None
        action = payload["action"]
        entries: list[Any] = []
        updates = []
        if action["type"] == "order":
            for wanted in action["orders"]:
                self._oid += 1
                order = self.orders[self._oid] = _order(wanted)
                entries.append({"resting": {"oid": self._oid, "cloid": wanted["c"]}})
                updates.append(update(self._oid, order, "open"))
        elif action["type"] == "cancel":
            for cancel in action["cancels"]:
                gone = self.orders.pop(cancel["o"], None)
                entries.append("success" if gone else {"error": "MissingOrder"})
                updates += [update(cancel["o"], gone, "canceled")] if gone else []
        elif action["type"] == "cancelByCloid":
            for cancel in action["cancels"]:
                oids = [oid for oid, one in self.orders.items() if one.cloid and one.cloid.hex == cancel["cloid"]]
                entries.append("success" if oids else {"error": "MissingOrder"})
                updates += [update(oid, self.orders.pop(oid), "canceled") for oid in oids]
        if self.swallow:
            return None
        if updates:
            await self.publish("orderUpdates", updates)
        if not entries:
            return {"status": "ok", "response": {"type": "default"}}
        return {"status": "ok", "response": {"type": "order", "data": {"statuses": entries}}}

    async def _exchange(self, request: web.Request) -> web.Response:
        self.over_http += 1
        answer = await self._act(orjson.loads(await request.read()))
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _info(self, request: web.Request) -> web.Response:
        query = orjson.loads(await request.read())
        now_ms = time.time_ns() // 1_000_000
        listed = [row(oid, order) for oid, order in self.orders.items()]
        match query["type"]:
            case "meta":
                reply: Any = {"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 50, "marginTableId": 50}]}
            case "frontendOpenOrders":
                reply = listed
            case "clearinghouseState":
                reply = {"assetPositions": [], "time": now_ms}
            case "spotClearinghouseState":
                reply = {"balances": []}
            case "userFillsByTime" | "historicalOrders":
                reply = []
            case "exchangeStatus":
                reply = {"time": now_ms, "specialStatuses": None}
            case "orderStatus":
                found = [one for one in listed if query["oid"] in (one["oid"], one.get("cloid"))]
                reply = {"status": "unknownOid"}
                if found:
                    body = {"order": found[0], "status": "open", "statusTimestamp": now_ms}
                    reply = {"status": "order", "order": body}
            case _:
                return web.Response(status=422, text="Failed to deserialize the JSON body into the target type")
        return web.Response(body=orjson.dumps(reply), content_type="application/json")


def _order(wanted: dict[str, Any]) -> Order:
    from hlconn import Cloid

    return Order("BTC", Side.BUY if wanted["b"] else Side.SELL, wanted["p"], wanted["s"], cloid=Cloid(wanted["c"]))
