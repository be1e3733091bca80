"""The error tree. Each class answers first: may my order be live?

`NotSent`: nothing left this machine.  The classes for what did leave it (refused, outcome unknown) come with trading;
what is here is what a user of market data, or of orders not yet sent, can meet.
"""

from __future__ import annotations

__all__ = [
    "Closed",
    "ConfigError",
    "DecodeError",
    "HlconnError",
    "InvalidOrder",
    "LinkDown",
    "NotSent",
    "SubscriptionRefused",
    "UnknownCoin",
]

_EXCERPT_BYTES = 80


class HlconnError(Exception):
    """Base of every error that hlconn raises on purpose."""


class ConfigError(HlconnError):
    """Settings that cannot work. Raised at construction, before anything is connected or sent."""


class NotSent(HlconnError):
    """Nothing left this machine: no order of yours can be live because of this call."""


class InvalidOrder(NotSent):
    """A value that the venue would refuse, or that would not mean what it says.

    nearest: the closest valid px or sz, below and above, as wire text; only one where the other would be zero,
    empty where no number would help.
    """

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message, nearest)
        self.message, self.nearest = message, nearest

    def __str__(self) -> str:
        return self.message


class UnknownCoin(InvalidOrder, KeyError):
    """No instrument goes by this name: misspelt, ambiguous, or disabled because its metadata is odd.

    Also a KeyError, for it is what a mapping raises. The message says which of the three it is.
    """


class LinkDown(NotSent):
    """There is no live connection, and none could be made in time. `cause` is what the last try said."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class Closed(NotSent):
    """The object was closed. Make a new one with `hlconn.connect()`."""


class SubscriptionRefused(HlconnError):
    """The venue refused a subscription; `message` is its own text.

    subscription: the object that was sent, as a dict. Nothing arrives for it until it is asked for again.
    """

    def __init__(self, subscription: dict[str, object], message: str) -> None:
        super().__init__(subscription, message)
        self.subscription, self.message = subscription, message

    def __str__(self) -> str:
        return f"the venue refused {self.subscription}: {self.message!r}. Check the coin's spelling and the parameters."


class DecodeError(HlconnError):
    """A message that could not be read. Nothing already known was changed by it.

    channel: the message's channel, "" when even that could not be read.
    offset: of the first byte that could not be read, from the start of the message.
    excerpt: at most 80 bytes of the message from `offset` on.
    reason: what was wrong, in words.
    """

    def __init__(self, channel: str, offset: int, excerpt: bytes, reason: str) -> None:
        excerpt = bytes(excerpt[:_EXCERPT_BYTES])
        super().__init__(channel, offset, excerpt, reason)
        self.channel, self.offset, self.excerpt, self.reason = channel, offset, excerpt, reason

    def __str__(self) -> str:
        where = f"{self.channel} message" if self.channel else "message"
        found = repr(self.excerpt) if self.excerpt else "the end of the message"
        return f"{where}: {self.reason} at byte {self.offset}, found {found}"
