"""A reverse proxy and a point of presence of a CDN: limits, a cache, shedding, balancing, in this order.

    python examples/edge/edge.py --config examples/edge/edge.yaml --port 8080
    python examples/edge/edge.py --pop paris --parent http://127.0.0.1:8090 --port 8081

The part ``x-edge`` of the document is read by routes.py, everything else by headgate.config.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
from polled import PolledLog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from routes import Route, Settings

from headgate.adapters import dashboard, keys
from headgate.adapters.aiohttp import HealthChecks
from headgate.adapters.asgi import ASGIRequest, from_gate
from headgate.adapters.prometheus import Collector
from headgate.adapters.proxy import (
    ConnectionPool,
    Hop,
    Refusal,
    ReverseProxy,
    StrictMiddleware,
    host_of,
    refuse,
)
from headgate.adapters.redis import AsyncPurgeStream
from headgate.config import Changes, load
from headgate.errors import StoreError
from headgate.httpcache import AsyncPurges, PurgeLog

HERE = Path(__file__).parent
OWN = "/.edge/"
MOST_PURGE = 64 * 1024


class Edge:
    """The ASGI application of one process.

    `pop` is its name among the points of presence. With `parents`, origins of the parent tier, all routes
    lead to these, chosen by a ring: one fetches a URL for all points. A `shield` is such a parent: the points
    have limited its clients already.
    """

    def __init__(
        self, path: str, pop: str = "edge", parents: tuple[str, ...] = (), *, shield: bool = False,
        log: Any = sys.stdout,
    ) -> None:
        self._pop, self._log = pop, log
        self.gate = load(
            Path(path), _overlay(pop, parents, shield), extensions={"x-edge": Settings.parse}
        )
        self._to_parents = bool(parents)
        self.pool = ConnectionPool()
        self._balancers: dict[str, Any] = {}
        self._take()
        self._guarded = from_gate(self._pass_on, self.gate)
        self._dashboard = dashboard.asgi(self.gate, allow=self._is_operator)
        self._registry = CollectorRegistry()
        collector = Collector(self.gate)
        self._registry.register(collector)
        self._running = Gauge("edge_tasks", "Tasks of the event loop of this worker", registry=self._registry)
        self._purges: AsyncPurges | None = None
        self._read: dict[str, dict[str, Any]] = {"purges": {}, "checks": {}}
        for source in self._read.values():
            collector.add(source)
        self._following: asyncio.Task[Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._checks: dict[str, tuple[Any, asyncio.Task[None]]] = {}

    def _balancer(self, name: str) -> Any:
        """The balancer of a route."""
        name = "parents" if self._to_parents else name
        return self.gate.balancers.get(name, self._balancers.get(name))

    # ---- requests ---------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._front(scope, receive, send)
        else:
            exchange = Exchange(scope, send, self.settings.stall)
            try:
                await self._front(scope, receive, exchange.send)
            finally:
                exchange.write(self._log, self._pop)
                exchange.record(self.gate.objectives.get("requests"))

    async def _enter(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request that is not for the edge itself, with what is known of it."""
        if scope["path"].startswith(OWN):
            await self._own(scope, receive, send)
            return
        route = self.settings.route(host_of(scope["headers"]) or "", scope["path"])
        if route is None:
            await refuse(scope, receive, send, Refusal(421, "There is no route."))
            return
        region = self.settings.region(self._client(ASGIRequest(scope)))
        fields = [*scope["headers"], (b"x-edge-region", region.encode())]
        if route.priority:
            fields.append((b"x-edge-priority", route.priority.encode()))
        await self._guarded({**scope, "route": route, "headers": fields}, receive, send)

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        await self._proxy(scope["route"])(scope, receive, send)

    def _proxy(self, route: Route) -> ReverseProxy:
        """The proxy of a route, which is made again where its balancer is another one."""
        balancer, known = self._balancer(route.to), self._proxies.get(route)
        if known is None or known[0] is not balancer:
            known = self._proxies[route] = balancer, ReverseProxy(
                balancer,
                self._hop,
                pool=self.pool,
                key=self._client if route.key == "client" else _url,
                attempts=route.attempts,
                connect_timeout=route.connect,
                attempt_timeout=route.head,
                deadline=route.deadline,
                idle_timeout=route.idle,
                quiet_timeout=route.quiet,
            )
        return known[1]

    async def _own(self, scope: Any, receive: Any, send: Any) -> None:
        """The edge's own pages: for operators, and purges for those who have the token."""
        name = scope["path"].removeprefix(OWN) if scope["type"] == "http" else ""
        if name == "health":
            behind = 0.0 if self._purges is None else self._purges.behind
            state = json.dumps({"pop": self._pop, "purges_behind": behind})
            await respond(send, 200 if behind < 60 else 503, state)
        elif name == "purges" and self._purges is not None:
            await self._purge(scope, receive, send)
        elif name == "metrics" and self._is_operator(scope):
            self._running.set(len(asyncio.all_tasks()))
            text = await asyncio.to_thread(generate_latest, self._registry)
            await respond(send, 200, text.decode(), CONTENT_TYPE_LATEST)
        elif name.startswith("dashboard"):
            inner = {**scope, "root_path": f"{scope.get('root_path', '')}{OWN}dashboard"}
            await self._dashboard(inner, receive, send)
        else:
            await refuse(scope, receive, send, Refusal(404, "There is no such page."))

    def _is_operator(self, request: Any) -> bool:
        scope = getattr(request, "raw", request)
        peer = scope["client"][0]
        return self._operators.trusts(peer) and not any(
            name in (b"forwarded", b"x-forwarded-for") for name, _ in scope["headers"]
        )

    async def _purge(self, scope: Any, receive: Any, send: Any) -> None:
        """POST a purge, or GET what came after a number in the log, if that is of this process."""
        given = ASGIRequest(scope).header("authorization") or ""
        if not self.settings.token or not hmac.compare_digest(
            given.encode(), f"Bearer {self.settings.token}".encode()
        ):
            await respond(send, 401, "A purge needs the token.\n")
            return
        log = self._purges.log
        try:
            if scope["method"] != "GET":
                wanted = json.loads(await _whole(receive, MOST_PURGE))
                number, record = await self._purges.purge(**wanted)
                reply: Any = {"number": number, "record": record}
            elif isinstance(log, PurgeLog):
                query = dict(part.partition("=")[::2] for part in scope["query_string"].decode().split("&"))
                reply = log.read((query.get("epoch", ""), int(query.get("after", 0))))
            else:
                raise ValueError("the log is elsewhere")
        except (StoreError, aiohttp.ClientError, OSError) as error:
            await respond(send, 503, f"The log of purges cannot be reached: {type(error).__name__}\n")
        except (TypeError, ValueError, RecursionError) as error:
            await respond(send, 400, f"{error}\n")
        else:
            await respond(send, 200, json.dumps(reply))

    # ---- the process ------------------------------------------------------------------------

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Open connections, follow the log of purges, and watch the document."""
        watching = self.gate.watch_async(every=0.5, on_change=self._take, on_error=self._complain)
        self._tasks = [asyncio.create_task(watching)]
        self._purge_log = self._made_log(**self.settings.purges)
        self._follow()
        self._check_servers()

    def _follow(self) -> None:
        """Keep the cache in force purged; one that a document made anew has read nothing of the log."""
        cache, known = self.gate.http.cache, self._purges and self._purges.follower.cache
        if cache is known:
            return
        if self._following is not None:
            self._following.cancel()
        given = self.settings.purges
        every = 1.0 if isinstance(self._purge_log, AsyncPurgeStream) else given.get("every", 5.0)
        self._purges = AsyncPurges(self._purge_log, cache, every=every, skew=given.get("skew", 0.1))
        self._read["purges"]["edge"] = self._purges
        self._following = asyncio.create_task(self._purges.run())

    def _check_servers(self) -> None:
        """Have health checks of each balancer in use, as the document says; others go on as they are."""
        health = self.settings.health
        if health is not None and self._to_parents:
            health = {**health, "path": f"{OWN}health"}
        names = {"parents"} if self._to_parents else {route.to for route in self.settings.routes}
        wanted = {name: (self._balancer(name), health) for name in names if health is not None}
        for name, (known, task) in list(self._checks.items()):
            if wanted.get(name) != known:
                task.cancel()
                del self._checks[name], self._read["checks"][name]
        for name, (balancer, options) in wanted.items():
            if name not in self._checks:
                checks = self._read["checks"][name] = HealthChecks(balancer, **options)
                self._checks[name] = wanted[name], asyncio.create_task(checks.run())

    def _made_log(
        self, store: str | None = None, name: str = "edge", poll: str | None = None, **_: float
    ) -> Any:
        """The log of purges: in a store, or of another process that is asked, or of this one."""
        if store is not None:
            return AsyncPurgeStream(self.gate.stores[store].async_client, name)
        if poll is not None and self._to_parents:
            return PolledLog(self.pool.session(), poll, self.settings.token)
        return PurgeLog()

    async def stop(self) -> None:
        """End what `start` has begun."""
        tasks = [*self._tasks, *(task for _, task in self._checks.values())]
        if self._following is not None:
            tasks.append(self._following)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(self._purge_log, AsyncPurgeStream):
            await self._purge_log.close()
        await self.pool.aclose()

    def _take(self, changes: Changes | None = None) -> None:
        """Route by the document that is in force from now on."""
        # Requests that are on their way when the document loses a balancer still have it.
        self._balancers = {**self._balancers, **self.gate.balancers}
        self.settings: Settings = self.gate.extensions["x-edge"]
        trusted = self.gate.http.trusted
        self._client = keys.client(trusted, v6=128)
        self._hop = Hop(self._pop, trusted, internal=["x-edge-"])
        self._front = StrictMiddleware(self._enter, self._hop)
        self._operators = Hop("operators", self.settings.operators)
        self._proxies: dict[Route, tuple[Any, ReverseProxy]] = {}
        if changes is not None:
            self._follow()
            self._check_servers()

    def _complain(self, error: Exception) -> None:
        print(json.dumps({"error": str(error), "pop": self._pop}), file=self._log, flush=True)


class Exchange:
    """What the access log says of a request; it ends where its client takes nothing for `stall` seconds."""

    def __init__(self, scope: Any, send: Any, stall: float) -> None:
        self._scope, self._send, self._stall = scope, send, stall
        self._began = time.perf_counter()
        self._status, self._bytes, self._cache, self._seconds = 0, 0, "", 0.0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status, self._seconds = message["status"], time.perf_counter() - self._began
            self._cache = dict(message["headers"]).get(b"cache-status", b"").decode("latin-1")
        else:
            self._bytes += len(message.get("body", b""))
        async with asyncio.timeout(self._stall):
            await self._send(message)

    def record(self, objective: Any) -> None:
        """Count the request for an objective, if there is one: by its latency, unless it failed."""
        if objective is None or not self._status:
            return
        if self._status >= 500:
            objective.record(False)
        else:
            objective.record(seconds=self._seconds)

    def write(self, log: Any, pop: str) -> None:
        """One line, unless there is no log."""
        if log is None:
            return
        scope, seconds = self._scope, time.perf_counter() - self._began
        print(
            json.dumps(
                {
                    "at": round(time.time(), 3),
                    "pop": pop,
                    "client": scope["client"][0],
                    "method": scope["method"],
                    "host": host_of(scope["headers"]),
                    "path": scope["path"],
                    "status": self._status,
                    "bytes": self._bytes,
                    "ms": round(seconds * 1000, 2),
                    "cache": self._cache,
                }
            ),
            file=log,
        )


async def respond(send: Any, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
    """Send a whole response."""
    body = text.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _url(request: keys.Request) -> str:
    """What a request is balanced by: the same server for the same URL."""
    return f"{request.host}{request.path}?{request.query}"


async def _whole(receive: Any, most: int) -> bytes:
    """A body of a request. Raises ValueError if it is too long."""
    body, more = b"", True
    while more and len(body) <= most:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if len(body) > most:
        raise ValueError("the body is too long")
    return body


def _overlay(pop: str, parents: tuple[str, ...], shield: bool) -> dict[str, Any]:
    """What a role changes in the document."""
    http: dict[str, Any] = {"cache": {"name": pop}}
    if shield:
        http |= {"limit": None, "keys": None}
    if not parents:
        return {"http": http}
    ring = {"kind": "key_hash", "servers": list(parents), "hotkeys": "parents"}
    ring |= {"max_failures": 3, "ejection_time": "5 s"}
    return {
        "http": http,
        "balancers": {"parents": ring},
        "hotkeys": {"parents": {"k": 1000, "half_life": "30 s"}},
    }


def application() -> Edge:
    """The application of a worker, by the environment that `main` has set."""
    parents = tuple(filter(None, os.environ.get("EDGE_PARENTS", "").split(",")))
    log = None if os.environ.get("EDGE_LOG") == "none" else sys.stdout
    shield = os.environ.get("EDGE_SHIELD") == "1"
    return Edge(os.environ["EDGE_CONFIG"], os.environ["EDGE_POP"], parents, shield=shield, log=log)


def main() -> None:
    """Serve under granian: heads end within a time and below a size, which ASGI itself cannot see to."""
    from granian import Granian
    from granian.http import HTTP1Settings

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default=str(HERE / "edge.yaml"))
    parser.add_argument("--pop", default="edge", help="the name of this point of presence")
    parser.add_argument("--parent", action="append", default=[], metavar="URL")
    parser.add_argument("--shield", action="store_true", help="be a parent of points of presence")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--head-timeout", type=float, default=5.0, help="seconds for the head of a request")
    parser.add_argument("--stop-timeout", type=int, default=10, help="seconds until a worker is killed")
    parser.add_argument("--no-log", action="store_true")
    options = parser.parse_args()
    os.environ.update(
        EDGE_CONFIG=options.config,
        EDGE_POP=options.pop,
        EDGE_PARENTS=",".join(options.parent),
        EDGE_SHIELD=str(int(options.shield)),
        EDGE_LOG="none" if options.no_log else "stdout",
    )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    Granian(
        "edge:application",
        address=options.host,
        port=options.port,
        interface="asgi",
        workers=options.workers,
        factory=True,
        http="1",
        log_access=False,
        log_level="warning",
        respawn_failed_workers=True,
        workers_kill_timeout=options.stop_timeout,  # it would wait for clients that take nothing for ever
        http1_settings=HTTP1Settings(
            header_read_timeout=int(1000 * options.head_timeout), max_buffer_size=32 * 1024
        ),
    ).serve()


if __name__ == "__main__":
    main()
