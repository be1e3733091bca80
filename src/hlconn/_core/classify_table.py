"""The venue's words and what they mean: the only place to edit when its texts drift.

`PARTS`: the distinctive part of a text, in lower case, anywhere in it. When a text has several, the one that stands
first here wins; so texts that quote others, or the request, come first, and a part stands before its own parts.
`STATUSES`: order statuses as the venue spells them. Source of both: the venue's docs and what clients have seen;
rows marked "expected" were asked for and have not been seen.
"""

from __future__ import annotations

from ..errors import ErrorCode as E

__all__ = ["MIN_PART", "PARTS", "STATUSES"]

#: Bytes that every part has at least: the matcher looks at every fourth place only.
MIN_PART = 11

PARTS: list[tuple[str, E]] = [
    # texts that quote something: a request, or another text
    ("error parsing json into valid websocket request", E.MALFORMED),
    ("failed to deserialize the json body", E.MALFORMED),
    ("invalid subscription", E.INVALID_SUBSCRIPTION),
    ("already subscribed", E.ALREADY_SUBSCRIBED),
    ("already unsubscribed", E.ALREADY_UNSUBSCRIBED),
    ("unable to grab order book snapshot", E.BOOK_NOT_READY),
    ("error placing new order during modify", E.MODIFY_OLD_ORDER_GONE),
    ("error deploying spot", E.DEPLOY),
    ("error deploying outcome", E.DEPLOY),
    # TWAP, before the orders whose words it repeats
    ("twap was never placed", E.TWAP_NOT_FOUND),
    ("invalid twap duration", E.TWAP_DURATION),
    ("twap order value too", E.TWAP_VALUE),
    ("reduce-only twap order would increase position", E.REDUCE_ONLY),
    ("max number of active twap orders", E.TOO_MANY_TWAPS),
    # the order itself
    ("divisible by tick size", E.TICK),
    ("minimum value of", E.MIN_NOTIONAL),
    ("order value too large", E.MAX_NOTIONAL),
    ("order has zero size", E.ZERO_SIZE),
    ("order has invalid size", E.LOT),
    ("order has invalid price", E.INVALID_PRICE),
    ("orders are empty", E.EMPTY_BATCH),
    ("empty batch of orders", E.EMPTY_BATCH),
    ("invalid tif", E.INVALID_TIF),
    ("invalid spot", E.INVALID_ASSET),
    ("different asset classes", E.MIXED_ASSET_CLASSES),
    ("nonzero cloid is required", E.CLOID_REQUIRED),
    ("larger than half of total supply", E.MAX_SUPPLY),
    ("invalid tp/sl price", E.TRIGGER_PRICE),
    ("unexpected number of trigger orders", E.TRIGGER_GROUP),
    ("trigger order is not reduce only", E.TRIGGER_GROUP),
    ("trigger order has unexpected side", E.TRIGGER_GROUP),
    ("reduce-only is invalid for spot", E.REDUCE_ONLY_SPOT),
    ("builder fee has not been approved", E.BUILDER_FEE_NOT_APPROVED),
    ("invalid time interval", E.INVALID_TIME_INTERVAL),  # expected
    # the market
    ("would have immediately matched", E.POST_ONLY_WOULD_MATCH),
    ("post-only would match", E.POST_ONLY_WOULD_MATCH),  # expected
    ("could not immediately match", E.IOC_NO_MATCH),
    ("no liquidity available", E.NO_LIQUIDITY),
    ("price too far from oracle", E.TOO_FAR_FROM_ORACLE),
    ("away from the reference price", E.TOO_FAR_FROM_REFERENCE),
    ("more aggressive than oracle", E.OPEN_INTEREST_CAP_PRICE),
    ("asset open interest is at cap", E.OPEN_INTEREST_CAP_PRICE),
    ("open interest while open interest is capped", E.OPEN_INTEREST_CAP),
    ("position when open interest is at cap", E.OPEN_INTEREST_CAP),
    ("open interest too quickly", E.OPEN_INTEREST_TOO_FAST),
    ("open interest is increasing too quickly", E.OPEN_INTEREST_TOO_FAST),
    ("trading is halted", E.MARKET_CLOSED),
    ("market closed", E.MARKET_CLOSED),  # expected
    ("market is closed", E.MARKET_CLOSED),  # expected
    ("only post-only orders allowed", E.ONLY_POST_ONLY),
    ("outcome has been settled", E.OUTCOME_SETTLED),
    # funds and positions
    ("sufficient margin available to decrease leverage", E.INSUFFICIENT_MARGIN),
    ("insufficient margin", E.INSUFFICIENT_MARGIN),
    ("insufficient balance for token transfer gas", E.INSUFFICIENT_GAS),
    ("insufficient gas", E.INSUFFICIENT_GAS),
    ("insufficient delegatable balance", E.INSUFFICIENT_STAKE),
    ("insufficient stake", E.INSUFFICIENT_STAKE),
    ("insufficient spot balance", E.INSUFFICIENT_BALANCE),
    ("insufficient balance", E.INSUFFICIENT_BALANCE),
    ("insufficient funds", E.INSUFFICIENT_BALANCE),
    ("reduce only order would increase position", E.REDUCE_ONLY),
    ("position not found", E.POSITION_NOT_FOUND),  # expected
    ("exceed margin tier limit", E.MAX_POSITION),
    ("exceed maximum position size", E.MAX_POSITION),
    ("too many open orders", E.TOO_MANY_OPEN_ORDERS),
    ("cross margin currently only supports reduce-only", E.CROSS_MARGIN),
    ("cross margin disabled", E.CROSS_MARGIN),
    ("cross margin is not allowed", E.CROSS_MARGIN),
    ("does not use isolated margin", E.NOT_ISOLATED),
    ("cannot switch leverage type", E.LEVERAGE_TYPE_FIXED),
    # orders that exist, or do not
    ("was never placed", E.ORDER_NOT_FOUND),
    ("missingorder", E.ORDER_NOT_FOUND),
    ("order not found", E.ORDER_NOT_FOUND),  # expected
    ("cannot modify canceled or filled order", E.CANNOT_MODIFY),
    ("modify to invalid new order", E.MODIFY_INVALID),
    ("too many scheduled cancels", E.SCHEDULED_CANCEL_LIMIT),
    ("until enough volume traded", E.VOLUME_TOO_LOW),
    # signer, nonce, account
    ("user or api wallet", E.UNKNOWN_WALLET),
    ("must deposit before performing actions", E.MUST_DEPOSIT),
    ("unable to recover signer", E.BAD_SIGNATURE),
    ("mainnet and testnet require different signature", E.WRONG_NETWORK),
    ("vault not registered", E.UNKNOWN_VAULT),
    ("invalid sub-account transfer", E.UNKNOWN_SUB_ACCOUNT),
    ("is not registered to", E.UNKNOWN_SUB_ACCOUNT),
    ("duplicate nonce", E.NONCE_DUPLICATE),
    ("nonce too low", E.NONCE_TOO_LOW),
    ("nonce too high", E.NONCE_TOO_HIGH),
    ("nonce mismatch", E.NONCE_MISMATCH),
    ("invalid nonce", E.NONCE_INVALID),
    ("action already expired", E.EXPIRED),
    ("too many cumulative requests", E.ADDRESS_LIMITED),
    ("agent can only send asset", E.AGENT),
    ("too many extra agents", E.AGENT),
    ("extra agent already used", E.AGENT),
    ("agent valid_until", E.AGENT),
    ("pending agent removal", E.AGENT),
    ("multi-sig required", E.MULTI_SIG_REQUIRED),
    ("multi-sig threshold not met", E.MULTI_SIG_SIGNER),
    ("invalid multi-sig inner signer", E.MULTI_SIG_SIGNER),
    ("invalid multi-sig outer signer", E.MULTI_SIG_SIGNER),
    ("multi-sig outer signer must be", E.MULTI_SIG_SETUP),
    ("invalid multi-sig user", E.MULTI_SIG_SETUP),
    ("invalid multi-sig threshold", E.MULTI_SIG_SETUP),
    ("multi-sig authorized user", E.MULTI_SIG_SETUP),
    ("too many multi-sig signers", E.MULTI_SIG_SETUP),
    # account actions
    ("disabled when unified account is active", E.ACCOUNT_MODE),
    ("abstraction transition not allowed", E.ACCOUNT_MODE),
    ("portfolio margin requires account value", E.ACCOUNT_MODE),
    ("only leader can perform", E.VAULT_LEADER_ONLY),
    ("referral code not registered", E.REFERRAL_CODE),
    ("no rewards to claim", E.NOTHING_TO_CLAIM),
    ("staking link error", E.STAKING),
    ("unknown validator", E.STAKING),
    ("signer invalid or inactive for current epoch", E.STAKING),
    ("unexpected error (code=", E.UNEXPECTED),
    # the WebSocket
    ("cannot track more than", E.TOO_MANY_USERS),
    ("too many pending post requests", E.TOO_MANY_PENDING),
    ("order book not ready", E.BOOK_NOT_READY),
    # HTTP, in words
    ("too many requests", E.RATE_LIMITED),
    ("rate limited", E.RATE_LIMITED),  # expected
    ("restricted jurisdiction", E.FORBIDDEN),
    ("internal server error", E.SERVER_ERROR),
    ("bad gateway", E.UNAVAILABLE),
    ("service unavailable", E.UNAVAILABLE),
    ("gateway timeout", E.UNAVAILABLE),
    ("gateway time-out", E.UNAVAILABLE),
    ("connection timeout", E.CONNECTION_TIMEOUT),  # expected
    ("connection timed out", E.CONNECTION_TIMEOUT),  # expected
    ("request timeout", E.CONNECTION_TIMEOUT),
    ("request timed out", E.CONNECTION_TIMEOUT),  # expected
    ("internal error", E.SERVER_ERROR),  # expected
]

STATUSES: dict[str, E] = {
    "open": E.NONE,
    "triggered": E.NONE,
    "filled": E.NONE,
    "accepted": E.NONE,
    "canceled": E.CANCELED,
    "rejected": E.REJECTED,
    "unknownOid": E.ORDER_NOT_FOUND,  # the answer of an orderStatus query
    "marginCanceled": E.INSUFFICIENT_MARGIN,
    "vaultWithdrawalCanceled": E.VAULT_WITHDRAWAL,
    "openInterestCapCanceled": E.OPEN_INTEREST_CAP_PRICE,
    "selfTradeCanceled": E.SELF_TRADE,
    "reduceOnlyCanceled": E.REDUCE_ONLY,
    "siblingFilledCanceled": E.SIBLING_FILLED,
    "delistedCanceled": E.DELISTED,
    "liquidatedCanceled": E.LIQUIDATED,
    "scheduledCancel": E.SCHEDULED_CANCEL,
    "outcomeSettledCanceled": E.OUTCOME_SETTLED,
    "internalCancel": E.INTERNAL_CANCEL,
    "perpMaxPositionCanceled": E.MAX_POSITION,
    "tickRejected": E.TICK,
    "minTradeNtlRejected": E.MIN_NOTIONAL,
    "minTradeSpotNtlRejected": E.MIN_NOTIONAL,
    "perpMarginRejected": E.INSUFFICIENT_MARGIN,
    "reduceOnlyRejected": E.REDUCE_ONLY,
    "badAloPxRejected": E.POST_ONLY_WOULD_MATCH,
    "iocCancelRejected": E.IOC_NO_MATCH,
    "badTriggerPxRejected": E.TRIGGER_PRICE,
    "marketOrderNoLiquidityRejected": E.NO_LIQUIDITY,
    "positionIncreaseAtOpenInterestCapRejected": E.OPEN_INTEREST_CAP,
    "positionFlipAtOpenInterestCapRejected": E.OPEN_INTEREST_CAP,
    "tooAggressiveAtOpenInterestCapRejected": E.OPEN_INTEREST_CAP_PRICE,
    "openInterestIncreaseRejected": E.OPEN_INTEREST_TOO_FAST,
    "insufficientSpotBalanceRejected": E.INSUFFICIENT_BALANCE,
    "oracleRejected": E.TOO_FAR_FROM_ORACLE,
    "perpMaxPositionRejected": E.MAX_POSITION,
    "tooManyOpenOrdersRejected": E.TOO_MANY_OPEN_ORDERS,
    "outcomeSettledRejected": E.OUTCOME_SETTLED,
    "hip3CrossMarginReduceOnly": E.CROSS_MARGIN,
    "hip3CrossMarginDisabled": E.CROSS_MARGIN,
}
