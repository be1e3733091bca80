"""ccxt in a process of its own: a command a line in, an answer a line out.

Runs under the interpreter of a virtual environment that holds ccxt and nothing of ours. A command is {"id", "do",
"args", "kwargs"}; `do` names a method of Driver, or a public one of ccxt.pro's hyperliquid, as in
"exchange.create_order". An answer is {"id", "result"} or {"id", "error"}, the error with ccxt's whole text.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections import defaultdict
from typing import Any

import ccxt.pro  # type: ignore[import-not-found]


class Driver:
    def __init__(self) -> None:
        self.exchange: Any = None
        self.first: Any = None
        self.arrived: defaultdict[str, list[Any]] = defaultdict(list)
        self.errors: dict[str, str] = {}
        self.news = asyncio.Condition()
        self.watches: list[asyncio.Task[None]] = []

    async def start(self, url: str, ws_url: str, key: str, address: str) -> None:
        """A new client, as its users make it: the URLs are the only settings, and the sandbox mode that takes them.

        Every client but the first has the first one's markets once those are loaded.
        """
        await self.stop()
        self.arrived, self.errors = defaultdict(list), {}
        urls = {"test": {"public": url, "private": url, "ws": {"public": ws_url}}}
        self.exchange = ccxt.pro.hyperliquid({"walletAddress": address, "privateKey": key, "urls": urls})
        self.exchange.set_sandbox_mode(True)
        self.first = self.first or self.exchange
        if self.first.markets is not None:
            self.exchange.set_markets_from_exchange(self.first)

    async def stop(self) -> None:
        for task in self.watches:
            task.cancel()
        await asyncio.gather(*self.watches, return_exceptions=True)
        self.watches = []
        if self.exchange is not None:
            await self.exchange.close()

    def watch(self, method: str, *args: Any) -> None:
        """Call a watch method again and again; `delivered` has what it returned."""
        self.watches.append(asyncio.create_task(self._watch(method, args)))

    async def _watch(self, method: str, args: tuple[Any, ...]) -> None:
        try:
            while True:
                data = json.dumps(await getattr(self.exchange, method)(*args))  # a copy: ccxt goes on with its own
                async with self.news:
                    self.arrived[method].append(json.loads(data))
                    self.news.notify_all()
        except Exception as exc:
            async with self.news:
                self.errors[method] = f"{type(exc).__name__}: {exc}"
                self.news.notify_all()

    async def delivered(self, method: str, count: int, timeout_s: float) -> list[Any]:
        """Everything that a watch method returned so far, as soon as there are `count`."""
        got = self.arrived[method]
        async with self.news:
            try:
                wanted = self.news.wait_for(lambda: len(got) >= count or method in self.errors)
                await asyncio.wait_for(wanted, timeout_s)
            except TimeoutError:
                text = f"{len(got)} of {count} results of {method} within {timeout_s} s: {got[-3:]}"
                raise TimeoutError(text) from None
            if method in self.errors:
                raise RuntimeError(self.errors[method])
            return list(got)

    async def signed(self, action: Any, nonce: int, sign_vault: str | None = None, **envelope: Any) -> Any:
        """Sign and post, as ccxt's users do what it has no method for. envelope: what is sent besides."""
        signature = self.exchange.sign_l1_action(action, nonce, sign_vault, envelope.get("expiresAfter"))
        payload = {"action": action, "nonce": nonce, "signature": signature, **envelope}
        return await self.exchange.private_post_exchange(payload)


async def answer(driver: Driver, command: dict[str, Any]) -> dict[str, Any]:
    try:
        target: Any = driver
        for name in command["do"].split("."):
            target = getattr(target, name)
        result = target(*command["args"], **command["kwargs"])
        return {"result": await result if inspect.isawaitable(result) else result}
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}


async def main() -> None:
    driver = Driver()
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        print(json.dumps({"id": command["id"], **await answer(driver, command)}), flush=True)
    await driver.stop()


if __name__ == "__main__":
    asyncio.run(main())
