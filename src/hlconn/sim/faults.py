"""What can go wrong, on purpose: single shots and seeded plans, all on the venue's clock."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError

__all__ = ["CONNECTION_FAULTS", "FAULTS", "Fault", "Faults", "load_plan"]

#: Those of a connection: they strike at `after_ms`, and again about every `every_ms`.
CONNECTION_FAULTS = {
    "close": "a close frame with code 1000 and the reason Expired, as the real venue's",
    "abort": "the socket ends without a close frame",
    "reset": "the socket is reset",
    "half_open": "nothing is sent and nothing is read any more, and the socket stays open",
    "stall": "nothing is sent for `ms`, then everything at once",
    "mid_frame": "half a frame, then the end of the socket",
    "garbage": "a text message that is no JSON",
    "bad_frame": "bytes that are no WebSocket frame",
    "huge": "a message of `size` bytes on an unknown channel",
    "unknown_channel": "a message on a channel that does not exist",
}
#: Those of messages, requests and answers: they strike whatever fits, with probability `p`.
FAULTS = CONNECTION_FAULTS | {
    "drop": "a message of `channel` is not sent",
    "duplicate": "a message of `channel` is sent twice",
    "delay": "a message of `channel` comes `ms` later, behind others",
    "reorder": "a message of `channel` comes after the next one of any channel",
    "lose_ack": "a subscription works, but nothing says so",
    "ack_only": "a subscription is acknowledged, but brings nothing",
    "lose_action": "an action never takes effect, and nothing answers it",
    "lose_answer": "an action takes effect, and nothing answers it",
    "late_action": "an action waits `ms` until it is judged, and is answered then",
    "late_unanswered": "an action waits `ms` until it is judged, and nothing answers it",
    "answer_twice": "the answer of an action comes twice (WebSocket)",
    "http_status": "a request is answered with `status` and has no effect; `channel` info or exchange",
    "http_cut": "the connection of a request ends, and the request has no effect; `channel` info or exchange",
    "http_empty": "a request is answered with 200 and nothing; an action takes effect",
    "http_null": "a request is answered with 200 and null; an action takes effect",
    "slow": "a request is looked at only after `ms`; `channel` info or exchange",
    "skew": "the venue's clock is put forward by `ms`, at `after_ms` (back, when negative)",
}


_FIELDS: tuple[tuple[tuple[str, ...], tuple[type, ...], str], ...] = (
    (("p",), (int, float), "a number"),
    (("after_ms", "ms", "status", "size", "hits"), (int,), "a whole number"),
    (("count", "until_ms", "every_ms", "retry_after_s"), (int, type(None)), "a whole number or nothing"),
    (("channel",), (str, type(None)), "a name or nothing"),
    (("body",), (str,), "a text"),
)


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong. kind: a key of `FAULTS`, which says what it does.

    channel: the WebSocket channel ("post" for answers), or "info" and "exchange" for HTTP; None for all. p: the
    probability that it strikes where it could. count: how often at most, None for without end. after_ms, until_ms: when
    it is armed, in the venue's time from when it was added. every_ms: of those of a connection, how long from one
    strike to the next on average. retry_after_s: what an answer with `status` says in its header Retry-After, None for
    no such header. hits: how often it struck.
    """

    kind: str
    channel: str | None = None
    p: float = 1.0
    count: int | None = None
    after_ms: int = 0
    until_ms: int | None = None
    every_ms: int | None = None
    ms: int = 1_000
    status: int = 502
    retry_after_s: int | None = None
    body: str = "<html>502 Bad Gateway</html>"
    size: int = 1 << 24
    hits: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in FAULTS:
            raise ConfigError(f"unknown fault {self.kind!r}: say one of {', '.join(FAULTS)}")
        for names, kinds, what in _FIELDS:
            for name in names:
                if type(value := getattr(self, name)) not in kinds:
                    raise ConfigError(f"{name} is {what}, not {value!r}")
        if not 0 <= self.p <= 1:
            raise ConfigError(f"p is a probability, from 0 to 1, not {self.p!r}")
        if self.every_ms is not None and self.every_ms <= 0:
            raise ConfigError(f"every_ms must be above 0, not {self.every_ms!r}")
        if self.every_ms is not None and not self.is_timed:
            raise ConfigError(f"{self.kind} strikes what fits, not every_ms: say p, count, after_ms, until_ms")

    @property
    def is_timed(self) -> bool:
        return self.kind in CONNECTION_FAULTS or self.kind == "skew"

    @property
    def is_spent(self) -> bool:
        return self.count is not None and self.hits >= self.count


class Faults:
    """The faults of one venue, and the dice that decide about them."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"{seed}:faults")
        self._armed: dict[str, list[tuple[Fault, float, float]]] = {}
        self._known: list[Fault] = []

    def add(self, fault: Fault, now_ms: float) -> None:
        """Know a fault from now on, and arm it unless it is timed: those strike when the venue says."""
        self._known = [known for known in self._known if not known.is_spent] + [fault]
        if not fault.is_timed:
            until_ms = float("inf") if fault.until_ms is None else now_ms + fault.until_ms
            self._armed.setdefault(fault.kind, []).append((fault, now_ms + fault.after_ms, until_ms))

    def clear(self) -> None:
        """No fault strikes any more. What one has done already stays done."""
        for fault in self._known:
            fault.count = fault.hits
        self._known.clear()
        self._armed.clear()

    @property
    def are_armed(self) -> bool:
        """Whether anything but a timed fault could strike now or later."""
        return bool(self._armed)

    def strikes(self, kind: str, now_ms: float, channel: str | None = None) -> Fault | None:
        """The fault of this kind that strikes here, if one does."""
        armed = self._armed.get(kind)
        if not armed:
            return None
        for entry in armed:
            fault, from_ms, until_ms = entry
            if fault.is_spent or now_ms > until_ms:
                armed.remove(entry)
                if not armed:
                    del self._armed[kind]
                return self.strikes(kind, now_ms, channel)
            if now_ms >= from_ms and fault.channel in (None, channel) and self.chance(fault.p):
                fault.hits += 1
                return fault
        return None

    def chance(self, p: float) -> bool:
        return p >= 1 or self._rng.random() < p

    def pause_ms(self, fault: Fault) -> float:
        """From one strike of a timed fault to the next."""
        assert fault.every_ms is not None
        return max(1.0, self._rng.expovariate(1 / fault.every_ms))


def load_plan(path: Path) -> list[Fault]:
    """Faults from a TOML file: tables `[[fault]]` with the fields of `Fault`. Raises ConfigError."""
    try:
        plan = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    if others := plan.keys() - {"fault"}:
        raise ConfigError(f"{path}: a plan has tables [[fault]] and nothing else, not {', '.join(sorted(others))}")
    return read_plan(plan.get("fault", []), str(path))


def read_plan(tables: Any, where: str) -> list[Fault]:
    known = {field.name for field in fields(Fault)} - {"hits"}
    faults = []
    for table in tables if isinstance(tables, list) else [None]:
        if not isinstance(table, dict) or "kind" not in table or table.keys() - known:
            raise ConfigError(f"{where}: a [[fault]] has a kind, and of the rest only {', '.join(sorted(known))}")
        faults.append(Fault(**table))
    return faults
