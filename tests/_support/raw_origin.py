"""An origin that records what reaches it, and a client, without any parser of HTTP."""

import asyncio
from contextlib import asynccontextmanager


class RawOrigin:
    """An origin that keeps all bytes it gets, and responds to each connection as `respond` says."""

    def __init__(self, response=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"):
        self.response = response
        self.received = []
        self.port = 0
        self._tasks = set()

    async def _serve(self, reader, writer):
        at = len(self.received)
        self.received.append(b"")
        self._tasks.add(asyncio.current_task())
        try:
            while data := await reader.read(65536):
                self.received[at] += data
                if callable(self.response):
                    await self.response(self, at, reader, writer)
                elif b"\r\n\r\n" in self.received[at]:
                    writer.write(self.response)
                    await writer.drain()
                    break
        except (OSError, asyncio.CancelledError):
            pass
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def end(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await asyncio.sleep(0.01)  # the ends of their connections


@asynccontextmanager
async def raw_origin(*response):
    origin = RawOrigin(*response)
    async with await asyncio.start_server(origin._serve, "127.0.0.1", 0) as server:
        origin.port = server.sockets[0].getsockname()[1]
        yield origin
        if origin._tasks:
            await origin.end()


async def talk(port, data, *, host="127.0.0.1"):
    """All that a server at `port` responds to `data` until it closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    received = b""
    try:
        writer.write(data)
        while part := await reader.read(65536):
            received += part
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received
