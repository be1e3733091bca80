"""What a session measured, readable in process."""

from __future__ import annotations

from ._core.feed import Feed
from ._core.histogram import Histogram

__all__ = ["Stats"]


class Stats:
    """Histograms of durations in ns, by name. For the loop's thread only.

    callback_ns: from the receipt of a message until the last callback returned. lag_ns: how late messages are by the
    venue's time, above the quickest one of the last one to two minutes. Both after `measure()`, with the compiled
    listener. lead_ns of a link: how far it was ahead of the others when it was first. Others, as the session's
    "reconnect_ns" and "ack_ns", are there once something was recorded.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._histograms: dict[str, Histogram] = {}

    def measure(self) -> None:
        """Begin to record callback_ns and lag_ns: about 50 ns a message."""
        self._feed.measure()

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name, made at the first call. Record into it what is to be read here."""
        return self._histograms.setdefault(name, Histogram())

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Every histogram by name: live ones, that go on changing."""
        found = {"callback_ns": self._feed.callback_ns, "lag_ns": self._feed.lag_ns}
        found |= {f"lead_ns of link {link}": counter["lead_ns"] for link, counter in self._feed.links.items()}
        return {name: histogram for name, histogram in (found | self._histograms).items() if histogram is not None}

    def __call__(self) -> dict[str, dict[str, float]]:
        """count, min, mean, p50, p90, p99, p99.9 and max of each histogram that counted something."""
        return {name: histogram.summary() for name, histogram in self.histograms.items() if histogram.count}
