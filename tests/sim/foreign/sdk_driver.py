"""The official SDK in a process of its own: a command a line in, an answer a line out.

Runs under the interpreter of a virtual environment that holds hyperliquid-python-sdk and nothing of ours. A command
is {"id", "do", "args", "kwargs"}; `do` names a method of Driver, or a public one of the SDK's Info or Exchange, as in
"exchange.order". An answer is {"id", "result"} or {"id", "error"}, the error with the SDK's whole text.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from typing import Any

from eth_account import Account
from hyperliquid.exchange import Exchange  # type: ignore[import-not-found]
from hyperliquid.info import Info  # type: ignore[import-not-found]
from hyperliquid.utils.signing import sign_l1_action  # type: ignore[import-not-found]
from hyperliquid.utils.types import Cloid  # type: ignore[import-not-found]

CLOID_LENGTH = 34


class Driver:
    def __init__(self) -> None:
        self.info: Any = None
        self.exchange: Any = None
        self.arrived: defaultdict[str, list[Any]] = defaultdict(list)
        self.news = threading.Condition()

    def start(self, base_url: str, key: str, **options: Any) -> None:
        """A new client, as its users make it: the URL is the only setting. options: account_address, vault_address."""
        self.stop()
        self.arrived = arrived = defaultdict(list)

        def deliver(message: Any) -> None:
            with self.news:
                arrived[message["channel"]].append(message["data"])
                self.news.notify_all()

        self.deliver = deliver
        dexs = ["", *(dex["name"] for dex in Info(base_url, skip_ws=True).perp_dexs()[1:])]
        self.wallet = Account.from_key(key)
        self.exchange = Exchange(self.wallet, base_url, perp_dexs=dexs, **options)
        self.info = Info(base_url, perp_dexs=dexs)

    def stop(self) -> None:
        if self.info is not None:
            self.info.disconnect_websocket()
            self.info = None

    def subscribe(self, subscription: Any) -> Any:
        return self.info.subscribe(subscription, self.deliver)

    def delivered(self, channel: str, count: int, timeout_s: float) -> list[Any]:
        """The data of every message of a channel so far, as soon as there are `count`."""
        with self.news:
            got = self.arrived[channel]
            if not self.news.wait_for(lambda: len(got) >= count, timeout_s):
                raise TimeoutError(f"{len(got)} of {count} messages of {channel} within {timeout_s} s: {got[-3:]}")
            return list(got)

    def signed(self, action: Any, nonce: int, sign_vault: str | None = None, **envelope: Any) -> Any:
        """Sign and post, as the SDK's users do what it has no method for. envelope: what is sent besides."""
        signature = sign_l1_action(self.wallet, action, sign_vault, nonce, envelope.get("expiresAfter"), False)
        payload = {"action": action, "nonce": nonce, "signature": signature, "vaultAddress": None, **envelope}
        return self.exchange.post("/exchange", payload)


def with_cloids(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("0x") and len(value) == CLOID_LENGTH:
        return Cloid.from_str(value)
    if isinstance(value, list):
        return [with_cloids(item) for item in value]
    return {key: with_cloids(item) for key, item in value.items()} if isinstance(value, dict) else value


def answer(driver: Driver, command: dict[str, Any]) -> dict[str, Any]:
    try:
        target: Any = driver
        for name in command["do"].split("."):
            target = getattr(target, name)
        arguments = with_cloids if command["do"].startswith(("exchange.", "info.")) else lambda value: value
        return {"result": target(*arguments(command["args"]), **arguments(command["kwargs"]))}
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # the SDK prints what it does not expect
    driver = Driver()
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps({"id": command["id"], **answer(driver, command)}), file=answers, flush=True)
    driver.stop()


if __name__ == "__main__":
    main()
