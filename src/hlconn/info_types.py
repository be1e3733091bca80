"""What the venue's /info answers, as typed values. One class for each kind of object; read by msgspec.

Fields have the venue's names, in Python's spelling: `limitPx` is `limit_px`. Decimals, which are text on the wire, are
floats: the double nearest to the text, as `float(text)`. Ids and times are ints, times in ms, sides the venue's letters
"B" and "A", addresses text in lower case. What has a default may be missing on the wire; None also stands for its null.

Unknown fields are ignored, and words that may grow (statuses, kinds, `dir`) are plain text. A required field that is
missing, or of another kind, is a `DecodeError`. A number where text is expected is taken, and the other way round: both
were seen. NaN and infinity are refused.

Shapes: the venue's docs, "Info endpoint"; fields that only captures show are marked.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta as Bounds
from msgspec import Struct, field

__all__ = [
    "ActiveAssetData",
    "AssetPosition",
    "Auction",
    "Balance",
    "ClearinghouseState",
    "CumFunding",
    "DelegatorUpdate",
    "EvmContract",
    "ExchangeStatus",
    "ExtraAgent",
    "FeeSchedule",
    "FrontendOrder",
    "FundingDelta",
    "FundingRate",
    "HistoricalOrder",
    "L2Book",
    "LeadingVault",
    "LedgerDelta",
    "LedgerUpdate",
    "Level",
    "Leverage",
    "Liquidation",
    "MarginSummary",
    "MarginTable",
    "MarginTier",
    "MarketTrade",
    "Num",
    "OpenOrder",
    "OrderStatus",
    "PerpAsset",
    "PerpAssetCtx",
    "PerpDex",
    "PerpMeta",
    "PerpPosition",
    "PortfolioPeriod",
    "PredictedFunding",
    "Referral",
    "SpotAssetCtx",
    "SpotMeta",
    "SpotPair",
    "SpotState",
    "SpotToken",
    "StakingDiscount",
    "SubAccount",
    "TokenDetails",
    "TwapHistoryEntry",
    "TwapSliceFill",
    "TwapState",
    "TwapStatus",
    "UserFees",
    "UserFill",
    "UserFunding",
    "UserRateLimit",
    "UserRole",
    "UserVolume",
    "VaultDetails",
    "VaultEquity",
    "VaultFollower",
]

_MOST = 1.7976931348623157e308
Num: TypeAlias = Annotated[float, Bounds(ge=-_MOST, le=_MOST)]


class _Object(Struct, frozen=True, rename="camel"):
    pass


# --- markets ---


class PerpAsset(_Object, frozen=True):
    """One perp of `meta`; its place in the list makes its asset id."""

    name: str
    sz_decimals: int
    max_leverage: int
    margin_table_id: int | None = None
    only_isolated: bool = False
    is_delisted: bool = False
    margin_mode: str | None = None
    growth_mode: str | None = None
    last_growth_mode_change_time: str | None = None


class MarginTier(_Object, frozen=True):
    """From a position of `lower_bound` on, in quote units."""

    lower_bound: Num
    max_leverage: int


class MarginTable(_Object, frozen=True):
    """Tiers of leverage by the notional of the position, lowest first."""

    description: str
    margin_tiers: tuple[MarginTier, ...]


class PerpMeta(_Object, frozen=True):
    """The perps of one dex, those that are delisted included."""

    universe: tuple[PerpAsset, ...]
    margin_tables: tuple[tuple[int, MarginTable], ...] = ()
    collateral_token: int = 0


class PerpAssetCtx(_Object, frozen=True):
    """The state of a perp's market. funding: of the current hour. open_interest: base units. impact_pxs: bid, ask."""

    funding: Num
    open_interest: Num
    prev_day_px: Num
    day_ntl_vlm: Num
    oracle_px: Num
    mark_px: Num
    mid_px: Num | None = None
    premium: Num | None = None
    impact_pxs: tuple[Num, Num] | None = None
    day_base_vlm: Num | None = None


class SpotPair(_Object, frozen=True):
    """tokens: indices of base and quote. Its asset id is 10,000 + `index`."""

    tokens: tuple[int, int]
    name: str
    index: int
    is_canonical: bool


class EvmContract(_Object, frozen=True):
    """Where a token lives on the EVM side."""

    address: str
    evm_extra_wei_decimals: int = field(name="evm_extra_wei_decimals")


class SpotToken(_Object, frozen=True):
    """Found by `index`, which is not its place in the list."""

    name: str
    sz_decimals: int
    wei_decimals: int
    index: int
    token_id: str
    is_canonical: bool
    evm_contract: EvmContract | None = None
    full_name: str | None = None
    deployer_trading_fee_share: Num | None = None


class SpotMeta(_Object, frozen=True):
    """Pairs and tokens of the spot market."""

    universe: tuple[SpotPair, ...]
    tokens: tuple[SpotToken, ...]


class SpotAssetCtx(_Object, frozen=True):
    """The state of a pair's market."""

    coin: str
    prev_day_px: Num
    day_ntl_vlm: Num
    mark_px: Num
    mid_px: Num | None = None
    circulating_supply: Num | None = None
    total_supply: Num | None = None
    day_base_vlm: Num | None = None


class PerpDex(_Object, frozen=True):
    """One builder-deployed perp dex; its place in the list is its number."""

    name: str
    full_name: str
    deployer: str
    oracle_updater: str | None = None
    fee_recipient: str | None = None
    asset_to_streaming_oi_cap: tuple[tuple[str, Num], ...] = ()
    sub_deployers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    deployer_fee_scale: Num | None = None
    last_deployer_fee_scale_change_time: str | None = None
    asset_to_funding_multiplier: tuple[tuple[str, Num], ...] = ()
    asset_to_funding_interest_rate: tuple[tuple[str, Num], ...] = ()


class Level(_Object, frozen=True):
    """n: orders at this price."""

    px: Num
    sz: Num
    n: int


class L2Book(_Object, frozen=True):
    """levels: bids and asks, best first, at most 20 each. `hlconn.Book` is the live one."""

    coin: str
    levels: tuple[tuple[Level, ...], tuple[Level, ...]]
    time: int
    spread: Num | None = None


class MarketTrade(_Object, frozen=True):
    """side: of the aggressor. users: buyer and seller."""

    coin: str
    side: str
    px: Num
    sz: Num
    time: int
    tid: int
    hash: str = ""
    users: tuple[str, ...] = ()


class FundingRate(_Object, frozen=True):
    """What one hour of a perp cost, as a share of the position."""

    coin: str
    funding_rate: Num
    premium: Num
    time: int


class PredictedFunding(_Object, frozen=True):
    """What a venue is going to charge."""

    funding_rate: Num
    next_funding_time: int
    funding_interval_hours: int | None = None


class ExchangeStatus(_Object, frozen=True):
    """special_statuses: None when all is normal."""

    time: int
    special_statuses: Any = None


class Auction(_Object, frozen=True):
    """A running auction of the right to deploy. start_time_seconds: seconds, not ms."""

    start_time_seconds: int
    duration_seconds: int
    start_gas: Num
    current_gas: Num | None = None
    end_gas: Num | None = None


class TokenDetails(_Object, frozen=True):
    """A spot token's supply and its origin. genesis and the balances: as on the wire."""

    name: str
    max_supply: Num
    total_supply: Num
    circulating_supply: Num
    sz_decimals: int
    wei_decimals: int
    mid_px: Num | None = None
    mark_px: Num | None = None
    prev_day_px: Num | None = None
    genesis: Any = None
    deployer: str | None = None
    deploy_gas: Num | None = None
    deploy_time: str | None = None
    seeded_usdc: Num | None = None
    non_circulating_user_balances: tuple[tuple[str, Num], ...] = ()
    future_emissions: Num | None = None


# --- an account's state ---


class MarginSummary(_Object, frozen=True):
    """Quote units. total_raw_usd: cash, negative when it was borrowed against positions."""

    account_value: Num
    total_ntl_pos: Num
    total_raw_usd: Num
    total_margin_used: Num


class Leverage(_Object, frozen=True):
    """type: "cross" or "isolated". raw_usd: of an isolated position."""

    type: str
    value: int
    raw_usd: Num | None = None


class CumFunding(_Object, frozen=True):
    """Funding paid so far; positive was paid, negative received."""

    all_time: Num
    since_open: Num
    since_change: Num


class PerpPosition(_Object, frozen=True):
    """szi: signed size, base units."""

    coin: str
    szi: Num
    leverage: Leverage
    position_value: Num
    unrealized_pnl: Num
    return_on_equity: Num
    margin_used: Num
    entry_px: Num | None = None
    liquidation_px: Num | None = None
    max_leverage: int | None = None
    cum_funding: CumFunding | None = None


class AssetPosition(_Object, frozen=True):
    """type: "oneWay"."""

    type: str
    position: PerpPosition


class ClearinghouseState(_Object, frozen=True):
    """Perp positions and margin of one dex. With a unified account the collateral is in `SpotState`."""

    margin_summary: MarginSummary
    cross_margin_summary: MarginSummary
    withdrawable: Num
    asset_positions: tuple[AssetPosition, ...]
    time: int
    cross_maintenance_margin_used: Num | None = None


class Balance(_Object, frozen=True):
    """token: its index, None for an outcome's. hold: the part of `total` that open orders reserve."""

    coin: str
    total: Num
    hold: Num
    entry_ntl: Num
    token: int | None = None
    spot_hold: Num | None = None
    ltv: Num | None = None
    borrowed: Num | None = None
    supplied: Num | None = None


class SpotState(_Object, frozen=True):
    """Balances of tokens."""

    balances: tuple[Balance, ...]
    evm_escrows: tuple[Any, ...] = ()
    portfolio_margin_enabled: bool | None = None
    portfolio_margin_ratio: Num | None = None
    token_to_portfolio_borrow_ratio: Any = None
    token_to_portfolio_supply_ratio: Any = None
    token_to_available_after_maintenance: tuple[tuple[int, Num], ...] = ()


class ActiveAssetData(_Object, frozen=True):
    """max_trade_szs, available_to_trade: to buy, to sell."""

    user: str
    coin: str
    leverage: Leverage
    max_trade_szs: tuple[Num, Num]
    available_to_trade: tuple[Num, Num]
    mark_px: Num | None = None


# --- orders and fills ---


class OpenOrder(_Object, frozen=True):
    """An open order in short. sz: what is left. timestamp: when it was placed. orig_sz: None in captures of 2023."""

    coin: str
    side: str
    limit_px: Num
    sz: Num
    oid: int
    timestamp: int
    orig_sz: Num | None = None
    cloid: str | None = None
    reduce_only: bool = False


class FrontendOrder(OpenOrder, frozen=True, kw_only=True):
    """An order in full. trigger_px: 0 when there is none. children: TP/SL orders that wait for it to fill."""

    order_type: str
    trigger_condition: str = "N/A"
    is_trigger: bool = False
    trigger_px: Num = 0.0
    children: tuple[FrontendOrder, ...] = ()
    is_position_tpsl: bool = False
    tif: str | None = None


class HistoricalOrder(_Object, frozen=True):
    """status: the venue's word; `hlconn.classify_status` has a code for it."""

    order: FrontendOrder
    status: str
    status_timestamp: int


class OrderStatus(_Object, frozen=True):
    """status: "order", or "unknownOid": then `order` is None, and the order may still be on its way."""

    status: str
    order: HistoricalOrder | None = None


class Liquidation(_Object, frozen=True):
    """method: "market" or "backstop"."""

    mark_px: Num
    method: str
    liquidated_user: str | None = None


class UserFill(_Object, frozen=True):
    """One execution. crossed: the account was the taker. fee: negative for a rebate. `key` tells fills apart.

    tid, fee_token: None in captures of 2023.
    """

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
    tid: int | None = None
    fee_token: str | None = None
    cloid: str | None = None
    twap_id: int | None = None
    builder_fee: Num | None = None
    fee_trial_escrow: Num | None = None
    liquidation: Liquidation | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """(coin, time, tid), or what comes near that where the venue gave no tid."""
        if self.tid is not None:
            return self.coin, self.time, self.tid
        return self.coin, self.time, self.oid, self.hash, self.px, self.sz, self.start_position


class TwapSliceFill(_Object, frozen=True):
    """A fill that a TWAP order made."""

    fill: UserFill
    twap_id: int


class TwapState(_Object, frozen=True):
    """A TWAP order. executed_sz, executed_ntl: base and quote units so far."""

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
    trigger: Any = None


class TwapStatus(_Object, frozen=True):
    """status: as "activated", "finished", "terminated", "error"."""

    status: str
    description: str | None = None


class TwapHistoryEntry(_Object, frozen=True):
    """time: in seconds, not ms."""

    time: int
    state: TwapState
    status: TwapStatus
    twap_id: int | None = None


# --- money ---


class FundingDelta(_Object, frozen=True):
    """usdc: positive was received. szi: the position then."""

    coin: str
    usdc: Num
    szi: Num
    funding_rate: Num
    type: str = "funding"
    n_samples: int | None = None


class UserFunding(_Object, frozen=True):
    """Funding of one position in one hour."""

    time: int
    hash: str
    delta: FundingDelta


class LedgerDelta(_Object, frozen=True):
    """One movement of money. `type` says which of the fields are there: the others are None.

    The venue adds types: of an unknown one there is what has the name of a field here.
    """

    type: str
    usdc: Num | None = None
    amount: Num | None = None
    usdc_value: Num | None = None
    fee: Num | None = None
    native_token_fee: Num | None = None
    token: str | None = None
    fee_token: str | None = None
    user: str | None = None
    destination: str | None = None
    source_dex: str | None = None
    destination_dex: str | None = None
    dex: str | None = None
    nonce: int | None = None
    to_perp: bool | None = None
    is_deposit: bool | None = None
    vault: str | None = None
    requested_usd: Num | None = None
    commission: Num | None = None
    closing_cost: Num | None = None
    basis: Num | None = None
    net_withdrawn_usd: Num | None = None
    operation: str | None = None
    interest_amount: Num | None = None
    liquidated_ntl_pos: Num | None = None
    account_value: Num | None = None
    leverage_type: str | None = None
    liquidated_positions: Any = None


class LedgerUpdate(_Object, frozen=True):
    """One movement of money that is not funding."""

    time: int
    hash: str
    delta: LedgerDelta


class DelegatorUpdate(_Object, frozen=True):
    """delta: as on the wire."""

    time: int
    hash: str
    delta: dict[str, Any]


class UserRateLimit(_Object, frozen=True):
    """Requests of the address: used, allowed, and reserved but not used yet (None in older answers)."""

    cum_vlm: Num
    n_requests_used: int
    n_requests_cap: int
    n_requests_surplus: int | None = None


class UserVolume(_Object, frozen=True):
    """Of one day, quote units."""

    date: str
    user_cross: Num
    user_add: Num
    exchange: Num


class FeeSchedule(_Object, frozen=True):
    """Rates as shares of the notional. tiers: as on the wire."""

    cross: Num
    add: Num
    spot_cross: Num | None = None
    spot_add: Num | None = None
    tiers: Any = None
    referral_discount: Num | None = None
    staking_discount_tiers: tuple[StakingDiscount, ...] = ()


class StakingDiscount(_Object, frozen=True):
    """From a stake of so much on, `discount` is taken off fees."""

    bps_of_max_supply: Num
    discount: Num


class UserFees(_Object, frozen=True):
    """Rates as shares of the notional: cross for takers, add for makers."""

    user_cross_rate: Num
    user_add_rate: Num
    fee_schedule: FeeSchedule
    daily_user_vlm: tuple[UserVolume, ...] = ()
    user_spot_cross_rate: Num | None = None
    user_spot_add_rate: Num | None = None
    active_referral_discount: Num | None = None
    active_staking_discount: StakingDiscount | None = None
    trial: Any = None
    fee_trial_escrow: Num | None = None
    next_trial_available_timestamp: int | None = None
    staking_link: Any = None


class _RoleData(_Object, frozen=True):
    user: str | None = None
    master: str | None = None


class UserRole(_Object, frozen=True):
    """role: "user", "agent", "vault", "subAccount" or "missing". data: whose agent or sub-account it is."""

    role: str
    data: _RoleData | None = None


class SubAccount(_Object, frozen=True):
    """clearinghouse_state: of the first dex; dex_to_clearinghouse_state: of all, where it was asked so."""

    name: str
    sub_account_user: str
    master: str
    spot_state: SpotState
    clearinghouse_state: ClearinghouseState | None = None
    dex_to_clearinghouse_state: tuple[tuple[str, ClearinghouseState], ...] = ()
    abstraction: str | None = None


class VaultFollower(_Object, frozen=True):
    """Of a vault's depositors."""

    user: str
    vault_equity: Num
    pnl: Num | None = None
    all_time_pnl: Num | None = None
    days_following: int | None = None
    vault_entry_time: int | None = None
    lockup_until: int | None = None


class PortfolioPeriod(_Object, frozen=True):
    """Histories as (time in ms, value)."""

    account_value_history: tuple[tuple[int, Num], ...]
    pnl_history: tuple[tuple[int, Num], ...]
    vlm: Num


class VaultDetails(_Object, frozen=True):
    """relationship: as on the wire."""

    name: str
    vault_address: str
    leader: str
    description: str = ""
    portfolio: tuple[tuple[str, PortfolioPeriod], ...] = ()
    apr: Num | None = None
    follower_state: Any = None
    leader_fraction: Num | None = None
    leader_commission: Num | None = None
    followers: tuple[VaultFollower, ...] = ()
    max_distributable: Num | None = None
    max_withdrawable: Num | None = None
    is_closed: bool = False
    relationship: Any = None
    allow_deposits: bool | None = None
    always_close_on_withdraw: bool | None = None


class VaultEquity(_Object, frozen=True):
    """A share in a vault, in quote units."""

    vault_address: str
    equity: Num
    locked_until_timestamp: int | None = None


class LeadingVault(_Object, frozen=True):
    """A vault that the account leads."""

    address: str
    name: str


class ExtraAgent(_Object, frozen=True):
    """A named agent. valid_until: ms, None for without end."""

    address: str
    name: str
    valid_until: int | None = None


class Referral(_Object, frozen=True):
    """referrer_state and the lists: as on the wire."""

    cum_vlm: Num
    unclaimed_rewards: Num
    claimed_rewards: Num
    referred_by: Any = None
    builder_rewards: Num | None = None
    referrer_state: Any = None
    reward_history: tuple[Any, ...] = ()
    token_to_state: Any = None
