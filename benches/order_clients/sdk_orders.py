"""The official SDK placing orders as its users do: Exchange.order over HTTP. Arguments: url, key."""

from __future__ import annotations

import sys

from eth_account import Account
from hyperliquid.exchange import Exchange  # type: ignore[import-not-found]
from stopwatch import price, run


def main() -> None:
    url, key = sys.argv[1:]
    exchange = Exchange(Account.from_key(key), url)

    def place(number: int) -> int:
        answer = exchange.order("BTC", True, 0.01, float(price(number)), {"limit": {"tif": "Alo"}})
        oid: int = answer["response"]["data"]["statuses"][0]["resting"]["oid"]
        return oid

    run(place)


if __name__ == "__main__":
    main()
