"""The official SDK's WebSocket manager, which runs in threads of its own; the callback gets its parsed message."""

import threading
from typing import Any

from hyperliquid.websocket_manager import WebsocketManager  # type: ignore[import-not-found]
from note import Note, arguments

port, count = arguments()
note, done = Note(count), threading.Event()


def on_message(message: Any) -> None:
    if note.seen(float(message["data"]["levels"][0][0]["px"])):
        done.set()


manager = WebsocketManager(f"http://127.0.0.1:{port}")
manager.start()
manager.subscribe({"type": "l2Book", "coin": "BTC"}, on_message)
done.wait()
manager.stop()
note.tell()
