"""Where requests go, by host and path: ``x-edge`` of the document."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from headgate import RoundRobin
from headgate.adapters.aiohttp import HealthChecks
from headgate.adapters.proxy import Hop
from headgate.config import Document

_PURGES = frozenset(("store", "name", "poll", "every", "skew"))


@dataclass(frozen=True)
class Route:
    """Requests for `host`, which may begin with ``*.`` or be ``*``, whose paths begin with `prefix`.

    They go to the balancer `to`, by the `key` where it hashes one: ``url`` or ``client``. Times are in
    seconds: for a connection, for the head of a response and of all attempts, between two parts of a body
    or of what a client sends or takes, and between two messages of a WebSocket, `quiet`.
    """

    to: str
    host: str = "*"
    prefix: str = "/"
    key: str = "url"
    priority: str | None = None
    attempts: int = 3
    connect: float = 2.0
    head: float = 10.0
    deadline: float = 20.0
    idle: float = 30.0
    quiet: float = 300.0

    def __post_init__(self) -> None:
        texts = self.to, self.host, self.prefix, self.key, "" if self.priority is None else self.priority
        if not all(isinstance(text, str) for text in texts) or self.prefix[:1] != "/":
            raise ValueError("names are texts, and a prefix begins with /")
        if not self.host or not self.host.isascii():
            raise ValueError(f"host must be a name as requests have it, a pattern or *, got {self.host!r}")
        if self.key not in ("url", "client"):
            raise ValueError(f"key must be url or client, got {self.key!r}")
        if type(self.attempts) is not int or self.attempts < 1:
            raise ValueError(f"attempts must be a positive number, got {self.attempts!r}")
        for name in ("connect", "head", "deadline", "idle", "quiet"):
            _check_seconds(name, getattr(self, name))

    @property
    def path(self) -> str:
        """The template of this route, which limits by endpoint count."""
        return f"{self.host}{self.prefix}"

    def fits(self, host: str, path: str) -> bool:
        """Whether it takes a request. A prefix ends where a segment of the path does."""
        if self.host not in ("*", host) and not (self.host[:2] == "*." and host.endswith(self.host[1:])):
            return False
        return path.startswith(self.prefix) and (
            self.prefix.endswith("/") or path[len(self.prefix) :][:1] in ("", "/")
        )

    @property
    def rank(self) -> tuple[int, int]:
        """What fits best: a host before a pattern, a long prefix before a short one."""
        return (0 if self.host == "*" else len(self.host) if self.host[0] == "*" else 1000), len(self.prefix)


@dataclass(frozen=True)
class Settings:
    """The edge's own part of the document; see README.md. `stall` are the seconds for which a client may take
    nothing of a response, also of one that is stored; `health` is what HealthChecks take."""

    routes: tuple[Route, ...]
    regions: dict[str, list[str]] = field(default_factory=dict)
    operators: list[str] = field(default_factory=list)
    purges: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] | None = None
    token: str = ""
    stall: float = 30.0

    @classmethod
    def parse(cls, part: Any, document: Document) -> Settings:
        """The part of a document. Raises ValueError or TypeError, which refuse the document."""
        if not isinstance(part, dict) or not isinstance(part.get("routes"), list):
            raise TypeError("a mapping with a list of routes is needed")
        if unknown := sorted(set(part) - {each.name for each in fields(cls)}):
            raise ValueError(f"{unknown[0]}: unknown")
        routes = [_route(each, at, document) for at, each in enumerate(part["routes"])]
        routes.sort(key=lambda route: route.rank, reverse=True)
        settings = cls(**{**part, "routes": tuple(routes)})
        _check_seconds("stall", settings.stall)
        if not isinstance(settings.token, str) or settings.token == "change-me":
            raise ValueError("token must be a secret of your own")
        _check_purges(settings.purges, document)
        _check_regions(settings.regions)
        if settings.health is not None:
            HealthChecks(RoundRobin([]), **settings.health)
        if not isinstance(settings.operators, list):
            raise TypeError(f"operators must be a list of networks, got {settings.operators!r}")
        Hop("networks", settings.operators)
        if isinstance(document.http["trusted"], int):
            raise ValueError("http.trusted must be networks, not a number")
        Hop("networks", document.http["trusted"])
        return settings

    def route(self, host: str, path: str) -> Route | None:
        """The best route for a request."""
        return next((route for route in self.routes if route.fits(host, path)), None)

    def region(self, client: str) -> str:
        """The region of a client, by its network."""
        return _region(tuple((name, tuple(networks)) for name, networks in self.regions.items()), client)


@lru_cache(maxsize=4096)
def _region(regions: tuple[tuple[str, tuple[str, ...]], ...], client: str) -> str:
    address = ip_address(client)
    for name, networks in regions:
        if any(address in ip_network(network, strict=False) for network in networks):
            return name
    return "elsewhere"


def _check_seconds(name: str, seconds: Any, least: float = 0.001) -> None:
    if type(seconds) not in (int, float) or not least <= seconds <= 86400:
        raise ValueError(f"{name} must be from {least} to 86400 seconds, got {seconds!r}")


def _check_purges(purges: Any, document: Document) -> None:
    if not isinstance(purges, dict) or not set(purges) <= _PURGES:
        raise TypeError(f"purges must be a mapping of {', '.join(sorted(_PURGES))}")
    for name in {"store", "name", "poll"} & set(purges):
        if not isinstance(purges[name], str):
            raise TypeError(f"purges.{name} must be a text, got {purges[name]!r}")
    if "store" in purges and purges["store"] not in document.sections["stores"]:
        raise ValueError("purges.store: there is no such store")
    _check_seconds("purges.every", purges.get("every", 5.0), 0.01)
    _check_seconds("purges.skew", purges.get("skew", 0.1), 0)


def _check_regions(regions: Any) -> None:
    if not isinstance(regions, dict):
        raise TypeError("regions must be a mapping")
    for name, networks in regions.items():
        if not name or not name.isascii() or not name.isprintable() or name != name.strip():
            raise ValueError(f"regions must have names that fit into a field, got {name!r}")
        if not isinstance(networks, list) or not all(isinstance(network, str) for network in networks):
            raise TypeError(f"regions.{name} must be a list of networks, got {networks!r}")
        for network in networks:
            ip_network(network, strict=False)


def _route(fields: Any, at: int, document: Document) -> Route:
    """The route that is the element `at` of the list."""
    try:
        route = Route(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"routes[{at}]: {error}") from None
    if route.to not in document.sections["balancers"]:
        raise ValueError(f"routes[{at}].to: there is no balancer {route.to!r}")
    return route
