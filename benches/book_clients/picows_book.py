"""Raw picows: nothing is read of a frame but the best bid, which says which it is."""

import asyncio

from note import Note, arguments
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


async def main() -> None:
    port, count = arguments()
    note, done = Note(count), asyncio.Event()

    class Listener(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            payload = frame.get_payload_as_bytes()
            at = payload.find(b'"px":"')
            if at > 0 and note.seen(float(payload[at + 6 : payload.index(b'"', at + 6)])):
                done.set()

    transport, _ = await ws_connect(Listener, f"ws://127.0.0.1:{port}/ws")
    transport.send(WSMsgType.TEXT, b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC"}}')
    await done.wait()
    transport.disconnect(graceful=False)
    note.tell()


asyncio.run(main())
