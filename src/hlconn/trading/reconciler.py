"""Asks the venue what its news left open, until nothing is, and compares what is known with what it has.

Everything is asked over HTTP, also while a link is live: answers to queries and the streams then cannot delay each
other, and the proof works when the link does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from ..config import TradingConfig
from ..errors import ErrorCode, LinkDown, NotSent, QueryFailed
from ..responses import read_info
from ..types import Cloid
from .orders import OrderTable, Question, Reconciled
from .outbox import Outbox, Timer, Wire, pause

__all__ = ["USER_STREAMS", "Reconciler"]

_log = logging.getLogger("hlconn.trading")

USER_STREAMS = ("orderUpdates", "userFills", "userEvents")
_FILL_OVERLAP_MS = 60_000  # asked for again after a gap: fills of one block can reach us late
_FILL_ROWS = 2000  # of one answer of userFillsByTime


class Reconciler:
    """One account's questions. For the loop's thread only.

    table: what is asked for and believed. outbox: whose noops are sent again with every round. dispatch(): called when
    the table may have something to tell. ready: set once everything was compared for the first time.
    """

    def __init__(
        self,
        wire: Wire,
        table: OrderTable,
        outbox: Outbox,
        config: TradingConfig,
        *,
        account: str,
        dispatch: Callable[[], object],
    ) -> None:
        self.ready = asyncio.Event()
        self._wire, self._table, self._outbox, self._config = wire, table, outbox, config
        self._account, self._dispatch = account, dispatch
        self._loop = asyncio.get_running_loop()
        self._dexs = dict.fromkeys(config.dexs)
        self._unacknowledged: set[str] = set(USER_STREAMS)
        self._connects = 0
        self._to_reconcile = ""  # why open orders, fills and positions are to be compared
        self._pause_s = config.retry_min_s
        self._pause: asyncio.Future[None] | None = None
        self._work_to_do = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._on_bug: Callable[[BaseException], object] = lambda exc: None
        self._reconcile_timer: Timer | None = None
        self._fills_until_ms = 0  # venue time of the last state before which all fills were asked for

    def start(self, on_bug: Callable[[BaseException], object]) -> None:
        """Begin to ask and to compare. on_bug: of ours, after which nothing is proven any more."""
        self._on_bug = on_bug
        self._worker = self._loop.create_task(self._work(), name="hlconn trading")
        self._worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (exc := worker.exception()) is not None:  # a bug of ours: nothing is proven now
            _log.critical("trading can prove nothing any more", exc_info=exc)
            self._on_bug(exc)

    def close(self) -> list[asyncio.Task[None]]:
        """Ask no more. Gives the task that ends with that."""
        if self._reconcile_timer is not None:
            self._reconcile_timer.cancel()
        if self._worker is None:
            return []
        self._worker.cancel()
        return [self._worker]

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait for the first comparison: orders and positions are known from then on. LinkDown after `timeout_s`."""
        looked = self._loop.create_task(self.ready.wait())
        try:
            await pause(self._wire, timeout_s, looked)
            if not looked.done():
                raise LinkDown(f"the account {self._account} could not be read within {timeout_s:g} s: see the log")
        finally:
            looked.cancel()

    def on_subscribed(self, subscription: Mapping[str, Any]) -> None:
        """The venue acknowledged a stream. Only what is asked for after that has no gap before the stream."""
        self._unacknowledged.discard(str(subscription.get("type")))
        if not self._unacknowledged:
            self._connects += 1
            self.compare_soon("connected" if self._connects == 1 else "reconnected")

    def on_down(self) -> None:
        """The link is gone, and with it the streams."""
        self._unacknowledged = set(USER_STREAMS)

    # --- when to ask ---

    @property
    def is_busy(self) -> bool:
        """Something is to be asked or compared."""
        return bool(self._to_reconcile) or self.has_questions

    @property
    def has_questions(self) -> bool:
        return self._table.has_questions or any(
            flight.expires_after is not None or self._outbox.is_burning(flight) for flight in self._table.doubts
        )

    def compare_soon(self, reason: str) -> None:
        self._to_reconcile = reason
        self.hurry()

    def after_news(self) -> None:
        """What was told may call for a comparison, or a question."""
        if self._table.to_compare:
            reason, self._table.to_compare = self._table.to_compare, ""
            self._dexs |= self._table.dexs
            if self._connects:
                self.compare_soon(reason)
        if self.is_busy:
            self.wake()

    def wake(self) -> None:
        """Look once what there is to do, after the present pause."""
        self._work_to_do.set()

    def add_dex(self, dex: str) -> None:
        """Look at its orders and positions from now on."""
        if dex not in self._dexs:
            self._dexs[dex] = None
            if self._connects:  # else the first comparison is still to come
                self.compare_soon("another dex")

    def hurry(self) -> None:
        """There is a new doubt: do not wait for the end of a pause made for old ones."""
        self._pause_s = self._config.retry_min_s
        self._work_to_do.set()
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    # --- asking ---

    async def _work(self) -> None:
        """Ask until nothing is open, with growing pauses while nothing changes; then wait for the next doubt."""
        while True:
            if not self.is_busy:
                self._pause_s = self._config.retry_min_s
                self._work_to_do.clear()
                await self._work_to_do.wait()
            try:
                await self._round()
            except (QueryFailed, NotSent) as exc:
                if _unreadable(exc):
                    _log.error("an answer to a query could not be read, asking again in %.2f s", self._pause_s)
                    _log.debug("the answer that could not be read", exc_info=exc)
                else:
                    _log.info("the venue could not be asked, trying again in %.2f s: %s", self._pause_s, exc)
            self._dispatch()
            if self.is_busy:
                pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, self._config.retry_max_s)
                self._pause = self._loop.create_future()
                await pause(self._wire, pause_s, self._pause)
                self._pause = None

    async def _round(self) -> None:
        failure: Exception | None = None
        if self._to_reconcile:
            reason, self._to_reconcile = self._to_reconcile, ""
            agreed = False
            try:
                agreed = await self.compare(reason)
            except (QueryFailed, NotSent) as exc:
                failure = exc  # what can be asked is asked all the same
            finally:
                if not agreed:
                    self._to_reconcile = self._to_reconcile or reason
        self._outbox.burn_again()
        now_ms = self._wire.time_ms()  # it measures no more than the time since we signed: what counts is the venue's
        if self._table.awaits_time(now_ms):
            status = await self._query("exchangeStatus")
            with _reading("exchangeStatus"):
                self._table.venue_time(status["time"], int(self._config.expiry_margin_s * 1000))
        for question in self._table.questions():
            try:
                await self._ask(question)
            except QueryFailed as exc:
                if not _unreadable(exc):
                    raise
                failure = exc  # the others may be answered better
        if failure is not None:
            raise failure

    async def _ask(self, question: Question) -> None:
        mark = self._table.mark()
        subject = question.subject
        if subject is None:
            rows = await self._query("historicalOrders", user=self._account)
            with _reading("historicalOrders"):
                self._table.on_history(mark, rows)
        else:
            oid = subject.hex if isinstance(subject, Cloid) else subject
            reply = await self._query("orderStatus", user=self._account, oid=oid)
            with _reading("orderStatus"):
                self._table.on_status(mark, subject, reply)
        self._dispatch()

    async def compare(self, reason: str) -> bool:
        """False: positions or balances differ, and should be compared once more before that is believed."""
        await self.open_orders(None)
        states = {
            dex: await self._query("clearinghouseState", user=self._account, **_dex(dex)) for dex in list(self._dexs)
        }
        with _reading("clearinghouseState"):
            times = [state["time"] + 0 for state in states.values()]
            time_ms = min(times)
            self._outbox.behind_ms = max(times) - self._wire.time_ms()
        if self.ready.is_set():
            await self._look_for_fills()
        self._fills_until_ms = max(self._fills_until_ms, time_ms)
        with _reading("clearinghouseState"):
            self._table.begin(states[next(iter(states))]["time"])
            agreed = [self._table.on_positions(dex, state) for dex, state in states.items()]
        spot = await self._query("spotClearinghouseState", user=self._account)
        until_ms = None
        if self._table.ledgers["spot"].time_ms is None:  # its time is somewhere between those of two other states
            later = await self._query("clearinghouseState", user=self._account, **_dex(next(iter(states))))
            with _reading("clearinghouseState"):
                until_ms = later["time"]
        with _reading("spotClearinghouseState"):
            agreed.append(self._table.on_balances(time_ms, spot, until_ms))
        if all(agreed):
            self._table.note(Reconciled(reason))
            self.ready.set()
            if self._reconcile_timer is not None:
                self._reconcile_timer.cancel()
            self._reconcile_timer = self._wire.call_later(self._config.reconcile_every_s, self._compare_again)
        return all(agreed)

    def _compare_again(self) -> None:
        self.compare_soon("the time had come")

    async def open_orders(self, coin: str | None) -> dict[int | Cloid, str]:
        """The oids that the venue lists as open now, of one coin or of all, with their coins."""
        listed: dict[int | Cloid, str] = {}
        for dex in list(self._dexs):
            mark = self._table.mark()
            rows = await self._query("frontendOpenOrders", user=self._account, **_dex(dex))
            with _reading("frontendOpenOrders"):
                self._table.on_open_orders(mark, dex, rows)
            listed |= {row["oid"]: row["coin"] for row in rows if coin in (None, row["coin"])}
        self._dispatch()
        return listed

    async def _look_for_fills(self) -> None:
        """Those since the last look: what the streams brought meanwhile need not be all that there was."""
        start_ms = max(0, self._fills_until_ms - _FILL_OVERLAP_MS)
        while True:
            rows = await self._query("userFillsByTime", user=self._account, startTime=start_ms)
            with _reading("userFillsByTime"):
                self._table.on_fills(rows)
            if len(rows) < _FILL_ROWS:
                return
            newest_ms = max(row["time"] for row in rows)
            start_ms = max(newest_ms, start_ms + 1)

    async def _query(self, kind: str, **fields: Any) -> Any:
        """One info request over HTTP. QueryFailed, or LinkDown when nothing was sent."""
        try:
            status, body = await self._wire.post("/info", orjson.dumps({"type": kind, **fields}))
        except NotSent:
            raise
        except Exception as exc:
            raise QueryFailed(0, ErrorCode.UNAVAILABLE, f"{type(exc).__name__}: {exc}") from exc
        return read_info(status, body)


def _unreadable(exc: Exception) -> bool:
    return isinstance(exc, QueryFailed) and exc.code is ErrorCode.UNREADABLE


@contextmanager
def _reading(kind: str) -> Iterator[None]:
    """What the venue answered is read in here, and nothing else done: our own bugs elsewhere are not taken for its."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise QueryFailed(200, ErrorCode.UNREADABLE, f"the answer to {kind}: {exc!r}") from exc


def _dex(dex: str) -> dict[str, str]:
    return {"dex": dex} if dex else {}
