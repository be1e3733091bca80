"""The official SDK as its users do it: Info.subscribe, and a callback that reads the best bid of the message.

Arguments: url, base_ns, channel.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from hyperliquid.info import Info  # type: ignore[import-not-found]
from sightings import Sightings, serve


def main() -> None:
    url, base_ns, channel = sys.argv[1:]

    def start(sightings: Sightings) -> None:
        def on_message(message: Any) -> None:
            data = message["data"]
            best_bid = float((data["levels"][0] if channel == "l2Book" else data["bbo"])[0]["px"])
            sightings.see(time.monotonic_ns(), data["time"], best_bid)

        Info(url).subscribe({"type": channel, "coin": "BTC"}, on_message)

    serve(int(base_ns), start)
    os._exit(0)  # its threads would go on


if __name__ == "__main__":
    main()
