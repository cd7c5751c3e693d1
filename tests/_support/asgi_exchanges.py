"""A request under ASGI whose parts are sent when they should be, with a client that may stall or leave."""

import asyncio

from asgi_driver import Response, scope_of


class Exchange:
    """A request to an application, in a task of its own. `parts` are those of its body; at None the client
    leaves, at ``...`` it says nothing more. It takes `takes` messages, and more when `resume` is set."""

    def __init__(self, app, path="/", *, parts=(), takes=None, is_http2=False, headers=(), host="site.test",
                 **options):
        headers = [("host", host), *headers]
        if parts and not is_http2 and not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("transfer-encoding", "chunked"))
        self.scope = scope_of(path, headers=headers, http_version="2" if is_http2 else "1.1", **options)
        self.messages, self.resume, self._left = [], asyncio.Event(), asyncio.Event()
        self._parts, self._takes, self._is_read = list(parts), takes, False
        self.task = asyncio.create_task(app(self.scope, self._receive, self._send))

    async def _receive(self):
        part = self._parts.pop(0) if self._parts else ... if self._is_read else b""
        if part is ...:
            await self._left.wait()
        if part is None or part is ...:
            return {"type": "http.disconnect"}
        self._is_read = not self._parts
        return {"type": "http.request", "body": part, "more_body": not self._is_read}

    async def _send(self, message):
        if self._takes is not None and len(self.messages) >= self._takes:
            await self.resume.wait()
        self.messages.append(message)

    def leave(self):
        self._left.set()

    async def response(self):
        """What the application has sent, which has returned."""
        await self.task
        return Response(self.messages)

    @property
    def is_complete(self):
        return bool(self.messages) and self.messages[-1]["type"] == "http.response.body" \
            and not self.messages[-1].get("more_body")


class Socket:
    """A WebSocket to an application: `sends` are the messages of the client, after which it leaves."""

    def __init__(self, app, path="/", *, host="site.test", headers=(), **options):
        self.scope = scope_of(path, kind="websocket", headers=[("host", host), *headers],
                              **{"scheme": "ws", "subprotocols": []} | options)
        self.messages = asyncio.Queue()
        self._sends = asyncio.Queue()
        self._sends.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(self.scope, self._sends.get, self.messages.put))

    def send(self, **message):
        self._sends.put_nowait({"type": "websocket.receive", **message})

    def close(self, code=1005, reason=""):
        self._sends.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def next(self):
        """The next message of the application, which may not end without one."""
        getting = asyncio.ensure_future(self.messages.get())
        await asyncio.wait({getting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            await self.task
            raise AssertionError("the application has ended")
        return await getting
