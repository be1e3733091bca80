"""Actions about an account: leverage and margin, transfers, agents, sub-accounts and vaults."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from .actions import JsonObject, Refused, ok
from .ledger import Account, Agent
from .markets import PERP_DECIMALS, USDC, Market, Token, dexs, read_decimal

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["HANDLERS"]

_DAY_MS = 86_400_000
_AGENT_DAYS = 180
_NAMED_AGENTS = 3
_NOBODY = "0x" + "0" * 40


def _perp(exchange: Exchange, asset: int) -> Market:
    market = exchange.by_asset.get(asset)
    if market is None or market.is_spot:
        raise Refused("Invalid asset")
    return market


def _update_leverage(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    market, leverage, is_cross = _perp(exchange, action["asset"]), action["leverage"], action["isCross"]
    if not 1 <= leverage <= market.max_leverage:
        raise Refused("Invalid leverage value")
    if is_cross and "onlyIsolated" in dict(market.odd):
        raise Refused("Cross margin is not allowed for this asset.")
    position = account.positions.get(market.name)
    if position is not None and position.is_cross != is_cross:
        raise Refused("Cannot switch leverage type with open position.")
    before, (old, _) = account.leverage.get(market.name), exchange.ledger.leverage_of(account, market)
    account.leverage[market.name] = (leverage, is_cross)
    enough = leverage >= old or exchange.ledger.free(account, market.dex) >= 0
    if position is not None and not is_cross and leverage < old:
        needed = -(-abs(position.szi) * exchange.marks[market.name] // leverage)
        enough = enough and exchange.ledger.position_margin(account, position) >= needed
    if not enough:
        account.leverage.pop(market.name)
        if before is not None:
            account.leverage[market.name] = before
        kind = "Cross" if is_cross else "Isolated"
        raise Refused(f"{kind} position does not have sufficient margin available to decrease leverage.")
    return ok()


def _update_isolated_margin(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    market, usd = _perp(exchange, action["asset"]), action["ntli"]
    position = account.positions.get(market.name)
    if position is None or position.is_cross:
        raise Refused("Position does not use isolated margin.")
    least = -(-abs(position.szi) * exchange.marks[market.name] // exchange.ledger.leverage_of(account, market)[0])
    spare = (
        exchange.ledger.free(account, market.dex)
        if usd > 0
        else exchange.ledger.position_margin(account, position) - least
    )
    if abs(usd) > spare:
        raise Refused("Insufficient margin for this change of isolated margin.")
    position.raw_usd += usd
    exchange.ledger.credit(account, market.dex, -usd)
    return ok()


# Accounts.


def _noop(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    return ok()


def _claim_rewards(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    raise Refused("No rewards to claim")


def _set_referrer(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    account.referrer = action["code"]
    return ok()


def _agent_set_abstraction(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    account.abstraction = {"i": "disabled", "u": "unifiedAccount", "p": "portfolioMargin"}[action["abstraction"]]
    return ok()


def _user_set_abstraction(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    if action["user"].lower() != account.address:
        account = _own(exchange, action["user"].lower(), account)
    account.abstraction = action["abstraction"]
    return ok()


def _approve_agent(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    name, _, until = action.get("agentName", "").partition(" valid_until ")
    address = action["agentAddress"].lower()
    until_ms = None
    if until:
        until_ms = int(until) if until.isdecimal() else 0
        if not exchange.now_ms < until_ms <= exchange.now_ms + _AGENT_DAYS * _DAY_MS:
            raise Refused("Agent valid_until already expired.")
    replaced = [known for known, agent in account.agents.items() if agent.name == name]
    if address != _NOBODY:
        if address in exchange.used_agents or address in exchange.ledger.accounts:
            raise Refused("Extra agent already used.")
        named = sum(1 for agent in account.agents.values() if agent.name)
        if name and not replaced and named >= _NAMED_AGENTS:
            raise Refused(f"Too many extra agents for cumulative volume traded. Current limit is {_NAMED_AGENTS}")
    for known in replaced:
        del account.agents[known], exchange.agents[known]
    if address != _NOBODY:
        account.agents[address] = Agent(name, until_ms)
        exchange.agents[address] = account
        exchange.used_agents.add(address)
    return ok()


def _approve_builder_fee(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    text = action["maxFeeRate"]
    try:
        rate, exact = read_decimal(text.removesuffix("%"), 3)  # 0.001 % is a tenth of a basis point
    except ValueError:
        rate, exact = -1, False
    if not text.endswith("%") or rate < 0 or not exact:
        raise Refused("Invalid builder fee rate.")
    account.builders[action["builder"].lower()] = rate
    return ok()


def _own(exchange: Exchange, address: str, of: Account) -> Account:
    found = exchange.ledger.accounts.get(address)
    if found is None or found.master != of.address or found.kind != "subAccount":
        raise Refused(f"Invalid sub-account transfer from {of.address} to {address}")
    return found


def _pay(
    exchange: Exchange, source: Account, from_what: str | Token, target: str, to_what: str | Token, micro: int
) -> None:
    """target: an address, which becomes an account when money came to it."""
    if isinstance(from_what, Token):
        wei = micro * 10 ** (from_what.wei_decimals - PERP_DECIMALS)
        enough = source.spot.get(from_what, 0) - source.held.get(from_what, 0) >= wei
    else:
        enough = exchange.ledger.free(source, from_what) >= micro
    if micro <= 0 or not enough:
        raise Refused("Insufficient balance for withdrawal.")
    receiver = exchange.ledger.open(target)
    exchange.ledger.move(source, from_what, receiver, to_what, micro)
    exchange.touched[receiver] = None


def _micro(exchange: Exchange, text: str) -> int:
    micro, exact = read_decimal(text, PERP_DECIMALS)
    if not exact or micro <= 0:
        raise Refused("Invalid amount.")
    return micro


def _usd_class_transfer(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    amount, _, sub = action["amount"].partition(" subaccount:")
    who = _own(exchange, "0x" + sub.lower().removeprefix("0x"), account) if sub else account
    source, target = ((USDC, "") if action["toPerp"] else ("", USDC))  # fmt: skip
    try:
        micro = _micro(exchange, amount)
    except ValueError:
        raise Refused("Invalid amount.") from None
    _pay(exchange, who, source, who.address, target, micro)
    return ok()


def _usd_send(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    _pay(exchange, account, "", action["destination"].lower(), "", _micro(exchange, action["amount"]))
    return ok()


def _withdraw3(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    micro = _micro(exchange, action["amount"])
    if exchange.ledger.free(account, "") < micro:
        raise Refused("Insufficient balance for withdrawal.")
    exchange.ledger.pay_in(account, "", -micro)
    return ok()


def _token(exchange: Exchange, name: str) -> Token:
    for market in exchange.markets.values():
        if market.base is not None and name in (f"{market.base.name}:{market.base.id}", market.base.name):
            return market.base
    if name in (f"{USDC.name}:{USDC.id}", USDC.name):
        return USDC
    raise Refused("Invalid token")


def _send_token(exchange: Exchange, account: Account, target: str, token: Token, text: str) -> JsonObject:
    wei, exact = read_decimal(text, token.wei_decimals)
    if not exact or wei <= 0 or account.spot.get(token, 0) - account.held.get(token, 0) < wei:
        raise Refused("Insufficient balance for token transfer.")
    receiver = exchange.ledger.open(target)
    exchange.ledger.credit(account, token, -wei)
    exchange.ledger.credit(receiver, token, wei)
    exchange.touched[receiver] = None
    return ok()


def _spot_send(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    token = _token(exchange, action["token"])
    return _send_token(exchange, account, action["destination"].lower(), token, action["amount"])


def _send_asset(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    if action["fromSubAccount"]:
        account = _own(exchange, action["fromSubAccount"].lower(), account)
    target, token = action["destination"].lower(), _token(exchange, action["token"])
    places: list[str | Token] = []
    for dex in (action["sourceDex"], action["destinationDex"]):
        if dex != "spot" and dex not in dexs(exchange.markets):
            raise Refused("Invalid perp DEX")
        places.append(token if dex == "spot" else dex)
    if places == [token, token]:
        return _send_token(exchange, account, target, token, action["amount"])
    if token is not USDC:
        raise Refused("Invalid token")
    _pay(exchange, account, places[0], target, places[1], _micro(exchange, action["amount"]))
    return ok()


def _new_address(exchange: Exchange, kind: str, of: Account) -> str:
    return (
        "0x"
        + hashlib.blake2b(
            f"{exchange._seed}:{kind}:{of.address}:{exchange._transactions}".encode(), digest_size=20
        ).hexdigest()
    )


def _create_sub_account(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    address = _new_address(exchange, "sub", account)
    exchange.ledger.open(address, kind="subAccount", master=account.address, name=action["name"])
    return ok(address, "createSubAccount")


def _sub_account_transfer(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    sub = _own(exchange, action["subAccountUser"], account)
    source, target = (account, sub) if action["isDeposit"] else (sub, account)
    _pay(exchange, source, "", target.address, "", action["usd"])
    return ok()


def _create_vault(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    usd = action["initialUsd"]
    if usd < 100 * 10**PERP_DECIMALS or exchange.ledger.free(account, "") < usd:
        raise Refused("Insufficient balance to create vault")
    address = _new_address(exchange, "vault", account)
    exchange.ledger.open(address, kind="vault", master=account.address, name=action["name"])
    _pay(exchange, account, "", address, "", usd)
    return ok(address, "createVault")


def _vault_transfer(exchange: Exchange, account: Account, action: JsonObject) -> JsonObject:
    vault = exchange.ledger.accounts.get(action["vaultAddress"])
    if vault is None or vault.kind != "vault" or vault.master != account.address:
        raise Refused(f"Vault not registered: {action['vaultAddress']}")
    source, target = (account, vault) if action["isDeposit"] else (vault, account)
    _pay(exchange, source, "", target.address, "", action["usd"])
    return ok()


HANDLERS: dict[str, Callable[[Exchange, Account, JsonObject], JsonObject]] = {
    "agentEnableDexAbstraction": _noop,
    "agentSetAbstraction": _agent_set_abstraction,
    "approveAgent": _approve_agent,
    "approveBuilderFee": _approve_builder_fee,
    "claimRewards": _claim_rewards,
    "createSubAccount": _create_sub_account,
    "createVault": _create_vault,
    "noop": _noop,
    "reserveRequestWeight": _noop,
    "sendAsset": _send_asset,
    "setDisplayName": _noop,
    "setReferrer": _set_referrer,
    "spotSend": _spot_send,
    "subAccountTransfer": _sub_account_transfer,
    "updateIsolatedMargin": _update_isolated_margin,
    "updateLeverage": _update_leverage,
    "usdClassTransfer": _usd_class_transfer,
    "usdSend": _usd_send,
    "userDexAbstraction": _noop,
    "userSetAbstraction": _user_set_abstraction,
    "vaultTransfer": _vault_transfer,
    "withdraw3": _withdraw3,
}
