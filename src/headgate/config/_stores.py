"""Clients of the stores of a document. None connects before it is used."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PACKAGES = ("redis", "valkey")
_CLIENTS = {"redis": ("Redis", "RedisCluster"), "valkey": ("Valkey", "ValkeyCluster")}


class StoreClients:
    """The clients of a store: `client` for threads and `async_client` for event loops, by the package redis
    or valkey. `settings` is one from which limits and caches take addresses and logins.

    Raises ImportError if there is no such package, ValueError if the URL is none.
    """

    __slots__ = ("_client", "_fields", "_package", "async_client", "settings")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._package = _package(fields["package"])
        self._client: Any = None
        self.async_client = self._made(f"{self._package}.asyncio")
        self.settings = self.async_client if fields["kind"] == "cluster" else self.client

    @property
    def client(self) -> Any:
        """The client for threads; that of a cluster connects when it is made."""
        if self._client is None:
            self._client = self._made(self._package)
        return self._client

    def _made(self, package: str) -> Any:
        module, fields = import_module(package), self._fields
        single, cluster = _CLIENTS[self._package]
        if fields["kind"] == "cluster":
            return getattr(import_module(f"{package}.cluster"), cluster).from_url(fields["url"])
        client = getattr(module, single).from_url(fields["url"])
        if fields["kind"] == "single":
            return client
        pool = client.connection_pool
        options = dict(pool.connection_kwargs)
        name = options.pop("host")
        options.pop("port", None)
        if pool.connection_class.__name__ == "SSLConnection":
            options["ssl"] = True
        login = {"ssl": True} if "ssl" in options else {}
        addresses = [_address(each) for each in fields["sentinels"]]
        sentinel = import_module(f"{package}.sentinel").Sentinel(addresses, sentinel_kwargs=login, **options)
        return sentinel.master_for(name)

    def close(self) -> None:
        """Close the connections of `client`; a later call opens others."""
        if self._client is not None:
            self._client.close()

    async def aclose(self) -> None:
        """Close the connections of `async_client` in the running loop; a later call opens others."""
        await self.async_client.aclose()

    def __repr__(self) -> str:
        return f"<StoreClients {self._fields['kind']} of {self._package}>"


def _package(wanted: str | None) -> str:
    for package in _PACKAGES if wanted is None else (wanted,):
        if find_spec(package) is not None:
            return package
    name, extra = wanted or " or ".join(_PACKAGES), wanted or _PACKAGES[0]
    raise ModuleNotFoundError(f"needs the package {name}: pip install 'headgate[{extra}]'")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"sentinels must be addresses as host:port, got {text!r}")
    return host.strip("[]"), int(port)
