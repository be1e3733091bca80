"""The only file that cimports picows: it works with the very version it was built against, and no other.

Python code compares versions before it imports this module (see hlconn.session.driver): a picows whose method
table moved would not fail to import but call the wrong method.
"""
from libc.stdint cimport int64_t
from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from hlconn._core.book cimport LINKS
from hlconn._core.feed cimport Feed

from hlconn.errors import ConfigError

cdef extern from "clock.h" nogil:
    int64_t hl_monotonic_ns()


cdef class FeedListener(WSListener):
    """The hot path of a listener: whole text frames go straight from picows's buffer into a Feed.

    twin: the listener in Python, hlconn.session.pylistener.FeedListener. Everything that is not hot (fragments,
    control frames, the end of the connection) is its business, so that both behave alike by construction.
    """

    cdef Feed _feed
    cdef object _twin
    cdef object _on_error
    cdef int _link               # which of several connections this is, to the feed
    cdef bint _active
    cdef bint _fragmented        # the twin holds the beginning of a message

    def __init__(self, feed: Feed, twin: WSListener):
        self._feed = feed
        self._twin = twin
        self._on_error = twin.on_error
        self._link = getattr(twin, "link", 0)
        if not 0 <= self._link < LINKS:
            raise ConfigError(f"link must be 0 to {LINKS - 1}, not {self._link}")
        self._active = True

    @property
    def active(self) -> bool:
        """Once false, frames are ignored."""
        return self._active

    @active.setter
    def active(self, value: bool):
        self._active = self._twin.active = value

    cpdef on_ws_connected(self, WSTransport transport):
        self._twin.on_ws_connected(transport)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef int64_t recv_ns = hl_monotonic_ns()
        if frame.msg_type != WSMsgType.TEXT or not frame.fin or self._fragmented or not self._active:
            self._twin.on_ws_frame(transport, frame)
            self._active = self._twin.active
            self._fragmented = self._twin.fragmented
            return
        try:
            self._feed.take(frame.payload_ptr, frame.payload_size, recv_ns, self._link)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a CancelledError from a callback's own future, for one
            self._on_error(exc)
        if frame.last_in_buffer and self._active and self._feed.wants_burst_end:
            try:
                self._feed.burst_end()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                self._on_error(exc)
        if self._feed.measuring:
            self._feed.callback_ns.add(hl_monotonic_ns() - recv_ns)

    cpdef on_ws_disconnected(self, WSTransport transport):
        self._active = False
        self._twin.on_ws_disconnected(transport)
