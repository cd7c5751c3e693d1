"""Clients of ASGI applications that share an event loop: slow ones, and such as leave."""

import asyncio

from asgi_driver import Response, scope_of


class Client:
    """A request, and what was sent to it. `stalls_at` is the number of messages after which it takes no more,
    until `resume` is set; `leave` disconnects it."""

    def __init__(self, app, path="/", *, stalls_at=None, **options):
        self.scope = scope_of(path, **{"headers": [("host", "example.com")]} | options)
        self.messages, self.received = [], 0
        self.left, self.resume = asyncio.Event(), asyncio.Event()
        self._stalls_at = stalls_at
        self.task = asyncio.create_task(app(self.scope, self.receive, self.send))

    async def receive(self):
        self.received += 1
        if self.received == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if len(self.messages) == self._stalls_at:
            await self.resume.wait()
        self.messages.append(message)

    def leave(self):
        self.left.set()

    @property
    def response(self):
        return Response(self.messages)

    @property
    def outcome(self):
        """What Cache-Status says besides the name."""
        return self.response.fields["cache-status"].partition("; ")[2]

    @property
    def is_complete(self):
        return len(self.messages) > 1 and not self.messages[-1].get("more_body")

    async def done(self):
        await self.task
        return self


class Origin:
    """An application that counts its calls. It sends `parts`, before each of which it waits for `gate`, if
    there is one, and fails with `error` in place of the part None."""

    def __init__(self, *parts, status=200, headers=(("cache-control", "max-age=60"),), gated=False,
                 error=None):
        self.parts = parts or (b"Hello",)
        self.status = status
        self.headers = headers
        self.error = error
        self.gated = gated
        self.scopes, self.running, self.most, self.disconnects = [], 0, 0, 0
        self._gate = None

    @property
    def calls(self):
        return len(self.scopes)

    @property
    def gate(self):
        """Released once for each part."""
        if self._gate is None:
            self._gate = asyncio.Semaphore(0)
        return self._gate

    def open(self, count=1):
        for _ in range(count):
            self.gate.release()

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.respond(receive, send)
        finally:
            self.running -= 1

    async def respond(self, receive, send):
        headers = [(name.encode(), value.encode()) for name, value in self.headers]
        for number, part in enumerate(self.parts):
            if self.gated:
                await self.gate.acquire()
            if part is None:
                raise self.error
            if not number:
                await send({"type": "http.response.start", "status": self.status, "headers": headers})
            more = number < len(self.parts) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})


async def settled():
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)
