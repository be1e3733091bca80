"""Answers to info requests as the protocol's reference writes them down, made up: every field of each type once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hlconn import info_types as t
from hlconn.info import Info

USER, OTHER = "0x" + "ab" * 20, "0x" + "cd" * 20
HASH, CLOID = "0x" + "12" * 32, "0x" + "7" * 32
T0 = 1_790_358_600_000

PERP = {"name": "BTC", "szDecimals": 5, "maxLeverage": 40, "marginTableId": 56, "onlyIsolated": True}
PERP |= {"isDelisted": True, "marginMode": "noCross", "growthMode": "enabled", "lastGrowthModeChangeTime": "2026-01-01"}
TIERS = {"description": "tiered", "marginTiers": [{"lowerBound": "0.0", "maxLeverage": 40}]}
META: dict[str, Any] = {"universe": [PERP], "marginTables": [[56, TIERS]], "collateralToken": 0}
CTX = {
    "funding": "0.0000125",
    "openInterest": "39338.76246",
    "prevDayPx": "84086.0",
    "dayNtlVlm": "3096053627.5618200302",
}
CTX |= {"premium": "-0.0001348801", "oraclePx": "83778.1", "markPx": "83757.0", "midPx": "83757.5"}
CTX |= {"impactPxs": ["83757.0", "83766.8"], "dayBaseVlm": "36757.56691"}  # type: ignore[dict-item]
NO_CTX = CTX | {"midPx": None, "premium": None, "impactPxs": None}
TOKEN = {
    "name": "PURR",
    "szDecimals": 0,
    "weiDecimals": 5,
    "index": 1,
    "tokenId": "0x" + "c1" * 16,
    "isCanonical": True,
}
TOKEN |= {"evmContract": {"address": OTHER, "evm_extra_wei_decimals": -2}, "fullName": "Purr"}
TOKEN |= {"deployerTradingFeeShare": "0.0"}
SPOT_META: dict[str, Any] = {
    "universe": [{"tokens": [1, 0], "name": "PURR/USDC", "index": 0, "isCanonical": True}],
    "tokens": [TOKEN, TOKEN | {"evmContract": None, "fullName": None}],
}
SPOT_CTX = {"prevDayPx": "0.2", "dayNtlVlm": "1.5", "dayBaseVlm": "7.5", "markPx": "0.21", "midPx": "0.211"}
SPOT_CTX |= {"circulatingSupply": "598274922.43", "totalSupply": "598274922.43", "coin": "PURR/USDC"}
DEX: dict[str, Any] = {
    "name": "xyz",
    "fullName": "XYZ",
    "deployer": USER,
    "oracleUpdater": OTHER,
    "feeRecipient": None,
    "assetToStreamingOiCap": [["xyz:TSLA", "100.5"]],
    "subDeployers": [["setOracle", [OTHER]]],
    "deployerFeeScale": "1.0",
    "lastDeployerFeeScaleChangeTime": "1970-01-01T00:00:00",
    "assetToFundingMultiplier": [["xyz:TSLA", "0.5"]],
    "assetToFundingInterestRate": [["xyz:TSLA", "0.1"]],
}
LEVEL = {"px": "106217.0", "sz": "0.001", "n": 1}
BOOK: dict[str, Any] = {"coin": "BTC", "time": T0, "levels": [[LEVEL], [LEVEL, LEVEL]], "spread": "1.0"}
TRADE: dict[str, Any] = {
    "coin": "SOL",
    "side": "A",
    "px": "128.5",
    "sz": "0.42",
    "time": T0,
    "hash": HASH,
    "tid": 867891549538215,
}
TRADE |= {"users": [USER, OTHER]}
FUNDING: dict[str, Any] = {"coin": "BTC", "fundingRate": "-0.00061334", "premium": "-0.00091334", "time": T0 + 48}
MARGIN = {
    "accountValue": "179.007426",
    "totalNtlPos": "47.66235",
    "totalRawUsd": "-131.345076",
    "totalMarginUsed": "2.3",
}
POSITION: dict[str, Any] = {
    "coin": "BTC",
    "szi": "-0.00061",
    "leverage": {"type": "isolated", "value": 20, "rawUsd": "99.5"},
    "entryPx": "78134.1",
    "positionValue": "47.66235",
    "unrealizedPnl": "0.5",
    "returnOnEquity": "0.0000042",
    "liquidationPx": None,
    "marginUsed": "2.383117",
    "maxLeverage": 40,
    "cumFunding": {"allTime": "0.1", "sinceOpen": "0.0", "sinceChange": "-0.1"},
}
STATE: dict[str, Any] = {
    "marginSummary": MARGIN,
    "crossMarginSummary": MARGIN,
    "crossMaintenanceMarginUsed": "0.595779",
    "withdrawable": "174.241191",
    "assetPositions": [{"type": "oneWay", "position": POSITION}],
    "time": T0,
}
BALANCE: dict[str, Any] = {
    "coin": "USDC",
    "token": 0,
    "total": "0.09515412",
    "hold": "0.0",
    "entryNtl": "0.0",
    "spotHold": "0.1",
}
BALANCE |= {"ltv": "0.5", "borrowed": "1.0", "supplied": "2.0"}
OUTCOME_BALANCE = {"coin": "+10", "total": "5.0", "hold": "0.0", "entryNtl": "2.5"}
SPOT: dict[str, Any] = {
    "balances": [BALANCE, OUTCOME_BALANCE],
    "evmEscrows": [],
    "portfolioMarginEnabled": True,
    "portfolioMarginRatio": "0.25",
    "tokenToPortfolioBorrowRatio": [[0, "0.5"]],
    "tokenToPortfolioSupplyRatio": [[0, "0.5"]],
    "tokenToAvailableAfterMaintenance": [[0, "12.5"]],
}
OPEN_ORDER = {"coin": "ETH", "side": "B", "limitPx": "1500.0", "sz": "1.0", "oid": 313932628709, "timestamp": T0}
OPEN_ORDER |= {"origSz": "2.0", "cloid": CLOID, "reduceOnly": True}
CHILD: dict[str, Any] = OPEN_ORDER | {
    "triggerCondition": "Price above 10.004",
    "isTrigger": True,
    "triggerPx": "10.004",
    "children": [],
}
CHILD |= {"isPositionTpsl": True, "orderType": "Take Profit Market", "tif": None, "cloid": None}
FRONTEND: dict[str, Any] = CHILD | {"children": [CHILD], "tif": "Gtc", "orderType": "Limit", "cloid": CLOID}
KNOWN: dict[str, Any] = {"order": FRONTEND, "status": "somethingNew", "statusTimestamp": T0 + 5}
FILL: dict[str, Any] = {
    "coin": "BTC",
    "px": "66653.0",
    "sz": "0.001",
    "side": "A",
    "time": T0,
    "startPosition": "-0.0213",
    "dir": "Open Short",
    "closedPnl": "0.0",
    "hash": HASH,
    "oid": 55030848197,
    "crossed": False,
    "fee": "-0.009997",
    "tid": 745210434703679,
    "feeToken": "USDC",
    "twapId": 12,
    "cloid": CLOID,
    "builderFee": "0.001",
    "feeTrialEscrow": "0.0",
    "liquidation": {"liquidatedUser": OTHER, "markPx": "66607.0", "method": "market"},
}
USER_FUNDING: dict[str, Any] = {
    "time": T0,
    "hash": HASH,
    "delta": {
        "type": "funding",
        "coin": "BTC",
        "usdc": "-3.625312",
        "szi": "49.1477",
        "fundingRate": "0.0000417",
        "nSamples": 24,
    },
}
DELTAS: list[dict[str, Any]] = [
    {"type": "deposit", "usdc": "2703997.45"},
    {"type": "withdraw", "usdc": "1.0", "nonce": T0, "fee": "1.0"},
    {"type": "internalTransfer", "usdc": "1.0", "user": USER, "destination": OTHER, "fee": "0.0"},
    {"type": "accountClassTransfer", "usdc": "12.0", "toPerp": False},
    {"type": "subAccountTransfer", "usdc": "12.0", "user": USER, "destination": OTHER},
    {"type": "spotTransfer", "token": "PURR", "amount": "1.5", "usdcValue": "0.3", "user": USER, "destination": OTHER}
    | {"fee": "0.0", "nativeTokenFee": "0.0", "nonce": None, "feeToken": "USDC"},
    {"type": "send", "user": USER, "destination": OTHER, "sourceDex": "", "destinationDex": "xyz", "token": "USDC"}
    | {"amount": "1.0", "usdcValue": "1.0", "fee": "0.0", "nativeTokenFee": "0.0", "nonce": T0, "feeToken": ""},
    {"type": "liquidation", "liquidatedNtlPos": "10.0", "accountValue": "0.0", "leverageType": "Cross"}
    | {"liquidatedPositions": [{"coin": "BTC", "szi": "0.1"}]},
    {"type": "vaultCreate", "vault": OTHER, "usdc": "100.0", "fee": "100.0"},
    {"type": "vaultDeposit", "vault": OTHER, "usdc": "100.0"},
    {"type": "vaultWithdraw", "vault": OTHER, "user": USER, "requestedUsd": "1.0", "commission": "0.1"}
    | {"closingCost": "0.0", "basis": "1.0", "netWithdrawnUsd": "0.9"},
    {"type": "vaultLeaderCommission", "user": USER, "usdc": "0.1"},
    {"type": "rewardsClaim", "amount": "1.5", "token": "USDC"},
    {"type": "cStakingTransfer", "token": "HYPE", "amount": "1.0", "isDeposit": True},
    {"type": "borrowLend", "token": "USDC", "operation": "supply", "amount": "1.0", "interestAmount": "0.0"},
    {"type": "activateDexAbstraction", "dex": "xyz", "token": "USDC", "amount": "1.0"},
    {"type": "somethingNew", "usdc": "1.0"},
]
LEDGER: list[dict[str, Any]] = [{"time": T0 + n, "hash": HASH, "delta": delta} for n, delta in enumerate(DELTAS)]
DISCOUNT: dict[str, Any] = {"bpsOfMaxSupply": "0.0001", "discount": "0.05"}
FEES: dict[str, Any] = {
    "dailyUserVlm": [{"date": "2026-07-01", "userCross": "0.0", "userAdd": "1.5", "exchange": "2852367.07"}],
    "feeSchedule": {
        "cross": "0.00045",
        "add": "0.00015",
        "spotCross": "0.0007",
        "spotAdd": "0.0004",
        "tiers": {"vip": [], "mm": []},
        "referralDiscount": "0.04",
        "stakingDiscountTiers": [DISCOUNT],
    },
    "userCrossRate": "0.00045",
    "userAddRate": "0.00015",
    "userSpotCrossRate": "0.0007",
    "userSpotAddRate": "0.0004",
    "activeReferralDiscount": "0.0",
    "trial": None,
    "feeTrialEscrow": "0.0",
    "nextTrialAvailableTimestamp": None,
    "stakingLink": None,
    "activeStakingDiscount": DISCOUNT,
}
PERIOD: dict[str, Any] = {
    "accountValueHistory": [[T0, "160794563.9261809886"]],
    "pnlHistory": [[T0, "-0.5"]],
    "vlm": "12.0",
}
VAULT: dict[str, Any] = {
    "name": "HLP",
    "vaultAddress": OTHER,
    "leader": USER,
    "description": "x",
    "portfolio": [["day", PERIOD]],
    "apr": 0.36387,
    "followerState": None,
    "leaderFraction": 0.0007,
    "leaderCommission": 0,
    "followers": [
        {"user": USER, "vaultEquity": "714491.71", "pnl": "3203.43", "allTimePnl": "79843.74", "daysFollowing": 388}
        | {"vaultEntryTime": T0, "lockupUntil": T0}
    ],
    "maxDistributable": 94856870.16,
    "maxWithdrawable": 742557.68,
    "isClosed": False,
    "relationship": {"type": "parent", "data": {"childAddresses": [OTHER]}},
    "allowDeposits": True,
    "alwaysCloseOnWithdraw": False,
}
SUB: dict[str, Any] = {
    "name": "Test",
    "subAccountUser": OTHER,
    "master": USER,
    "clearinghouseState": STATE,
    "spotState": SPOT,
}
SUB2: dict[str, Any] = {
    "name": "Test",
    "subAccountUser": OTHER,
    "master": USER,
    "spotState": SPOT,
    "abstraction": "disabled",
}
SUB2 |= {"dexToClearinghouseState": [["", STATE]]}
TWAP: dict[str, Any] = {
    "time": T0 // 1000,
    "state": {
        "coin": "BTC",
        "user": USER,
        "side": "B",
        "sz": "1.0",
        "executedSz": "0.5",
        "executedNtl": "50.5",
        "minutes": 30,
        "reduceOnly": False,
        "randomize": True,
        "timestamp": T0,
        "stopPx": None,
        "trigger": None,
    },
    "status": {"status": "error", "description": "no margin"},
    "twapId": 77,
}
TOKEN_DETAILS: dict[str, Any] = {
    "name": "PURR",
    "maxSupply": "1.0",
    "totalSupply": "1.0",
    "circulatingSupply": "1.0",
    "szDecimals": 0,
    "weiDecimals": 5,
    "midPx": "0.2",
    "markPx": "0.2",
    "prevDayPx": "0.2",
    "genesis": None,
    "deployer": None,
    "deployGas": None,
    "deployTime": None,
    "seededUsdc": "0.0",
    "nonCirculatingUserBalances": [[OTHER, "0.5"]],
    "futureEmissions": "0.0",
}
AUCTION = {"startTimeSeconds": 1765623600, "durationSeconds": 111600, "startGas": "1830.62", "currentGas": "1369.88"}
AUCTION |= {"endGas": None}
REFERRAL = {
    "referredBy": {"referrer": OTHER, "code": "X"},
    "cumVlm": "149428030.6628420055",
    "unclaimedRewards": "11.047361",
    "claimedRewards": "22.743781",
    "builderRewards": "0.0",
    "referrerState": {"stage": "ready", "data": {}},
    "rewardHistory": [],
    "tokenToState": [],
}
ASSET_DATA = {
    "user": USER,
    "coin": "BTC",
    "leverage": {"type": "cross", "value": 3},
    "maxTradeSzs": ["12.5", "13.5"],
    "availableToTrade": ["100.0", "101.0"],
    "markPx": "65000.0",
}

Call = Callable[[Info], Awaitable[Any]]

#: method: what it asks besides its user, the type it gives, how it is called, and an answer.
ANSWERS: dict[str, tuple[dict[str, Any], Any, Call, Any]] = {
    "all_mids": ({"type": "allMids"}, dict[str, t.Num], lambda i: i.all_mids(), {"BTC": "30135.0", "@1": "18446744.5"}),
    "meta": ({"type": "meta", "dex": "xyz"}, t.PerpMeta, lambda i: i.meta("xyz"), META),
    "all_perp_metas": ({"type": "allPerpMetas"}, list[t.PerpMeta], lambda i: i.all_perp_metas(), [META, META]),
    "meta_and_asset_ctxs": (
        {"type": "metaAndAssetCtxs"},
        tuple[t.PerpMeta, list[t.PerpAssetCtx]],
        lambda i: i.meta_and_asset_ctxs(),
        [META, [CTX, NO_CTX]],
    ),
    "spot_meta": ({"type": "spotMeta"}, t.SpotMeta, lambda i: i.spot_meta(), SPOT_META),
    "spot_meta_and_asset_ctxs": (
        {"type": "spotMetaAndAssetCtxs"},
        tuple[t.SpotMeta, list[t.SpotAssetCtx]],
        lambda i: i.spot_meta_and_asset_ctxs(),
        [SPOT_META, [SPOT_CTX]],
    ),
    "perp_dexs": ({"type": "perpDexs"}, list[t.PerpDex | None], lambda i: i.perp_dexs(), [None, DEX]),
    "l2_book": (
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 2},
        t.L2Book,
        lambda i: i.l2_book("BTC", n_sig_figs=5, mantissa=2),
        BOOK,
    ),
    "recent_trades": (
        {"type": "recentTrades", "coin": "SOL"},
        list[t.MarketTrade],
        lambda i: i.recent_trades("SOL"),
        [TRADE],
    ),
    "predicted_fundings": (
        {"type": "predictedFundings"},
        list[tuple[str, list[tuple[str, t.PredictedFunding | None]]]],
        lambda i: i.predicted_fundings(),
        [
            [
                "AVAX",
                [
                    ["HlPerp", {"fundingRate": "0.0000125", "nextFundingTime": T0, "fundingIntervalHours": 1}],
                    ["BinPerp", None],
                ],
            ]
        ],
    ),
    "perps_at_open_interest_cap": (
        {"type": "perpsAtOpenInterestCap"},
        list[str],
        lambda i: i.perps_at_open_interest_cap(),
        ["BADGER", "CANTO"],
    ),
    "max_market_order_ntls": (
        {"type": "maxMarketOrderNtls"},
        list[tuple[int, t.Num]],
        lambda i: i.max_market_order_ntls(),
        [[25, "30000000.0"]],
    ),
    "exchange_status": (
        {"type": "exchangeStatus"},
        t.ExchangeStatus,
        lambda i: i.exchange_status(),
        {"time": T0, "specialStatuses": None},
    ),
    "token_details": (
        {"type": "tokenDetails", "tokenId": "0xc1"},
        t.TokenDetails,
        lambda i: i.token_details("0xc1"),
        TOKEN_DETAILS,
    ),
    "perp_deploy_auction_status": (
        {"type": "perpDeployAuctionStatus"},
        t.Auction,
        lambda i: i.perp_deploy_auction_status(),
        AUCTION,
    ),
    "clearinghouse_state": (
        {"type": "clearinghouseState", "user": USER, "dex": "xyz"},
        t.ClearinghouseState,
        lambda i: i.clearinghouse_state(dex="xyz"),
        STATE,
    ),
    "spot_clearinghouse_state": (
        {"type": "spotClearinghouseState", "user": USER},
        t.SpotState,
        lambda i: i.spot_clearinghouse_state(),
        SPOT,
    ),
    "active_asset_data": (
        {"type": "activeAssetData", "user": USER, "coin": "BTC"},
        t.ActiveAssetData,
        lambda i: i.active_asset_data("BTC"),
        ASSET_DATA,
    ),
    "sub_accounts": ({"type": "subAccounts", "user": USER}, list[t.SubAccount], lambda i: i.sub_accounts(), [SUB]),
    "sub_accounts2": ({"type": "subAccounts2", "user": USER}, list[t.SubAccount], lambda i: i.sub_accounts2(), [SUB2]),
    "user_role": (
        {"type": "userRole", "user": USER},
        t.UserRole,
        lambda i: i.user_role(),
        {"role": "agent", "data": {"user": OTHER}},
    ),
    "user_rate_limit": (
        {"type": "userRateLimit", "user": USER},
        t.UserRateLimit,
        lambda i: i.user_rate_limit(),
        {
            "cumVlm": "170043721737.45",
            "nRequestsUsed": 36589831368,
            "nRequestsCap": 170043731737,
            "nRequestsSurplus": 0,
        },
    ),
    "user_fees": ({"type": "userFees", "user": USER}, t.UserFees, lambda i: i.user_fees(), FEES),
    "extra_agents": (
        {"type": "extraAgents", "user": USER},
        list[t.ExtraAgent],
        lambda i: i.extra_agents(),
        [{"name": "ok", "address": OTHER, "validUntil": None}],
    ),
    "max_builder_fee": (
        {"type": "maxBuilderFee", "user": USER, "builder": OTHER},
        int,
        lambda i: i.max_builder_fee(OTHER.upper().replace("X", "x")),
        10,
    ),
    "approved_builders": (
        {"type": "approvedBuilders", "user": USER},
        list[str],
        lambda i: i.approved_builders(),
        [OTHER],
    ),
    "portfolio": (
        {"type": "portfolio", "user": USER},
        dict[str, t.PortfolioPeriod],
        lambda i: i.portfolio(),
        [["day", PERIOD], ["perpAllTime", PERIOD]],
    ),
    "referral": ({"type": "referral", "user": USER}, t.Referral, lambda i: i.referral(), REFERRAL),
    "vault_details": (
        {"type": "vaultDetails", "vaultAddress": OTHER, "user": USER},
        t.VaultDetails,
        lambda i: i.vault_details(OTHER, USER),
        VAULT,
    ),
    "user_vault_equities": (
        {"type": "userVaultEquities", "user": USER},
        list[t.VaultEquity],
        lambda i: i.user_vault_equities(),
        [{"vaultAddress": OTHER, "equity": "688536.0314879999", "lockedUntilTimestamp": T0}],
    ),
    "leading_vaults": (
        {"type": "leadingVaults", "user": USER},
        list[t.LeadingVault],
        lambda i: i.leading_vaults(),
        [{"address": OTHER, "name": "mine"}],
    ),
    "user_abstraction": (
        {"type": "userAbstraction", "user": USER},
        str,
        lambda i: i.user_abstraction(),
        "unifiedAccount",
    ),
    "twap_history": (
        {"type": "twapHistory", "user": USER},
        list[t.TwapHistoryEntry],
        lambda i: i.twap_history(),
        [TWAP],
    ),
    "delegator_history": (
        {"type": "delegatorHistory", "user": USER},
        list[t.DelegatorUpdate],
        lambda i: i.delegator_history(),
        [{"time": T0, "hash": HASH, "delta": {"cDeposit": {"amount": "89968.0"}}}],
    ),
    "open_orders": (
        {"type": "openOrders", "user": USER},
        list[t.OpenOrder],
        lambda i: i.open_orders(),
        [OPEN_ORDER],
    ),
    "frontend_open_orders": (
        {"type": "frontendOpenOrders", "user": USER, "dex": "xyz"},
        list[t.FrontendOrder],
        lambda i: i.frontend_open_orders(dex="xyz"),
        [FRONTEND],
    ),
    "order_status": (
        {"type": "orderStatus", "user": USER, "oid": CLOID},
        t.OrderStatus,
        lambda i: i.order_status(CLOID),
        {"status": "order", "order": KNOWN},
    ),
    "user_fills": (
        {"type": "userFills", "user": USER, "aggregateByTime": True},
        list[t.UserFill],
        lambda i: i.user_fills(aggregate_by_time=True),
        [FILL],
    ),
    "fills": (
        {"type": "userFillsByTime", "user": USER, "startTime": T0 - 5, "endTime": T0 + 99},
        list[t.UserFill],
        lambda i: listed(i.fills(T0 - 5, T0 + 99)),
        [FILL],
    ),
    "twap_slice_fills": (
        {"type": "userTwapSliceFillsByTime", "user": USER, "startTime": T0 - 5},
        list[t.TwapSliceFill],
        lambda i: listed(i.twap_slice_fills(T0 - 5)),
        [{"fill": FILL, "twapId": 9}],
    ),
    "historical_orders": (
        {"type": "historicalOrders", "user": USER},
        list[t.HistoricalOrder],
        lambda i: listed(i.historical_orders()),
        [KNOWN],
    ),
    "funding_history": (
        {"type": "fundingHistory", "coin": "BTC", "startTime": T0 - 5},
        list[t.FundingRate],
        lambda i: listed(i.funding_history("BTC", T0 - 5)),
        [FUNDING],
    ),
    "user_funding": (
        {"type": "userFunding", "user": USER, "startTime": T0 - 5},
        list[t.UserFunding],
        lambda i: listed(i.user_funding(T0 - 5)),
        [USER_FUNDING],
    ),
    "ledger": (
        {"type": "userNonFundingLedgerUpdates", "user": USER, "startTime": T0 - 5},
        list[t.LedgerUpdate],
        lambda i: listed(i.ledger(T0 - 5)),
        LEDGER,
    ),
}


async def listed(rows: Any) -> list[Any]:
    return [row async for row in rows]
