"""Random actions, as plain JSON that both sides read: ours in the tests, the official SDK's in sdk_oracle.py.

Standard library only, for it is imported by both interpreters.
"""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

Case = dict[str, Any]

#: coin -> asset id, szDecimals, kind of market
COINS = {
    "BTC": (0, 5, "perp"),
    "ETH": (1, 4, "perp"),
    "kPEPE": (85, 0, "perp"),
    "PURR/USDC": (10000, 0, "spot"),
    "@107": (10107, 2, "spot"),
    "xyz:TSLA": (110003, 3, "builder perp"),
}
_PX_DECIMALS = {"perp": 6, "builder perp": 6, "spot": 8}
_SIZES = [1, 1, 1, 2, 3, 5, 15, 16, 17, 40]


def random_key(rng: random.Random) -> str:
    return f"{rng.randrange(1, 1 << 255):064x}"


def _address(rng: random.Random) -> str:
    return f"0x{rng.randrange(1 << 160):040x}"


def _cloid(rng: random.Random) -> str:
    return f"0x{rng.randrange(1, 1 << rng.choice((8, 64, 128))):032x}"


def _oid(rng: random.Random) -> int:
    return rng.randrange(1 << rng.choice((7, 8, 16, 32, 33, 36, 53, 64)))


def _amount(rng: random.Random, decimals: int) -> str:
    """Text without idle zeros, so that the SDK, which takes amounts of money as they come, means the same."""
    number = Decimal(rng.randrange(1, 10 ** rng.randrange(1, 9))).scaleb(-rng.randrange(decimals + 1))
    return format(number.normalize(), "f")


def _px(rng: random.Random, coin: str) -> float:
    _, sz_decimals, kind = COINS[coin]
    if rng.random() < 0.2:
        return float(rng.randrange(1, 10 ** rng.randrange(1, 8)))
    figures = rng.randrange(1, 10 ** rng.randrange(1, 6))
    return float(f"{figures}e-{rng.randrange(_PX_DECIMALS[kind] - sz_decimals + 1)}")


def _order(rng: random.Random, position_tpsl: bool) -> Case:
    coin = rng.choice(list(COINS))
    order: Case = {
        "coin": coin,
        "is_buy": rng.random() < 0.5,
        "px": _px(rng, coin),
        "sz": float(f"{rng.randrange(1, 10 ** rng.randrange(1, 8))}e-{COINS[coin][1]}"),
        "reduce_only": rng.random() < 0.3,
        "cloid": _cloid(rng) if rng.random() < 0.5 else None,
        "tif": rng.choice(("Alo", "Ioc", "Gtc")),
        "trigger": None,
        # how ours is given the numbers; the SDK takes floats
        "form": rng.choice(("float", "str", "Decimal")),
    }
    if position_tpsl or rng.random() < 0.3:
        px, is_market, tpsl = _px(rng, coin), rng.random() < 0.5, rng.choice(("tp", "sl"))
        order |= {"tif": None, "trigger": {"px": px, "is_market": is_market, "tpsl": tpsl}}
        if position_tpsl:
            order |= {"sz": 0.0, "reduce_only": True}
    return order


def random_l1(rng: random.Random) -> Case:
    op = rng.choice(
        ("order", "order", "order", "cancel", "cancelByCloid", "modify", "batchModify", "batchModify", "other")
    )
    case: Case = {
        "op": op,
        "network": rng.choice(("mainnet", "testnet")),
        "nonce": rng.randrange(1 << rng.choice((8, 41, 41, 41, 48))),
        "vault": _address(rng) if rng.random() < 0.4 else None,
        "expires_after": rng.randrange(1 << 42) if rng.random() < 0.4 else None,
    }
    size = rng.choice(_SIZES)
    if op == "order":
        grouping = rng.choice(("na", "na", "normalTpsl", "positionTpsl", {"p": rng.randrange(1, 100_000_001)}))
        case["grouping"] = grouping
        case["orders"] = [_order(rng, grouping == "positionTpsl") for _ in range(size)]
        builder = f"0x{rng.randrange(1 << 160):040X}".replace("0X", "0x")
        case["builder"] = {"b": builder, "f": rng.randrange(101)} if rng.random() < 0.4 else None
    elif op == "cancel":
        case["cancels"] = [[rng.choice(list(COINS)), _oid(rng)] for _ in range(size)]
        case["fast"] = rng.random() < 0.3
    elif op == "cancelByCloid":
        case["cancels"] = [[rng.choice(list(COINS)), _cloid(rng)] for _ in range(size)]
        case["fast"] = rng.random() < 0.3
    elif op in ("modify", "batchModify"):
        count = 1 if op == "modify" else size
        case["modifies"] = [
            [_cloid(rng) if rng.random() < 0.3 else _oid(rng), _order(rng, False)] for _ in range(count)
        ]
        case["always_place"] = rng.random() < 0.3
    else:
        coin = rng.choice(list(COINS))
        case["call"] = rng.choice(
            (
                ["schedule_cancel", rng.choice((None, rng.randrange(1 << 42)))],
                ["update_leverage", rng.randrange(1, 51), coin, rng.random() < 0.5],
                ["update_isolated_margin", float(_amount(rng, 6)) * rng.choice((1, -1)), coin],
                ["noop"],
            )
        )
    return case


def random_user_signed(rng: random.Random) -> Case:
    """call: the SDK's method and its arguments, amounts as text, for it signs `str(amount)`."""
    to, token, amount = _address(rng), f"PURR:0x{rng.randrange(1 << 128):032x}", _amount(rng, 6)
    sub = _address(rng) if rng.random() < 0.3 else None
    call = rng.choice(
        (
            ["usd_transfer", amount, to],
            ["spot_transfer", amount, to, token],
            ["withdraw_from_bridge", amount, to],
            ["usd_class_transfer", amount, rng.random() < 0.5],
            ["send_asset", to, rng.choice(("", "spot", "xyz")), "spot", token, amount],
            ["token_delegate", to, rng.randrange(1 << 60), rng.random() < 0.5],
            ["approve_builder_fee", to, f"{rng.choice(('0.001', '0.1', '1'))}%"],
            ["approve_agent", rng.choice((None, "bot", "bot valid_until 1800000000000"))],
            ["convert_to_multi_sig_user", sorted(_address(rng) for _ in range(3)), 2],
            ["user_dex_abstraction", to, rng.random() < 0.5],
            ["user_set_abstraction", to, rng.choice(("disabled", "unifiedAccount", "portfolioMargin"))],
        )
    )
    return {
        "op": "user",
        "call": call,
        "network": rng.choice(("mainnet", "testnet")),
        "nonce": rng.randrange(1 << 42),
        "vault": sub if call[0] in ("usd_class_transfer", "send_asset") else None,
        "expires_after": None,
        "agent_key": random_key(rng),
    }


def random_case(rng: random.Random) -> Case:
    case = random_user_signed(rng) if rng.random() < 0.1 else random_l1(rng)
    return {"key": random_key(rng), **case}
