"""Carries out the effects of a `Pool` of links on asyncio and picows: sockets, timers, callbacks.

Everything happens on the loop's thread. One task lives exactly as long as a socket and the attempt to open it; nothing
else outlives a call. The data path does not pass through here: picows calls the listener, the listener the feed.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, Protocol

import picows
from picows import WSCloseCode, WSMsgType, WSTransport, ws_connect

from ..config import Endpoints, SessionConfig
from ..errors import Closed, DecodeError, LinkDown
from .link import (
    Connect,
    Disconnect,
    Down,
    Effect,
    Forward,
    Link,
    LinkState,
    PostAnswered,
    PostLost,
    Refused,
    Send,
    StateChanged,
    Subscribed,
    Up,
)
from .pool import Pool
from .pylistener import FeedListener

__all__ = ["Driver", "FeedLike", "listener_class"]

_log = logging.getLogger("hlconn.session")

_LINK_CHANNELS = frozenset(("pong", "subscriptionResponse", "error", "post"))
_CLOSE_TIMEOUT_S = 1.0  # for the venue to answer our goodbye; then the socket is cut
_SILENT_PERIODS = 3  # periods without a message after which a periodic feed counts as silent


class FeedLike(Protocol):
    """What the session needs of a feed.

    failed: (channel, coin) when the exception that `on_message` just raised came from a callback; None when the
    message was bad.
    on_raw: sets the hook that gets the messages of channels the feed does not read itself. link: that of the message
    in hand.
    flow(subscription, link): messages of it that this link brought so far, -1 when that is not counted.
    """

    @property
    def wants_burst_end(self) -> bool: ...

    @property
    def failed(self) -> tuple[str, str] | None: ...
    @property
    def link(self) -> int: ...
    def on_message(self, message: memoryview, recv_ns: int = 0, link: int = 0) -> object: ...
    def on_burst_end(self) -> object: ...
    def on_raw(self, callback: Callable[[str, bytes], None]) -> object: ...
    def mark_stale(self, reason: str) -> object: ...
    def mark_silent(self, now_ns: int, slow_ns: int, fast_ns: int) -> object: ...
    def flow(self, subscription: Mapping[str, Any], link: int) -> int: ...


@functools.cache  # so that the line below is logged once
def listener_class() -> type[Any]:
    """The compiled listener when it was built for the picows that is installed, else the one in Python.

    The compiled one is made with the feed and one in Python, which does for it what is not hot.
    picows's C interface moves between versions, and can do so without an error at import: compare first.
    """
    installed: str = picows.__version__  # type: ignore[attr-defined]
    built_for, why = "none", ""
    try:
        built_for = importlib.import_module("hlconn._core._build").PICOWS_VERSION
        if built_for == installed:
            compiled: type[Any] = importlib.import_module("hlconn._core.listener").FeedListener
            return compiled
    except ImportError as exc:
        why = f" ({exc})"
    _log.info(
        "the compiled listener is for picows %s, installed is %s%s: the one in Python costs about 0.2 us more a frame",
        built_for,
        installed,
        why,
    )
    return FeedListener


class _Connection:
    """One socket, from the look-up of its name to its end, and the task that holds it."""

    __slots__ = ("generation", "link", "listener", "sock", "task", "transport")

    def __init__(self, link: int, generation: int) -> None:
        self.link, self.generation = link, generation
        self.task: asyncio.Task[None] | None = None
        self.sock: socket.socket | None = None
        self.listener: Any = None
        self.transport: WSTransport | None = None  # once the handshake is done

    def stop(self, *, graceful: bool) -> None:
        if self.listener is not None:
            self.listener.active = False
        if self.transport is not None:
            if not self.transport.is_disconnected:
                if graceful:
                    self.transport.send_close(WSCloseCode.OK)
                self.transport.disconnect(graceful)
        elif self.sock is not None:
            # Whoever uses the socket now sees its end and cleans up. A cancelled `ws_connect` would leave it open.
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        elif self.task is not None:
            self.task.cancel()

    async def open_socket(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """A connected socket to the first address that answers; each gets its share of the time, the last the rest.

        Ours, not the loop's, so that `stop` has something to shut down while TLS or the handshake is under way.
        """
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure = OSError(f"no address for {host}")
        for left, (family, kind, proto, _, address) in zip(reversed(range(len(addresses))), addresses, strict=True):
            sock = socket.socket(family, kind, proto)
            try:
                sock.setblocking(False)
                async with asyncio.timeout(timeout_s / len(addresses) if left else None):
                    await loop.sock_connect(sock, address)
            except OSError as exc:
                sock.close()
                failure = exc
            except BaseException:
                sock.close()
                raise
            else:
                self.sock = sock
                return sock
        raise failure


class Driver:
    """A session with the venue, kept up for ever, feeding one feed.

    feed: gets the data. Every book of it is marked stale when a link ends, unless `on_down` is given: then that is
    its business, subscription by subscription.
    on_state(state, reason, recv_ns): of the main link, in order with the data callbacks. recv_ns: our monotonic clock.
    on_up(subscription, link, recv_ns), on_down(subscription, link, reason, recv_ns): that link serves it, or not any
    more; see `Up` and `Down`. They come before the `on_state` of the same event, and so does what became of posts.
    on_control(channel, message): messages that neither the feed nor the link reads: streams of a user, and answers to
    posts ("post", or "error" when the venue takes no more), be they waited for or not.
    on_post_lost(post_id, reason): no answer to a `post`; each is answered, or lost, once.
    on_subscribed(subscription, link): the venue acknowledged it, once on each connection.
    on_timing(what, seconds): "ack" and "post" from sent to answered, "reconnect" from a link's end to its next life.
    on_refused(subscription, message): the venue refused; message is its own text.
    on_bad_message(exc, link): a message that could not be read, a DecodeError. on_callback_error(exc): a callback of
    yours that raised, of the feed or of this class; both are logged, and the link goes on.
    listener: the class to use instead of `listener_class()`.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        config: SessionConfig,
        feed: FeedLike,
        *,
        on_state: Callable[[LinkState, str, int], object] | None = None,
        on_up: Callable[[dict[str, Any], int, int], object] | None = None,
        on_down: Callable[[dict[str, Any], int, str, int], object] | None = None,
        on_control: Callable[[str, bytes], object] | None = None,
        on_post_lost: Callable[[int, str], object] | None = None,
        on_refused: Callable[[dict[str, Any], str], object] | None = None,
        on_subscribed: Callable[[dict[str, Any], int], object] | None = None,
        on_timing: Callable[[str, float], object] | None = None,
        on_bad_message: Callable[[DecodeError, int], object] | None = None,
        on_callback_error: Callable[[BaseException], object] | None = None,
        rng: Random | None = None,
        listener: type[Any] | None = None,
    ) -> None:
        self.url = endpoints.ws_url
        self.pool = Pool(config, rng or Random(), feed.flow)
        self._config = config
        self._feed = feed
        self._on_state, self._on_up, self._on_down = on_state, on_up, on_down
        self._on_control, self._on_post_lost = on_control, on_post_lost
        self._on_refused, self._on_subscribed, self._on_timing = on_refused, on_subscribed, on_timing
        self._on_bad_message, self._on_callback_error = on_bad_message, on_callback_error
        self._listener_class = listener or listener_class()
        self._ssl: ssl.SSLContext | None = None
        if self.url.startswith("wss:"):
            # Made once: reading the system's certificates takes tens of milliseconds.
            self._ssl = config.ssl_context or ssl.create_default_context()
        # By link and generation; old ones stay until their socket is gone.
        self._connections: dict[tuple[int, int], _Connection] = {}
        self._effects: deque[Effect] = deque()
        self._performing = False
        self._live: set[int] = set()  # links of which LIVE was delivered
        self._ended_s: dict[int, float] = {}  # when links that were live ended
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s: float | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._failures: dict[int, Exception] = {}  # of the present try of each link
        self._cause: Exception | None = None  # why the main link was last not live

    @property
    def state(self) -> LinkState:
        """Of the main link."""
        return self.pool.state

    @property
    def link(self) -> Link:
        """The main link: posts and the streams of the first user."""
        return self.pool.main

    async def start(self) -> None:
        """Begin; returns at once, see `wait_live`. Raises Closed after `close`."""
        self._refuse_closed()
        self._perform(self.pool.start(time.monotonic()))

    async def wait_live(self, timeout_s: float) -> None:
        """Return once the link is live. Raises LinkDown when it is not within the time, Closed when it never will."""
        self._refuse_closed()
        if self.state is LinkState.LIVE:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):  # not wait_for: it loses a cancellation that comes with the result
                await waiter
        except TimeoutError:
            cause = self._cause or TimeoutError("no answer yet to the first try")
            raise LinkDown(
                f"no live connection to {self.url} within {timeout_s:g} s: {cause}. "
                "Check the URL, the network and any proxy.",
                cause,
            ) from cause
        finally:
            self._waiters.discard(waiter)

    def subscribe(self, subscription: Mapping[str, Any]) -> None:
        """Want a subscription: sent now where live, and on every connection to come.

        Raises Closed after `close`, ConfigError when a limit of the venue leaves no link for it.
        """
        self._refuse_closed()
        self._perform(self.pool.subscribe(time.monotonic(), subscription))

    def unsubscribe(self, subscription: Mapping[str, Any]) -> None:
        self._perform(self.pool.unsubscribe(time.monotonic(), subscription))

    def post(self, post_id: int, message: bytes, timeout_s: float, *, urgent: bool = False) -> None:
        """Write one post to the main link, now. Its answer comes by `on_control`, or `on_post_lost` says that none did.

        message: the whole message, with that id. urgent: it may use what the budget keeps for cancels.
        Raises LinkDown, Throttled or Closed (`NotSent`, all of them): then nothing was written, and nothing more is
        told of it. A write that fails does not raise: something may have left, so the post is lost, with its socket.
        """
        self._refuse_closed()
        transport = self._transport(0)
        if transport is None:
            raise LinkDown(f"no live connection to {self.url}: the link is {self.state.value}", self._cause)
        for effect in self.pool.post(time.monotonic(), post_id, message, timeout_s, urgent=urgent):
            assert isinstance(effect, Send)
            self._write(transport, effect)
        if not self._performing:
            self._arm()

    async def close(self) -> None:
        """End for good, from any state. Afterwards no task, timer or socket of ours is left."""
        self._perform(self.pool.close(time.monotonic()))
        try:
            await self._gone(_CLOSE_TIMEOUT_S)
        finally:
            for connection in self._connections.values():
                connection.stop(graceful=False)
        await self._gone(_CLOSE_TIMEOUT_S)
        for task in self._tasks():  # held by something that does not look at the socket
            task.cancel()
        await self._gone(None)

    # Effects.

    def _perform(self, effects: list[Effect]) -> None:
        """Carry effects out in order; those that a callback causes meanwhile come after the present ones."""
        self._effects.extend(effects)
        if self._performing:
            return
        self._performing = True
        try:
            while self._effects:
                self._perform_one(self._effects.popleft())
        finally:
            self._performing = False
            self._arm()

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case Connect(generation, timeout_s, number):
                connection = self._connections[number, generation] = _Connection(number, generation)
                connection.task = asyncio.get_running_loop().create_task(
                    self._hold(connection, timeout_s), name=f"hlconn link {number}, socket {generation}"
                )
                # Not at the end of the task's body: a task cancelled before its first step has no end.
                connection.task.add_done_callback(lambda _: self._connections.pop((number, generation)))
            case Send(_, number):
                if (transport := self._transport(number)) is not None:
                    self._write(transport, effect)
            case Disconnect(generation, _, graceful, number):
                ended = self._connections.get((number, generation))
                if ended is not None:
                    ended.stop(graceful=graceful)
            case StateChanged(state, reason, number):
                self._tell(number, state, reason)
            case Up(subscription, link):
                self._call(self._on_up, subscription, link, time.monotonic_ns())
            case Down(subscription, reason, link):
                self._call(self._on_down, subscription, link, reason, time.monotonic_ns())
            case Refused(subscription, message):
                self._call(self._on_refused, subscription, message)
            case Subscribed(subscription, link, waited_s):
                if waited_s is not None:
                    self._call(self._on_timing, "ack", waited_s)
                self._call(self._on_subscribed, subscription, link)
            case PostAnswered(_, message, _, waited_s):
                self._call(self._on_timing, "post", waited_s)
                self._call(self._on_control, "error" if message.startswith(b'{"channel":"error"') else "post", message)
            case PostLost(post_id, reason):
                self._call(self._on_post_lost, post_id, reason)
            case Forward(channel, message):
                self._call(self._on_control, channel, message)

    def _transport(self, number: int) -> WSTransport | None:
        """Of the present socket of a link, once its handshake is done and until it is gone."""
        link = self.pool.links.get(number)
        connection = None if link is None else self._connections.get((number, link.generation))
        if connection is None or connection.transport is None or connection.transport.is_disconnected:
            return None
        return connection.transport

    def _write(self, transport: WSTransport, message: Send) -> None:
        """Never raises: a half-written frame ends the socket, and with it all that is in flight, and nothing else."""
        try:
            transport.send(WSMsgType.TEXT, message.data)
        except Exception as exc:
            number = message.link
            _log.exception("writing to link %d failed", number)
            generation, reason = self.pool.links[number].generation, f"writing failed: {exc!r}"
            # Not at once: who posts does not know yet that it was written, and other effects may be under way.
            asyncio.get_running_loop().call_soon(self._give_up, number, generation, reason)

    def _give_up(self, number: int, generation: int, reason: str) -> None:
        connection = self._connections.get((number, generation))
        if connection is not None:
            connection.stop(graceful=False)
            self._perform(self.pool.on_disconnected(time.monotonic(), number, generation, reason))

    def _tell(self, number: int, state: LinkState, reason: str) -> None:
        if number in self._live:
            self._live.discard(number)
            if state is not LinkState.CLOSED:
                self._ended_s[number] = time.monotonic()
            if not self._live and self._tick_timer is not None:
                self._tick_timer.cancel()
                self._tick_timer = None
            if self._on_down is None and (state is not LinkState.CLOSED or not number):
                self._call(self._feed.mark_stale, reason)
        failure = None
        if state is LinkState.LIVE:
            self._live.add(number)
            if (ended_s := self._ended_s.pop(number, None)) is not None:
                self._call(self._on_timing, "reconnect", time.monotonic() - ended_s)
            self._failures.pop(number, None)
            if self._tick_timer is None:
                self._tick_timer = asyncio.get_running_loop().call_later(self._config.fast_period_s, self._tick)
        elif state is LinkState.WAITING:
            failure = self._failures.pop(number, None) or ConnectionError(reason)
            _log.info("link %d to %s is down: %s", number, self.url, reason)
        if number:
            return
        self._cause = failure if state is not LinkState.CONNECTING else self._cause
        self._call(self._on_state, state, reason, time.monotonic_ns())
        for waiter in self._waiters:
            if waiter.done():
                continue
            if state is LinkState.LIVE:
                waiter.set_result(None)
            elif state is LinkState.CLOSED:
                waiter.set_exception(Closed(f"the session with {self.url} was closed"))

    def _call(self, callback: Callable[..., object] | None, *args: object) -> None:
        if callback is None:
            return
        try:
            callback(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._report(self._on_callback_error, "a callback raised", exc)

    def _report(self, hook: Callable[..., object] | None, what: str, exc: BaseException, *more: object) -> None:
        _log.error("%s: %s", what, exc, exc_info=exc)
        if hook is not None:
            try:
                hook(exc, *more)
            except Exception:
                _log.exception("the error callback raised")

    # Timers.

    def _arm(self) -> None:
        due_s = self.pool.deadline
        if due_s == self._timer_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = None, due_s
        if due_s is not None:
            # Not call_at: uvloop's clock is a cached millisecond clock, the link's is time.monotonic.
            delay_s = max(0.0, due_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_s = None
        self._perform(self.pool.on_timer(time.monotonic()))

    def _tick(self) -> None:
        config = self._config
        self._tick_timer = asyncio.get_running_loop().call_later(config.fast_period_s, self._tick)
        slow_ns, fast_ns = (int(_SILENT_PERIODS * s * 1e9) for s in (config.slow_period_s, config.fast_period_s))
        self._call(self._feed.mark_silent, time.monotonic_ns(), slow_ns, fast_ns)

    # One connection.

    async def _hold(self, connection: _Connection, timeout_s: float) -> None:
        number, generation = connection.link, connection.generation
        try:
            transport = await self._open(connection, timeout_s)
        except Exception as exc:
            if self._is_connecting(number, generation):
                self._failures[number] = exc
            reason = f"{type(exc).__name__}: {exc}"
            self._perform(self.pool.on_connect_failed(time.monotonic(), number, generation, reason))
        else:
            with suppress(Exception):  # what picows found wrong; its listener has told us
                await transport.wait_disconnected()
        finally:
            if connection.transport is not None or connection.sock is not None:
                connection.stop(graceful=False)

    def _is_connecting(self, number: int, generation: int) -> bool:
        link = self.pool.links.get(number)
        return link is not None and link.generation == generation and link.state is LinkState.CONNECTING

    async def _open(self, connection: _Connection, timeout_s: float) -> WSTransport:
        self._feed.on_raw(self._on_raw)
        connection.listener = self._listener(connection)
        tls: dict[str, Any] = {}
        if self._ssl is not None:
            # A peer that does not answer the end of TLS would hold the socket for half a minute.
            tls = {"ssl_context": self._ssl, "ssl_shutdown_timeout": _CLOSE_TIMEOUT_S}
        transport, upgraded = await ws_connect(
            lambda *_: connection.listener,
            self.url,
            websocket_handshake_timeout=None,  # the link's own deadline covers it
            enable_auto_pong=True,
            max_frame_size=self._config.max_frame_bytes,
            max_redirects=0,
            proxy=self._config.proxy_url,
            socket_factory=lambda url: connection.open_socket(url.host, url.port, timeout_s),
            **tls,
        )
        if upgraded is None or transport.is_disconnected:
            raise ConnectionError("the connection ended during the WebSocket handshake")
        return transport

    def _listener(self, connection: _Connection) -> Any:
        number, generation = connection.link, connection.generation

        def on_connected(transport: WSTransport) -> None:
            connection.transport = transport
            self._perform(self.pool.on_connected(time.monotonic(), number, generation))

        def on_disconnected(reason: str) -> None:
            self._perform(self.pool.on_disconnected(time.monotonic(), number, generation, reason))

        twin = FeedListener(
            self._feed, self._on_error, on_disconnected, self._config.max_frame_bytes, number, on_connected
        )
        return twin if self._listener_class is FeedListener else self._listener_class(self._feed, twin)

    def _on_error(self, exc: BaseException) -> None:
        if isinstance(exc, DecodeError) and self._feed.failed is None:
            self._report(self._on_bad_message, "a message could not be read", exc, self._feed.link)
        else:
            self._report(self._on_callback_error, "a callback raised", exc)

    def _on_raw(self, channel: str, message: bytes) -> None:
        if channel not in _LINK_CHANNELS:
            self._call(self._on_control, channel, message)
            return
        number = self._feed.link
        link = self.pool.links.get(number)
        if link is not None:  # its generation is that of the message: listeners of old sockets are not active
            self._perform(self.pool.on_control(time.monotonic(), number, link.generation, message))

    # The end.

    def _refuse_closed(self) -> None:
        if self.state is LinkState.CLOSED:
            raise Closed(f"the session with {self.url} was closed")

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [c.task for c in self._connections.values() if c.task is not None]

    async def _gone(self, timeout_s: float | None) -> None:
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
