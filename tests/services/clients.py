"""One interface to the HTTP clients that the adapters support: each sends to the logical host ``orders``.

`reads_bodies` says whether the adapter reads the body itself, so that one that breaks is fetched again.
Loading the certificates of authorities, which costs more than a test, is left out.
"""

import asyncio
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import NamedTuple

import pytest
from watchdog import PATIENCE

from headgate import RoundRobin


def _package(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


class Httpx:
    """httpx or httpx2, its Client."""

    reads_bodies = False

    def __init__(self, name):
        self.package = _package(name)
        self.adapter = import_module(f"headgate.adapters.{name}").BalancedTransport
        self.no_connection = self.package.ConnectError
        self.broken = self.package.RemoteProtocolError
        self.timeout = self.package.ReadTimeout

    def digest(self, user, password):
        """The options of `send` for digest authentication."""
        return {"auth": self.package.DigestAuth(user, password)}

    @contextmanager
    def open(self, balancer, **options):
        transport = self.adapter(balancer, self.package.HTTPTransport(verify=False), **options)
        mounts = {"http://orders": transport}
        with self.package.Client(mounts=mounts, timeout=PATIENCE, verify=False) as self._client:
            yield self

    def send(self, method, path="/", **options):
        return self._client.request(method, f"http://orders{path}", **options)


class AsyncHttpx:
    """httpx or httpx2, its AsyncClient."""

    reads_bodies = False

    def __init__(self, name):
        self.package = _package(name)
        self.adapter = import_module(f"headgate.adapters.{name}").AsyncBalancedTransport
        self.no_connection = self.package.ConnectError
        self.broken = self.package.RemoteProtocolError
        self.timeout = self.package.ReadTimeout

    digest = Httpx.digest

    @contextmanager
    def open(self, balancer, **options):
        transport = self.adapter(balancer, self.package.AsyncHTTPTransport(verify=False), **options)
        mounts = {"http://orders": transport}
        self._client = self.package.AsyncClient(mounts=mounts, timeout=PATIENCE, verify=False)
        with asyncio.Runner() as self._runner:
            try:
                yield self
            finally:
                self._runner.run(self._client.aclose())

    def send(self, method, path="/", *, content=None, **options):
        if content is not None and not isinstance(content, bytes):
            content = _asynchronous(content)
        url = f"http://orders{path}"
        return self._runner.run(self._client.request(method, url, content=content, **options))


async def _asynchronous(parts):
    for part in parts:
        yield part


class Requests:
    """requests, its Session."""

    reads_bodies = True

    def __init__(self):
        self.package = _package("requests")
        self.adapter = import_module("headgate.adapters.requests").BalancedAdapter
        self.no_connection = self.broken = self.package.ConnectionError
        self.timeout = self.package.exceptions.ReadTimeout

    def digest(self, user, password):
        return {"auth": self.package.auth.HTTPDigestAuth(user, password)}

    @contextmanager
    def open(self, balancer, **options):
        with self.package.Session() as self._session:
            self._session.mount("http://orders/", self.adapter(balancer, **options))
            yield self

    def send(self, method, path="/", *, content=None, follow_redirects=False, timeout=PATIENCE, **options):
        return self._session.request(method, f"http://orders{path}", data=content, timeout=timeout,
                                     allow_redirects=follow_redirects, **options)


class Response(NamedTuple):
    """A response of aiohttp with the attributes of the others."""

    status_code: int
    text: str
    url: object
    headgate_server: str


class Aiohttp:
    """aiohttp, its ClientSession."""

    reads_bodies = False

    def __init__(self):
        self.package = _package("aiohttp")
        self.adapter = partial(import_module("headgate.adapters.aiohttp").BalancedMiddleware, host="orders")
        self.no_connection = self.package.ClientConnectionError
        self.broken = self.package.ServerDisconnectedError, self.package.ClientPayloadError
        self.timeout = TimeoutError

    def digest(self, user, password):
        auth = self.package.DigestAuthMiddleware(user, password)
        return {"middlewares": [auth, *self.session._middlewares]}

    @contextmanager
    def open(self, balancer, **options):
        with asyncio.Runner() as self.runner:
            self.session = self.runner.run(self._opened(self.adapter(balancer, **options)))
            try:
                yield self
            finally:
                self.runner.run(self.session.close())

    async def _opened(self, middleware):
        return self.package.ClientSession(middlewares=[middleware])

    def send(self, method, path="/", **options):
        return self.runner.run(self._send(method, f"http://orders{path}", **options))

    async def _send(self, method, url, *, content=None, follow_redirects=False, timeout=PATIENCE, **options):
        if content is not None and not isinstance(content, bytes):
            content = _asynchronous(content)
        async with self.session.request(
            method, url, data=content, allow_redirects=follow_redirects,
            timeout=self.package.ClientTimeout(sock_read=timeout), **options,
        ) as response:
            return Response(response.status, await response.text(), response.url, response.headgate_server)


def balanced(origins, **options):
    """A balancer that takes the origins in turn."""
    return RoundRobin([origin.url for origin in origins], seed=0, **options)


CLIENTS = {
    "aiohttp": Aiohttp,
    "httpx": lambda: Httpx("httpx"),
    "httpx-async": lambda: AsyncHttpx("httpx"),
    "httpx2": lambda: Httpx("httpx2"),
    "httpx2-async": lambda: AsyncHttpx("httpx2"),
    "requests": Requests,
}
