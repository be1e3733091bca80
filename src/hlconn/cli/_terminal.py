"""What the commands show while they work: a progress bar, and ladders of live books.

rich is an extra: with it on a terminal things look better, without it they are drawn by a few escape codes, and in
a pipe there are plain lines. Nothing here runs on the feed's path: callers pass copies, a few times a second.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TextIO

import numpy as np

from .._core.book import Book
from ..types import ASK, BID

__all__ = ["Progress", "Screen", "View", "on_terminal", "progress", "screen"]

_REFRESH_S = 0.25
_LINE_PERIOD_S = 1.0
_BAR_CELLS = 8
_MAX_LEVELS = 10
_PANEL_CELLS = 37

_BOLD, _DIM, _RED, _GREEN, _YELLOW = "1", "2", "31", "32", "33"
Line = list[tuple[str, str]]  # pieces of (text, ANSI style)


def on_terminal(stream: TextIO) -> bool:
    """Whether escape codes make sense there."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


# --- progress ---


class Progress(Protocol):
    def __call__(self, done_bytes: int, messages: int) -> None:
        """Say how far it is. To be called as often as is convenient."""


@contextmanager
def progress(label: str, total_bytes: int) -> Iterator[Progress]:
    """A progress bar on stderr; silent when that is no terminal. total_bytes: 0 when nobody knows."""
    drawn_s = 0.0

    def due() -> bool:
        nonlocal drawn_s
        now_s = time.monotonic()
        if now_s - drawn_s < _REFRESH_S:
            return False
        drawn_s = now_s
        return True

    if not on_terminal(sys.stderr):
        yield lambda done_bytes, messages: None
    elif _rich():
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        texts = TextColumn("{task.description}"), TextColumn("{task.fields[count]}")
        columns = texts[0], BarColumn(), TaskProgressColumn(), texts[1]
        bar = RichProgress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
        task = bar.add_task(label, total=total_bytes or None, count="")

        def draw(done_bytes: int, messages: int) -> None:
            if due():
                bar.update(task, completed=done_bytes, count=f"{messages:,} messages", refresh=True)

        with bar:
            yield draw
    else:

        def draw_plain(done_bytes: int, messages: int) -> None:
            if due():
                share = min(1.0, done_bytes / total_bytes) if total_bytes else 0.0
                line = f"{label} [{'#' * round(30 * share):<30}] {share:4.0%}  {messages:,} messages"
                print(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

        try:
            yield draw_plain
        finally:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


# --- ladders ---


@dataclass(frozen=True, slots=True)
class View:
    """What a screen shows: copies of books, and lines of (label, text) below them.

    events: everything noteworthy so far, oldest first.
    """

    title: str
    elapsed_s: float
    books: tuple[Book, ...]
    messages_per_s: float
    facts: tuple[tuple[str, str], ...]
    events: tuple[str, ...]


class Screen(Protocol):
    def show(self, view: View) -> None:
        """Draw. May block on a slow terminal: call it from a thread."""

    def close(self) -> None: ...


class _Row(NamedTuple):
    px: str
    sz: str
    n: str
    bar: str


class _Ladder:
    """A book as text. Decimals only ever grow, so that the columns stand still."""

    def __init__(self, bar: str) -> None:
        self._bar = bar
        self._decimals: dict[tuple[str, str], int] = {}

    def rows(self, book: Book, levels: int) -> tuple[list[_Row], list[_Row]]:
        """Bids and asks, `levels` rows each, best first; empty rows where there is no level."""
        px, sz = self._column(book, "px", levels), self._column(book, "sz", levels)
        top = max(1e-300, float(book.sz[:, :levels].max()))
        sides: tuple[list[_Row], list[_Row]] = ([], [])
        for side, rows in zip((BID, ASK), sides, strict=True):
            for i in range(levels):
                if i < int(book.count[side]):
                    bar = self._bar * max(1, round(_BAR_CELLS * float(book.sz[side, i]) / top))
                    rows.append(_Row(px[side][i], sz[side][i], str(int(book.n[side, i])), bar))
                else:
                    rows.append(_Row("", "", "", ""))
        return sides

    def spread(self, book: Book) -> str:
        if np.isnan(book.mid):
            return "one side is empty"
        return f"spread {book.spread:,.{self._decimals[book.coin, 'px']}f} ({1e4 * book.spread / book.mid:.2f} bp)"

    def _column(self, book: Book, name: str, levels: int) -> list[list[str]]:
        values = getattr(book, name)[:, :levels]
        texts = [np.format_float_positional(value, trim="-") for value in values.flat if not np.isnan(value)]
        seen = max((len(text.partition(".")[2]) for text in texts), default=0)
        decimals = self._decimals[book.coin, name] = max(seen, self._decimals.get((book.coin, name), 0))
        return [[f"{value:,.{decimals}f}" for value in row] for row in values]


def _bar_character() -> str:
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"


def _state(book: Book) -> tuple[str, str]:
    """What to say of a book's trust, and in which colour."""
    return (f"STALE: {book.stale_reason}", _YELLOW) if book.stale else ("live", _GREEN)


def _levels(view: View, around: int) -> int:
    """Levels a side that fit beside `around` other lines and the view's own."""
    room = shutil.get_terminal_size().lines - around - len(view.facts) - 2
    return max(3, min(_MAX_LEVELS, room // 2))


class _AnsiScreen:
    """Redraws its lines in place; the last picture stays when it is closed."""

    def __init__(self) -> None:
        self._ladder = _Ladder(_bar_character())
        self._drawn = 0
        self._colour = "NO_COLOR" not in os.environ
        if sys.platform == "win32":
            os.system("")  # makes older consoles understand escape codes
        self._write("\x1b[?25l")

    def show(self, view: View) -> None:
        columns, height = shutil.get_terminal_size()
        levels = _levels(view, around=7)
        panels = [self._panel(book, levels) for book in view.books]
        lines: list[Line] = [[(view.title, _BOLD)], []]
        for pieces in zip(*panels, strict=True):
            line: Line = []
            for panel in pieces:
                line += [*panel, (" " * (_PANEL_CELLS + 2 - sum(len(text) for text, _ in panel)), "")]
            lines.append(line)
        lines.append([])
        width = max(len(label) for label, _ in view.facts)
        lines += [[(f"{label:<{width}}  ", _DIM), (text, "")] for label, text in view.facts]
        lines += [[(event, _YELLOW)] for event in view.events[-2:]]
        text = "\n".join(self._paint(line, columns - 1) for line in lines[: height - 1])
        self._write((f"\x1b[{self._drawn}A" if self._drawn else "") + f"\r{text}\n\x1b[J")
        self._drawn = min(len(lines), height - 1)

    def close(self) -> None:
        self._write("\x1b[?25h")

    def _panel(self, book: Book, levels: int) -> list[Line]:
        bids, asks = self._ladder.rows(book, levels)
        state, style = _state(book)
        lines: list[Line] = [[(f"{book.coin}  ", _BOLD), (state[: _PANEL_CELLS - len(book.coin) - 2], style)]]
        lines.append([(f"{'asks':>10} {'size':>10} {'orders':>6}", _DIM)])
        lines += [self._row(row, _RED) for row in reversed(asks)]
        lines.append([(f"{'bids':>10}   {self._ladder.spread(book)}", _DIM)])
        lines += [self._row(row, _GREEN) for row in bids]
        return lines

    @staticmethod
    def _row(row: _Row, style: str) -> Line:
        return [(f"{row.px:>10}", style), (f" {row.sz:>10} {row.n:>6} ", ""), (row.bar, style)]

    def _paint(self, line: Line, columns: int) -> str:
        painted = ""
        for text, style in line:
            text, columns = text[:columns], max(0, columns - len(text))
            painted += f"\x1b[{style}m{text}\x1b[0m" if style and self._colour else text
        return painted + "\x1b[K"

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class _RichScreen:
    def __init__(self) -> None:
        from rich.live import Live

        self._ladder = _Ladder(_bar_character())
        self._live = Live(auto_refresh=False)
        self._live.start()

    def show(self, view: View) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        levels = _levels(view, around=6)
        panels = Table.grid(padding=(0, 1))
        panels.add_row(*[self._panel(book, levels) for book in view.books])
        facts = Table.grid(padding=(0, 2))
        for label, text in view.facts:
            facts.add_row(Text(label, "dim"), text)
        events = Text("\n".join(view.events[-2:]), "yellow")
        self._live.update(Group(Text(view.title, "bold"), panels, facts, events), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _panel(self, book: Book, levels: int) -> Any:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        bids, asks = self._ladder.rows(book, levels)
        state, _ = _state(book)
        colour = "yellow" if book.stale else "green"
        table = Table(box=None, header_style="dim", pad_edge=False)
        for name in ("asks", "size", "orders"):
            table.add_column(name, justify="right", no_wrap=True, min_width=6)
        table.add_column("", min_width=_BAR_CELLS, no_wrap=True)
        for side_rows, style in ((asks[::-1], "red"), (bids, "green")):
            for row in side_rows:
                table.add_row(Text(row.px, style), row.sz, row.n, Text(row.bar, style))
            if style == "red":
                table.add_row(Text("bids", "dim"))
        heading = Text.assemble((book.coin, "bold"), "  ", (state, colour))
        return Panel(table, title=heading, subtitle=self._ladder.spread(book), border_style=colour, padding=(0, 1))


class _Lines:
    """For a pipe: one line a second, and one for each event."""

    def __init__(self) -> None:
        self._next_s = _LINE_PERIOD_S
        self._events = 0

    def show(self, view: View) -> None:
        for event in view.events[self._events :]:
            print(event, flush=True)
        self._events = len(view.events)
        if view.elapsed_s < self._next_s:
            return
        self._next_s += _LINE_PERIOD_S
        tops = "   ".join(
            f"{book.coin} {book.best_bid:,.10g} / {book.best_ask:,.10g}{' STALE' if book.stale else ''}"
            for book in view.books
        )
        print(f"{view.elapsed_s:5.1f} s   {tops}   {view.messages_per_s:,.0f} messages/s", flush=True)

    def close(self) -> None:
        pass


def _best_screen() -> Screen:
    if not on_terminal(sys.stdout):
        return _Lines()
    return _RichScreen() if _rich() else _AnsiScreen()


@contextmanager
def screen() -> Iterator[Screen]:
    """The best that stdout can show: a rich ladder, a plain one, or lines."""
    with closing(_best_screen()) as best:
        yield best
