"""Positions and balances: what the venue said at one time, and what fills have changed since. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Difference", "Ledger"]

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Difference:
    """Twice in a row the venue said another amount than fills add up to. From now on the venue's counts.

    name: coin of a position, token of a balance. ours, theirs: signed, base units or tokens. Something other than a
    fill changed it (a transfer, a liquidation, an airdrop), or a fill never reached us.
    """

    name: str
    ours: Decimal
    theirs: Decimal


@dataclass(frozen=True, slots=True)
class _Change:
    time_ms: int
    name: str
    amount: Decimal
    px: Decimal


class Ledger:
    """Signed amounts by name. The order in which fills are added does not matter; each may be added once.

    A fill counts when its block is later than the time of the state it is added to: the venue's state includes the
    others.
    """

    def __init__(self) -> None:
        self.time_ms: int | None = None  # of the state below
        self.unsure_until_ms: int | None = None  # the first state may include changes from time_ms up to then
        self._base: dict[str, Decimal] = {}
        self._entry_px: dict[str, Decimal] = {}
        self._changes: list[_Change] = []
        self._px: dict[str, tuple[int, Decimal | None]] = {}  # the entry price after all changes, and their last time
        self._px_is_old: set[str] = set()  # where changes came in another order
        self._now: dict[str, Decimal] = {}  # the state and every change since
        self._in_question: list[Difference] = []

    def add(self, time_ms: int, name: str, amount: Decimal, px: Decimal = _ZERO) -> None:
        """A fill of the block of `time_ms`. amount: signed. px: quote units, for the entry price."""
        if self.time_ms is None or time_ms > self.time_ms:
            change = _Change(time_ms, name, amount, px)
            self._changes.append(change)
            before = self._now.get(name, _ZERO)
            self._now[name] = before + amount
            last_ms, entry_px = self._px.get(name, (time_ms, self._entry_px.get(name)))
            if time_ms < last_ms:
                self._px_is_old.add(name)
            else:
                self._px[name] = time_ms, _entry_after(before, entry_px, change)

    def check(
        self, time_ms: int, told: Mapping[str, Decimal], entry_px: Mapping[str, Decimal] | None = None
    ) -> list[Difference] | None:
        """Compare with the venue's state as of the block of `time_ms`, and go on from that state.

        The first state is believed. A state that differs is believed when a second one differs in the same way: until
        then None is returned, which asks for another one, as fills may be on their way. [] when all is equal.
        """
        if self.time_ms is not None:
            if time_ms < self.time_ms:  # an answer that was overtaken
                return []
            ours = self._until(time_ms)
            names = sorted(ours.keys() | told.keys())
            found = [
                Difference(name, ours.get(name, _ZERO), told.get(name, _ZERO))
                for name in names
                if ours.get(name, _ZERO) != told.get(name, _ZERO)
            ]
            if found and found != self._in_question:
                self._in_question = found
                return None
            self.unsure_until_ms = None
        else:
            found = []
        self._in_question = []
        self.time_ms = time_ms
        self._base = {name: amount for name, amount in told.items() if amount}
        self._entry_px = dict(entry_px or {})
        self._changes = [change for change in self._changes if change.time_ms > time_ms]
        self._now = self._sum(self._changes)
        self._start_px()
        return found

    def changed_between(self, after_ms: int, until_ms: int) -> bool:
        """Whether anything changed later than the one time and not later than the other."""
        return any(after_ms < change.time_ms <= until_ms for change in self._changes)

    def doubt(self, time_ms: int) -> bool:
        """Forget the first state if it may include a change of `time_ms`, of which nobody knew. True: it was so."""
        if self.time_ms is None or self.unsure_until_ms is None or not self.time_ms < time_ms <= self.unsure_until_ms:
            return False
        self.time_ms, self._base, self._entry_px, self._in_question = None, {}, {}, []
        self._now = self._sum(self._changes)
        self._start_px()
        return True

    def amount(self, name: str) -> Decimal:
        """What there is now."""
        return self._now.get(name, _ZERO)

    def amounts(self) -> dict[str, Decimal]:
        """All that are not zero."""
        return {name: amount for name, amount in self._now.items() if amount}

    def entry_px(self, name: str) -> Decimal | None:
        """Average price of what is open, from the venue's and the fills since; None when flat or not known."""
        if name in self._px_is_old:
            self._px_is_old.discard(name)
            amount, px = self._base.get(name, _ZERO), self._entry_px.get(name)
            changes = sorted((c for c in self._changes if c.name == name), key=lambda c: c.time_ms)
            for change in changes:
                px = _entry_after(amount, px, change)
                amount += change.amount
            self._px[name] = changes[-1].time_ms, px
        _, px = self._px.get(name, (0, self._entry_px.get(name)))
        return px if self._now.get(name) else None

    def _start_px(self) -> None:
        """Entry prices anew, from the state and the changes since."""
        self._px = {}
        self._px_is_old = {change.name for change in self._changes}

    def _until(self, time_ms: int) -> dict[str, Decimal]:
        return self._sum(change for change in self._changes if change.time_ms <= time_ms)

    def _sum(self, changes: Iterable[_Change]) -> dict[str, Decimal]:
        total = defaultdict[str, Decimal](Decimal, self._base)
        for change in changes:
            total[change.name] += change.amount
        return dict(total)


def _entry_after(amount: Decimal, px: Decimal | None, change: _Change) -> Decimal | None:
    """The entry price of what is open after a change of `amount`, whose entry price was px."""
    after = amount + change.amount
    if not amount or amount * after < 0:
        return change.px
    if abs(after) > abs(amount) and px is not None:
        return (px * amount + change.px * change.amount) / after
    return px
