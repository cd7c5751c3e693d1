"""A driver for ASGI applications, without a server."""

import asyncio


def scope_of(path="/", *, method="GET", headers=(), client=("192.0.2.1", 5), kind="http", **more):
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "path": path,
             "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": fields,
             "client": client, "server": ("127.0.0.1", 80)}
    if kind == "http":
        scope["method"] = method
    return scope | more


class Response:
    """The messages that an application has sent."""

    def __init__(self, messages):
        self.messages = messages

    @property
    def start(self):
        return next(message for message in self.messages if message["type"].endswith("response.start"))

    @property
    def status(self):
        return self.start["status"]

    @property
    def fields(self):
        """The header fields; a name that occurs twice is an error."""
        fields = {name.decode(): value.decode() for name, value in self.start["headers"]}
        assert len(fields) == len(self.start["headers"]), self.start
        return fields

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)


async def call(app, scope):
    """The response of an application to a request or a handshake."""
    messages, connects = [], [{"type": "websocket.connect"}] if scope["type"] == "websocket" else []

    async def receive():
        return connects.pop() if connects else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        messages.append(message)

    await app(scope, receive, send)
    return Response(messages)


def get(app, path="/", **options):
    return asyncio.run(call(app, scope_of(path, **options)))


async def hello(scope, receive, send):
    """An application that responds to whatever it gets."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})
