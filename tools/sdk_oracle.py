"""The official SDK as an oracle: a case of sdk_cases.py a line in, what it would send a line out. Offline.

Runs under the interpreter of a virtual environment that holds hyperliquid-python-sdk and nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace
from typing import Any

import msgpack
from eth_account import Account
from hyperliquid import exchange as sdk
from hyperliquid.utils import signing
from hyperliquid.utils.constants import MAINNET_API_URL, TESTNET_API_URL
from hyperliquid.utils.types import Cloid
from sdk_cases import COINS, Case


class Offline(sdk.Exchange):
    """The SDK's Exchange; returns what it would send."""

    def __init__(self, case: Case) -> None:
        self.wallet = Account.from_key(case["key"])
        self.base_url = MAINNET_API_URL if case["network"] == "mainnet" else TESTNET_API_URL
        self.vault_address, self.account_address = case["vault"], None
        self.expires_after = case["expires_after"]
        self.info = SimpleNamespace(
            name_to_asset=lambda name: COINS[name][0],
            name_to_coin={name: name for name in COINS},
            coin_to_asset={name: asset for name, (asset, _, _) in COINS.items()},
            asset_to_sz_decimals={asset: decimals for asset, decimals, _ in COINS.values()},
        )

    def _post_action(self, action: Any, signature: Any, nonce: int) -> Any:
        return action, signature

    def sign(self, action: Any, nonce: int) -> Any:
        mainnet = self.base_url == MAINNET_API_URL
        return action, signing.sign_l1_action(
            self.wallet, action, self.vault_address, nonce, self.expires_after, mainnet
        )


def request(order: Case) -> Case:
    trigger = order["trigger"]
    kind: Case = {"limit": {"tif": order["tif"]}}
    if trigger:
        kind = {"trigger": {"triggerPx": trigger["px"], "isMarket": trigger["is_market"], "tpsl": trigger["tpsl"]}}
    return {
        "coin": order["coin"],
        "is_buy": order["is_buy"],
        "sz": order["sz"],
        "limit_px": order["px"],
        "order_type": kind,
        "reduce_only": order["reduce_only"],
        "cloid": Cloid.from_str(order["cloid"]) if order["cloid"] else None,
    }


def run(case: Case) -> Any:
    """(action, signature). What the SDK has no method for (fast, always_place, modify) is signed by its generic one."""
    me, op, nonce = Offline(case), case["op"], case["nonce"]
    sdk.get_timestamp_ms = lambda: nonce
    if op == "order":
        builder = dict(case["builder"]) if case["builder"] else None
        return me.bulk_orders([request(order) for order in case["orders"]], builder, case["grouping"])
    if op in ("cancel", "cancelByCloid"):
        if op == "cancel":
            sent = me.bulk_cancel([{"coin": coin, "oid": oid} for coin, oid in case["cancels"]])
        else:
            sent = me.bulk_cancel_by_cloid(
                [{"coin": coin, "cloid": Cloid.from_str(cloid)} for coin, cloid in case["cancels"]]
            )
        return me.sign({**sent[0], "f": True}, nonce) if case["fast"] else sent
    if op in ("modify", "batchModify"):
        modifies = [
            {"oid": Cloid.from_str(oid) if isinstance(oid, str) else oid, "order": request(order)}
            for oid, order in case["modifies"]
        ]
        sent = me.bulk_modify_orders_new(modifies)
        if op == "batchModify" and not case["always_place"]:
            return sent
        action = sent[0] if op == "batchModify" else {"type": "modify", **sent[0]["modifies"][0]}
        return me.sign({**action, "a": True} if case["always_place"] else action, nonce)
    name, *args = case["call"]
    if name == "noop":
        return me.noop(nonce)
    if name == "approve_agent":
        sdk.secrets = SimpleNamespace(token_hex=lambda size: case["agent_key"])
        return me.approve_agent(*args)[0]
    return getattr(me, name)(*args)


def answer(case: Case) -> Case:
    if case["op"] == "bench":
        return {"took_s": bench(case["case"])}
    if case["op"] == "float_to_wire":
        try:
            return {"wire": signing.float_to_wire(case["value"])}
        except ValueError:
            return {"wire": None}
    if case["op"] == "slippage":
        px = Offline(case)._slippage_price(case["coin"], case["is_buy"], case["slippage"], case["mid"])
        return {"px": px, "wire": signing.float_to_wire(px)}
    action, signature = run(case)
    out = {"action": action, **signature}
    if case["op"] != "user":
        out["msgpack"] = msgpack.packb(action).hex()
        connection_id = signing.action_hash(action, case["vault"], case["nonce"], case["expires_after"])
        out["connection_id"] = connection_id.hex()
    return out


def bench(case: Case) -> float:
    """Seconds from the SDK's order request to the bytes of the body, as its `post` makes them."""
    start = time.perf_counter()
    action, signature = run(case)
    json.dumps(
        {
            "action": action,
            "nonce": case["nonce"],
            "signature": signature,
            "vaultAddress": case["vault"],
            "expiresAfter": case["expires_after"],
        }
    ).encode()
    return time.perf_counter() - start


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
