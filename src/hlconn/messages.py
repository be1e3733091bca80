"""WebSocket messages that do not come by the thousand, as typed objects: `decode("webData3", message)`.

What comes often is read without objects: books and trades by `Feed`, candles, contexts, order updates, fills, fundings
and mid prices by `hlconn._core.rows`. Here msgspec reads, when somebody asks: unknown keys are ignored, words of open
sets (statuses, kinds) stay text, a missing field is a DecodeError that names it. Decimals are floats, those nearest to
their text. None of these objects changes. Source of the shapes: the venue's docs, "WebSocket > Subscriptions", and what
public clients have seen.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from .errors import DecodeError

__all__ = [
    "CHANNELS",
    "ActiveAssetData",
    "AllDexsAssetCtxs",
    "AllDexsClearinghouseState",
    "AssetPosition",
    "Balance",
    "ClearinghouseState",
    "DexClearinghouseState",
    "DexState",
    "FastCtx",
    "FastCtxs",
    "FrontendOrder",
    "FundingEvent",
    "LedgerDelta",
    "LedgerUpdate",
    "Leverage",
    "LiquidatedPosition",
    "LiquidationEvent",
    "MarginSummary",
    "Notification",
    "OpenOrders",
    "OrderStatusRow",
    "OutcomeSpec",
    "OutcomeUpdate",
    "PerpAssetCtx",
    "PerpPosition",
    "Raw",
    "SpotState",
    "SpotStateMessage",
    "TwapHistoryRow",
    "TwapSliceFill",
    "TwapState",
    "TwapStates",
    "UserEvent",
    "UserHistoricalOrders",
    "UserLedgerUpdates",
    "UserTwapHistory",
    "UserTwapSliceFills",
    "WebData3",
    "WireFill",
    "decode",
    "inflate",
]

#: A compressed message may have so many bytes, and so many once it is inflated.
MAX_COMPRESSED, MAX_INFLATED = 256 * 1024, 1024 * 1024

_HUGE = 1.7976931348623157e308
#: The bounds keep out what msgspec would take for a number: "nan" and "inf".
Num: TypeAlias = Annotated[float, msgspec.Meta(ge=-_HUGE, le=_HUGE)]


class Raw(msgspec.Struct, frozen=True):
    """A message of a channel that nobody knows. message: as received."""

    channel: str
    message: bytes


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    """Attributes have the venue's names in snake case: start_position is its startPosition."""


# --- markets --------------------------------------------------------------------------------------------------------


class PerpAssetCtx(_Wire, frozen=True):
    """The context of a perp; see `hlconn.types.ASSET_CTX_DTYPE`. None: the venue has none."""

    funding: Num
    open_interest: Num
    prev_day_px: Num
    day_ntl_vlm: Num
    oracle_px: Num
    mark_px: Num
    day_base_vlm: Num
    premium: Num | None
    mid_px: Num | None
    impact_pxs: tuple[Num, Num] | None


class AllDexsAssetCtxs(_Wire, frozen=True):
    """ctxs: of each dex ("" the first one) those of its perps, by position in its metadata: fetch that anew when
    there are more of them than it has."""

    ctxs: list[tuple[str, list[PerpAssetCtx]]]


class SideSpec(_Wire, frozen=True):
    """One side of an outcome market."""

    name: str
    token: int | None = None


class OutcomeSpec(_Wire, frozen=True):
    """An outcome market that was made."""

    outcome: int
    name: str
    description: str
    side_specs: list[SideSpec]
    quote_token: str | None = None


class QuestionSpec(_Wire, frozen=True):
    """A question, whose outcomes belong together."""

    question: int
    name: str
    description: str
    fallback_outcome: int
    named_outcomes: list[int]
    settled_named_outcomes: list[int]


class _OutcomeRef(_Wire, frozen=True):
    outcome: int


class _QuestionRef(_Wire, frozen=True):
    question: int


class OutcomeUpdate(_Wire, frozen=True):
    """What happened to an outcome market or a question: one of these; none of them for what is not known here."""

    outcome_created: OutcomeSpec | None = None
    outcome_settled: int | None = None
    question_updated: QuestionSpec | None = None
    question_settled: int | None = None


class _OutcomeWire(_Wire, frozen=True):
    outcome_created: OutcomeSpec | None = None
    outcome_settled: int | _OutcomeRef | None = None
    question_updated: QuestionSpec | None = None
    question_settled: int | _QuestionRef | None = None


class _OutcomeUpdates(_Wire, frozen=True):
    updates: list[_OutcomeWire]


class FastCtx(_Wire, frozen=True):
    """What changed of a coin. UNSET (msgspec's): as before. mid_px None: there is none now."""

    mark_px: Num | msgspec.UnsetType = msgspec.UNSET
    mid_px: Num | msgspec.UnsetType | None = msgspec.UNSET


# --- accounts -------------------------------------------------------------------------------------------------------


class FillLiquidation(_Wire, frozen=True):
    """Of a fill that liquidated somebody. method: "market" or "backstop" so far."""

    mark_px: Num
    method: str
    liquidated_user: str | None = None


class WireFill(_Wire, frozen=True):
    """One execution; see `hlconn.types.Fill`, whose numbers are exact decimals. fee includes builder_fee."""

    coin: str
    px: Num
    sz: Num
    side: str
    time: int
    start_position: Num
    dir: str
    closed_pnl: Num
    hash: str
    oid: int
    crossed: bool
    fee: Num
    tid: int
    fee_token: str
    twap_id: int | None = None
    cloid: str | None = None
    builder_fee: Num | None = None
    fee_trial_escrow: Num | None = None
    liquidation: FillLiquidation | None = None


class FundingEvent(_Wire, frozen=True):
    """A payment of funding. usdc: positive when received. szi: the signed position."""

    time: int
    coin: str
    usdc: Num
    szi: Num
    funding_rate: Num
    n_samples: int | None = None


class LiquidationEvent(msgspec.Struct, frozen=True):
    """The account was liquidated, or liquidated another one. The venue writes these keys in snake case."""

    lid: int
    liquidator: str
    liquidated_user: str
    liquidated_ntl_pos: Num
    liquidated_account_value: Num


class NonUserCancel(_Wire, frozen=True):
    """An order that the venue canceled."""

    coin: str
    oid: int


class TwapTrigger(_Wire, frozen=True):
    """What a TWAP order waits for."""

    px: Num
    above: bool


class TwapState(_Wire, frozen=True):
    """A TWAP order. timestamp: ms. executed_ntl: quote units."""

    coin: str
    user: str
    side: str
    sz: Num
    executed_sz: Num
    executed_ntl: Num
    minutes: int
    reduce_only: bool
    randomize: bool
    timestamp: int
    stop_px: Num | None = None
    trigger: TwapTrigger | None = None


class TwapStatus(_Wire, frozen=True):
    """status: activated, terminated, finished, waitingForTrigger, stopped, error so far."""

    status: str
    description: str | None = None


class TwapHistoryRow(_Wire, frozen=True):
    """What became of a TWAP order. time: in seconds, other than all other times."""

    time: int
    state: TwapState
    status: TwapStatus
    twap_id: int | None = None


class TwapSliceFill(_Wire, frozen=True):
    """A fill of a TWAP order."""

    fill: WireFill
    twap_id: int


class UserEvent(_Wire, frozen=True):
    """A message of channel `user`: one of these; none of them for what is not known here."""

    fills: list[WireFill] | None = None
    funding: FundingEvent | None = None
    liquidation: LiquidationEvent | None = None
    non_user_cancel: list[NonUserCancel] | None = None
    twap_history: list[TwapHistoryRow] | None = None
    twap_slice_fills: list[TwapSliceFill] | None = None


class Notification(_Wire, frozen=True):
    """A sentence for people."""

    notification: str


class Leverage(_Wire, frozen=True):
    """type: "cross" or "isolated"; raw_usd of isolated only."""

    type: str
    value: int
    raw_usd: Num | None = None


class ActiveAssetData(_Wire, frozen=True):
    """What an account can do in a perp. Pairs are for buying and for selling."""

    user: str
    coin: str
    leverage: Leverage
    max_trade_szs: tuple[Num, Num]
    available_to_trade: tuple[Num, Num]
    mark_px: Num


class LiquidatedPosition(_Wire, frozen=True):
    """A position that was liquidated. szi: signed size."""

    coin: str
    szi: Num


class LedgerDelta(_Wire, frozen=True):
    """What moved, by `type`: "deposit", "withdraw", "send", "vaultDeposit" and about 20 more. Each has some of the
    fields; None for those it does not have."""

    type: str
    usdc: Num | None = None
    fee: Num | None = None
    nonce: int | None = None
    user: str | None = None
    destination: str | None = None
    to_perp: bool | None = None
    token: str | int | None = None
    amount: Num | None = None
    usdc_value: Num | None = None
    native_token_fee: Num | None = None
    fee_token: str | None = None
    source_dex: str | None = None
    destination_dex: str | None = None
    dex: str | None = None
    liquidated_ntl_pos: Num | None = None
    account_value: Num | None = None
    leverage_type: str | None = None
    liquidated_positions: list[LiquidatedPosition] | None = None
    vault: str | None = None
    requested_usd: Num | None = None
    commission: Num | None = None
    closing_cost: Num | None = None
    basis: Num | None = None
    net_withdrawn_usd: Num | None = None
    is_deposit: bool | None = None
    operation: str | None = None
    interest_amount: Num | None = None


class LedgerUpdate(_Wire, frozen=True):
    """One entry of the ledger. Two messages about the same have the same (hash, time, delta)."""

    time: int
    hash: str
    delta: LedgerDelta


class FrontendOrder(_Wire, frozen=True):
    """An open order with all that the venue's page knows of it. sz: what remains. children: its take-profit and
    stop-loss, which are also listed by themselves. trigger_px: 0 without one."""

    coin: str
    side: str
    limit_px: Num
    sz: Num
    oid: int
    timestamp: int
    orig_sz: Num
    trigger_condition: str
    is_trigger: bool
    trigger_px: Num
    children: list[FrontendOrder]
    is_position_tpsl: bool
    reduce_only: bool
    order_type: str
    tif: str | None = None
    cloid: str | None = None


class OrderStatusRow(_Wire, frozen=True):
    """An order and its status, in the venue's word; `hlconn.classify_status` says why."""

    order: FrontendOrder
    status: str
    status_timestamp: int


class _Snapshot(_Wire, frozen=True, kw_only=True):
    user: str
    is_snapshot: bool | None = None


class UserLedgerUpdates(_Snapshot, frozen=True, kw_only=True):
    """Entries of the ledger but funding. is_snapshot: what was before, some of it known maybe."""

    non_funding_ledger_updates: list[LedgerUpdate]


class UserHistoricalOrders(_Snapshot, frozen=True, kw_only=True):
    """Orders and what became of them."""

    order_history: list[OrderStatusRow]


class UserTwapSliceFills(_Snapshot, frozen=True, kw_only=True):
    """Fills of TWAP orders."""

    twap_slice_fills: list[TwapSliceFill]


class UserTwapHistory(_Snapshot, frozen=True, kw_only=True):
    """TWAP orders and what became of them."""

    history: list[TwapHistoryRow]


class TwapStates(_Wire, frozen=True):
    """The running TWAP orders, each with its id."""

    dex: str
    user: str
    states: list[tuple[int, TwapState]]


class OpenOrders(_Wire, frozen=True):
    """All open orders on one dex."""

    dex: str
    user: str
    orders: list[FrontendOrder]


class MarginSummary(_Wire, frozen=True):
    """All in quote units; total_raw_usd may be negative."""

    account_value: Num
    total_ntl_pos: Num
    total_raw_usd: Num
    total_margin_used: Num


class CumFunding(_Wire, frozen=True):
    """Funding paid for a position, quote units."""

    all_time: Num
    since_open: Num
    since_change: Num


class PerpPosition(_Wire, frozen=True):
    """A position. szi: signed size, base units. liquidation_px: None when nothing can liquidate it."""

    coin: str
    szi: Num
    leverage: Leverage
    entry_px: Num | None
    position_value: Num
    unrealized_pnl: Num
    return_on_equity: Num
    liquidation_px: Num | None
    margin_used: Num
    max_leverage: int
    cum_funding: CumFunding


class AssetPosition(_Wire, frozen=True):
    """type: "oneWay" so far."""

    type: str
    position: PerpPosition


class ClearinghouseState(_Wire, frozen=True):
    """Margin and positions on one dex. Not meaningful in a unified account."""

    margin_summary: MarginSummary
    cross_margin_summary: MarginSummary
    cross_maintenance_margin_used: Num
    withdrawable: Num
    asset_positions: list[AssetPosition]
    time: int


class DexClearinghouseState(_Wire, frozen=True):
    """A message of channel clearinghouseState."""

    dex: str
    user: str
    clearinghouse_state: ClearinghouseState


class AllDexsClearinghouseState(_Wire, frozen=True):
    """Of each dex ("" the first one) its state."""

    user: str
    clearinghouse_states: list[tuple[str, ClearinghouseState]]


class Balance(_Wire, frozen=True):
    """What an account has of a token. token: None for one of an outcome."""

    coin: str
    total: Num
    hold: Num
    entry_ntl: Num
    token: int | None = None


class SpotState(_Wire, frozen=True):
    """Balances. With portfolio margin also, of each token, what is available after maintenance."""

    balances: list[Balance]
    token_to_available_after_maintenance: list[tuple[int, Num]] | None = None


class SpotStateMessage(_Wire, frozen=True):
    """A message of channel spotState."""

    user: str
    spot_state: SpotState


class UserState(_Wire, frozen=True):
    """server_time, agent_valid_until: ms."""

    user: str
    cum_ledger: Num
    server_time: int
    is_vault: bool
    agent_address: str | None = None
    agent_valid_until: int | None = None
    opt_out_of_spot_dusting: bool | None = None
    dex_abstraction_enabled: bool | None = None
    abstraction: str | None = None


class LeadingVault(_Wire, frozen=True):
    """A vault that the account leads."""

    address: str
    name: str


class DexState(_Wire, frozen=True):
    """What the venue's page shows of one dex, the first one first."""

    total_vault_equity: Num
    perps_at_open_interest_cap: list[str] | None = None
    leading_vaults: list[LeadingVault] | None = None


class WebData3(_Wire, frozen=True):
    """What the venue's page shows of an account."""

    user_state: UserState
    perp_dex_states: list[DexState]


# --- decoding -------------------------------------------------------------------------------------------------------

_TYPES: dict[str, Any] = {
    "activeAssetData": ActiveAssetData,
    "allDexsAssetCtxs": AllDexsAssetCtxs,
    "outcomeMetaUpdates": list[_OutcomeWire] | _OutcomeUpdates,
    "fastAssetCtxs": str,
    "notification": Notification,
    "user": UserEvent,
    "userNonFundingLedgerUpdates": UserLedgerUpdates,
    "userHistoricalOrders": UserHistoricalOrders,
    "userTwapSliceFills": UserTwapSliceFills,
    "userTwapHistory": UserTwapHistory,
    "twapStates": TwapStates,
    "openOrders": OpenOrders,
    "clearinghouseState": DexClearinghouseState,
    "allDexsClearinghouseState": AllDexsClearinghouseState,
    "spotState": SpotStateMessage,
    "webData3": WebData3,
}

#: Channels that `decode` knows.
CHANNELS = tuple(_TYPES)

_FAST_CTXS = msgspec.json.Decoder(dict[str, FastCtx], strict=False)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {}  # made at first use: each takes a millisecond


def _decoder(channel: str) -> msgspec.json.Decoder[Any]:
    found = _decoders.get(channel)
    if found is None:
        envelope = msgspec.defstruct("Message", [("channel", str), ("data", _TYPES[channel])])
        # strict=False: decimals are text, and in some places bare numbers
        found = _decoders[channel] = msgspec.json.Decoder(envelope, strict=False)
    return found


def _plain_outcomes(data: list[_OutcomeWire] | _OutcomeUpdates) -> list[OutcomeUpdate]:
    """Sources disagree on whether the ids of what is settled stand in an object; so does this not."""
    out = []
    for update in data.updates if isinstance(data, _OutcomeUpdates) else data:
        outcome, question = update.outcome_settled, update.question_settled
        outcome = outcome.outcome if isinstance(outcome, _OutcomeRef) else outcome
        question = question.question if isinstance(question, _QuestionRef) else question
        out.append(OutcomeUpdate(update.outcome_created, outcome, update.question_updated, question))
    return out


def inflate(text: str) -> bytes:
    """What the base64 of a raw DEFLATE stream holds. ValueError for what is none, or longer than is accepted."""
    if len(text) > MAX_COMPRESSED:
        raise ValueError(f"more than {MAX_COMPRESSED} bytes of compressed text")
    try:
        packed = base64.b64decode(text, validate=True)
        stream = zlib.decompressobj(wbits=-15)
        plain = stream.decompress(packed, MAX_INFLATED + 1)
    except (binascii.Error, zlib.error) as exc:
        raise ValueError(f"no base64 of a DEFLATE stream: {exc}") from None
    if len(plain) > MAX_INFLATED:
        raise ValueError(f"more than {MAX_INFLATED} bytes once it is inflated")
    if not stream.eof or stream.unused_data:
        raise ValueError("a DEFLATE stream that is cut short, or more than one")
    return plain


def _fast_ctxs(text: str) -> dict[str, FastCtx]:
    return _FAST_CTXS.decode(inflate(text))


_AFTER: dict[str, Callable[[Any], Any]] = {"outcomeMetaUpdates": _plain_outcomes, "fastAssetCtxs": _fast_ctxs}


def decode(channel: str, message: bytes | memoryview) -> Any:
    """The `data` of one WebSocket message of this channel, typed; `Raw` for a channel that is not among `CHANNELS`.

    outcomeMetaUpdates: a list of `OutcomeUpdate`. fastAssetCtxs: {coin: `FastCtx`}, what changed: see `FastCtxs`.
    DecodeError for what cannot be read: its reason names the field and where it stands.
    """
    if channel not in _TYPES:
        return Raw(channel, bytes(message))
    try:
        envelope = _decoder(channel).decode(message)
        if envelope.channel == channel:
            after = _AFTER.get(channel)
            return envelope.data if after is None else after(envelope.data)
        reason = f"a message of channel {envelope.channel[:40]!r}"
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        reason = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
    raise DecodeError(channel, 0, bytes(message[:80]), reason)


class FastCtxs:
    """Mark and mid prices of all coins, kept from fastAssetCtxs messages of one connection, in their order.

    mark_px, mid_px: {coin: price}, quote units; a coin without a mid price is not in mid_px. The first message of a
    connection has all coins, the others what changed: `restart` when another connection begins.
    """

    def __init__(self) -> None:
        self._mark_px: dict[str, float] = {}
        self._mid_px: dict[str, float] = {}
        self._fresh = True
        self.messages = 0

    @property
    def mark_px(self) -> Mapping[str, float]:
        """The mark price of each coin. The next message changes it: copy what you keep."""
        return self._mark_px

    @property
    def mid_px(self) -> Mapping[str, float]:
        """The mid price of each coin that has one. The next message changes it: copy what you keep."""
        return self._mid_px

    def restart(self) -> None:
        """The next message is the first one of its connection: what it does not have is gone."""
        self._fresh = True

    def apply(self, message: bytes | memoryview) -> tuple[str, ...]:
        """Take one message; the coins that it was about. DecodeError for what cannot be read: nothing changed then."""
        update: dict[str, FastCtx] = decode("fastAssetCtxs", message)
        if self._fresh:
            self._mark_px, self._mid_px = {}, {}
            self._fresh = False
        for coin, ctx in update.items():
            if ctx.mark_px is not msgspec.UNSET:
                self._mark_px[coin] = ctx.mark_px
            if ctx.mid_px is None:
                self._mid_px.pop(coin, None)
            elif ctx.mid_px is not msgspec.UNSET:
                self._mid_px[coin] = ctx.mid_px
        self.messages += 1
        return tuple(update)
