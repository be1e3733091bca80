"""`hlconn replay`: captured messages through the feed that a live session uses."""

from __future__ import annotations

import argparse
import gzip
import re
import time
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._core.book import Book
from .._core.codec import route_of
from .._core.feed import Feed
from ..errors import DecodeError
from . import CommandError
from ._terminal import Progress, progress

__all__ = ["add_arguments", "run"]

_BATCH = 4096
_MAX_LINE_BYTES = 64 * 1024 * 1024
_INT64_LIMIT = 1 << 63

_GZIP = b"\x1f\x8b"
_OTHER_PACKERS = {b"\x04\x22\x4d\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zX": "xz", b"BZh": "bzip2"}

# The venue's archive puts this around each message, and a closing brace. Cut, not parsed: the feed reads the rest.
_ARCHIVE = re.compile(rb'\{\s*"time"\s*:\s*"[^"\\]*"\s*,\s*"ver_num"\s*:\s*\d+\s*,\s*"raw"\s*:\s*(?=\{)')

Message = tuple[int, bytes, int]  # number of its line, the message, when it was received in ns (0: not recorded)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Play captured messages through the feed and say how fast it was. One message a line, as received; before it "
        "may stand the time of receipt in ns and a space; or as in the venue's archive, "
        '{"time":...,"ver_num":...,"raw":MESSAGE}. gzip is recognized by content.'
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="played one after the other")
    parser.add_argument(
        "--coin",
        action="append",
        metavar="COIN",
        help="decode only this coin (can be repeated); messages of others are counted as unrouted",
    )


def run(args: argparse.Namespace) -> int:
    replay = _Replay(frozenset(args.coin or ()))
    try:
        for path in args.files:
            replay.play(path)
    finally:
        # whatever ended it: what was read is kept
        if replay.messages:
            replay.summarize()
    for coin in sorted(replay.wanted - replay.seen):
        seen = ", ".join(sorted(replay.seen)) or "none at all"
        raise CommandError(f"no message of coin {coin!r} was found; coins found: {seen}")
    return 0


class _Replay:
    """One feed, and what went through it. wanted: the coins to decode, empty for all."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self.seen: set[str] = set()
        self.messages = 0
        self.trades = 0
        self._feed = Feed()
        self._feed_ns = 0

    def play(self, path: Path) -> None:
        """Play one file. Raises CommandError, with everything before the broken line played."""
        before = self.messages
        with _opened(path) as raw, progress(path.name, path.stat().st_size) as show:
            try:
                self._play_lines(path, raw, show)
            except OSError as exc:
                raise CommandError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
        if self.messages == before:
            raise CommandError(f"{path}: there is no message in it")

    def _play_lines(self, path: Path, raw: BufferedReader, show: Progress) -> None:
        batch: list[Message] = []
        try:
            for item in _messages(path, raw):
                self._meet(item[1])
                batch.append(item)
                if len(batch) == _BATCH:
                    full, batch = batch, []
                    self._feed_batch(path, full)
                    show(raw.tell() if raw.seekable() else 0, self.messages)
        finally:
            self._feed_batch(path, batch)

    def _meet(self, message: bytes) -> None:
        """See to it that the coin of a message has a book and a callback. A broken one is for the feed to report."""
        try:
            _, coin = route_of(message)
        except DecodeError:
            return
        if coin and coin not in self.seen:
            self.seen.add(coin)
            if not self.wanted or coin in self.wanted:
                self._feed.book(coin)
                self._feed.on_trades(coin, self._count_trades)

    def _feed_batch(self, path: Path, batch: list[Message]) -> None:
        on_message = self._feed.on_message
        done = 0
        began_ns = time.perf_counter_ns()
        try:
            for _, message, recv_ns in batch:
                on_message(message, recv_ns)
                done += 1
        except DecodeError as exc:
            raise CommandError(f"{path}, line {batch[done][0]}: {exc}") from exc
        finally:
            self._feed_ns += time.perf_counter_ns() - began_ns
            self.messages += done

    def _count_trades(self, trades: NDArray[np.void]) -> None:
        self.trades += len(trades)

    def summarize(self) -> None:
        counters = self._feed.counters
        size = sum(counter["bytes"] for counter in counters.values())
        rate, spent_ms = self.messages / max(1, self._feed_ns) * 1e9, self._feed_ns / 1e6
        print(f"{self.messages:,} messages, {size:,} bytes, {self.trades:,} trades")
        print(f"{rate:,.0f} messages/s: {spent_ms:,.2f} ms in the feed, reading and unpacking files not counted")
        books = [book for book in map(self._feed.book, self._feed.coins) if book.seq]
        if books:
            print(f"\n{'book':<10} {'levels':>7} {'best bid':>14} {'best ask':>14}  {'venue time (UTC)':<23}  state")
            for book in books:
                print(_book_line(book))
        print(f"\n{'channel':<10}" + "".join(f" {name:>12}" for name in counters["other"]))
        for channel, counter in counters.items():
            print(f"{channel:<10}" + "".join(f" {value:>12,}" for value in counter.values()))
        if self._feed.other_channels:
            print("other: " + ", ".join(f"{name} {count:,}" for name, count in self._feed.other_channels.items()))
        print(end="", flush=True)


def _book_line(book: Book) -> str:
    at = np.datetime64(book.time_ms, "ms")
    state = f"stale: {book.stale_reason}" if book.stale else "good"
    tops = f"{book.best_bid:>14,.10g} {book.best_ask:>14,.10g}"
    return f"{book.coin:<10} {book.count[0]:>3}+{book.count[1]:<3} {tops}  {at!s:<23}  {state}"


def _opened(path: Path) -> BufferedReader:
    if path.is_dir():
        raise CommandError(f"{path}: is a directory; name the files in it")
    try:
        return path.open("rb")
    except OSError as exc:
        raise CommandError(f"{path}: cannot be opened: {exc.strerror or exc}") from exc


def _messages(path: Path, raw: BufferedReader) -> Iterator[Message]:
    """The messages of a file. Raises CommandError where it cannot be read on."""
    start = raw.peek(4)[:4]
    for magic, packer in _OTHER_PACKERS.items():
        if start.startswith(magic):
            raise CommandError(f"{path}: is packed with {packer}; unpack it first")
    stream = gzip.GzipFile(fileobj=raw) if start.startswith(_GZIP) else raw
    number = 0
    try:
        while line := stream.readline(_MAX_LINE_BYTES):
            number += 1
            if len(line) == _MAX_LINE_BYTES:
                raise CommandError(f"{path}, line {number}: longer than {_MAX_LINE_BYTES:,} bytes")
            if message := line.strip():
                yield number, *_split(message)
    except EOFError:
        raise CommandError(f"{path}: the gzip data was cut off after line {number}") from None
    except (gzip.BadGzipFile, zlib.error) as exc:
        raise CommandError(f"{path}: the gzip data is damaged after line {number}: {exc}") from exc


def _split(line: bytes) -> tuple[bytes, int]:
    """The message in a line, and when it was received."""
    if line.startswith(b"{"):
        archived = _ARCHIVE.match(line)
        return (line[archived.end() : -1].rstrip(), 0) if archived and line.endswith(b"}") else (line, 0)
    stamp, space, message = line.partition(b" ")
    if space and len(stamp) <= 19 and stamp.isdigit() and int(stamp) < _INT64_LIMIT:
        return message, int(stamp)
    return line, 0
