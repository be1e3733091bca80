"""The picows listener in Python: any supported picows, about 0.2 us more a frame than the compiled one.

The compiled one takes the whole text frames itself and leaves everything else to an instance of this class.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from ..errors import DecodeError

__all__ = ["FeedListener", "ListenerFeed"]


class ListenerFeed(Protocol):
    """What a listener needs of a feed."""

    @property
    def wants_burst_end(self) -> bool: ...

    def on_message(self, message: memoryview, recv_ns: int = 0, link: int = 0) -> object: ...
    def on_burst_end(self) -> object: ...


class FeedListener(WSListener):
    """Hands the messages of one connection to a feed, from inside the receive path. Nothing is raised into picows.

    link: which of several connections this is, to the feed.
    on_connected(transport): once, when the handshake is done, before any message: the first can come in one read with
    the end of the handshake.
    on_error(exc): a message that could not be read, a callback that raised, or a broken rule of the protocol.
    on_disconnected(reason): once, when the socket is gone.
    active: once false, frames are ignored. picows goes on with what is left in its buffer after a disconnect, and
    data of a dead connection must not make books look fresh.
    """

    def __init__(
        self,
        feed: ListenerFeed,
        on_error: Callable[[BaseException], None],
        on_disconnected: Callable[[str], None],
        max_message_bytes: int,
        link: int = 0,
        on_connected: Callable[[WSTransport], None] = lambda _: None,
    ) -> None:
        self.feed = feed
        self.link = link
        self.on_error, self.on_disconnected, self.on_connected = on_error, on_disconnected, on_connected
        self.max_message_bytes = max_message_bytes
        self.transport: WSTransport | None = None
        self.active = True
        self._parts: bytearray | None = None  # of a fragmented message
        self._reason = ""

    @property
    def fragmented(self) -> bool:
        """A message has begun and not ended: every frame up to its end must come here."""
        return self._parts is not None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        try:
            self.on_connected(transport)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.on_error(exc)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        recv_ns = time.monotonic_ns()
        if not self.active:
            return
        try:
            kind = frame.msg_type
            if kind == WSMsgType.TEXT or kind == WSMsgType.BINARY:
                if self._parts is not None:
                    self._violation(transport, frame, "a new message inside a fragmented one")
                elif frame.fin:
                    self.feed.on_message(frame.get_payload_as_memoryview(), recv_ns, self.link)
                else:
                    self._parts = bytearray(frame.get_payload_as_memoryview())
            elif kind == WSMsgType.CONTINUATION:
                self._continue(transport, frame, recv_ns)
            elif kind == WSMsgType.CLOSE:
                self._close(transport, frame)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a CancelledError from a callback's own future, for one
            self.on_error(exc)
        if frame.last_in_buffer and self.active and self.feed.wants_burst_end:
            try:
                self.feed.on_burst_end()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                self.on_error(exc)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.active = False
        reason = self._reason
        if not reason:
            # picows itself ends connections that break the protocol; then it sent a close frame that says why.
            handshake = getattr(transport, "close_handshake", None)
            sent = None if handshake is None else handshake.sent
            reason = "connection lost without a close frame"
            if sent is not None:
                reason = f"closed by us: {int(sent.code)} {sent.reason}"
        self.on_disconnected(reason)

    def _continue(self, transport: WSTransport, frame: WSFrame, recv_ns: int) -> None:
        parts = self._parts
        if parts is None:
            self._violation(transport, frame, "a continuation without a message")
            return
        if len(parts) + frame.payload_size > self.max_message_bytes:
            self._violation(
                transport, frame, f"fragmented message of more than {self.max_message_bytes} bytes", code=1009
            )
            return
        parts += frame.get_payload_as_memoryview()
        if frame.fin:
            self._parts = None
            self.feed.on_message(memoryview(parts), recv_ns, self.link)

    def _close(self, transport: WSTransport, frame: WSFrame) -> None:
        self.active = False
        payload = frame.get_payload_as_bytes()
        code, text = int.from_bytes(payload[:2], "big"), payload[2:]
        if code:
            self._reason = f"closed by the venue: {code} {text.decode(errors='replace')}".rstrip()
            transport.send_close(frame.get_close_code(), text)
        else:
            self._reason = "closed by the venue, without a code"
            transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def _violation(self, transport: WSTransport, frame: WSFrame, what: str, code: int = 1002) -> None:
        self.active = False
        self._parts = None
        self._reason = f"closed by us: {code} {what}"
        transport.send_close(WSCloseCode(code), what.encode())
        transport.disconnect(graceful=False)
        self.on_error(DecodeError("", 0, bytes(frame.get_payload_as_memoryview()[:80]), f"WebSocket protocol: {what}"))
