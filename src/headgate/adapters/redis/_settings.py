"""Where the servers of a client are and how to log in: all that is taken from the client."""

from __future__ import annotations

from importlib import import_module

from headgate.adapters.redis._replies import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from ssl import SSLContext
    from typing import Any

_PACKAGES = ("redis", "valkey")
_OCSP = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")


class Login:
    """How a connection is encrypted and what is sent on it first."""

    __slots__ = ("_client_name", "_database", "_provider", "_user", "tls")

    def __init__(self, package: str, options: Mapping[str, Any], encrypted: bool) -> None:
        self._provider: Any = options.get("credential_provider")
        self._user = options.get("username"), options.get("password")
        self._database = int(options.get("db") or 0)
        self._client_name = options.get("client_name")
        self.tls = _tls(package, options) if encrypted else None

    def commands(self) -> list[bytes]:
        """What is sent on a new connection, with credentials that are asked for each time."""
        if not self._provider:
            return self._with(self._credentials())
        try:
            found = self._provider.get_credentials()
        except Exception as error:
            raise _no_credentials(error) from error
        return self._with(found)

    async def commands_async(self) -> list[bytes]:
        """``commands`` where the provider of credentials may wait."""
        if not hasattr(self._provider, "get_credentials_async"):
            return self.commands()
        try:
            found = await self._provider.get_credentials_async()
        except Exception as error:
            raise _no_credentials(error) from error
        return self._with(found)

    def _credentials(self) -> tuple[Any, ...]:
        name, password = self._user
        if not (name or password):
            return ()
        return (name, password or "") if name else (password,)

    def _with(self, credentials: Iterable[Any]) -> list[bytes]:
        words = [part if isinstance(part, bytes) else str(part).encode() for part in credentials]
        commands = [packed(b"AUTH", *words)] if words else []
        if self._client_name:
            commands.append(packed(b"CLIENT", b"SETNAME", str(self._client_name).encode()))
        if self._database:
            commands.append(packed(b"SELECT", b"%d" % self._database))
        return commands


def _no_credentials(error: Exception) -> ConnectionError:
    """The error for a provider that failed with another one: without credentials there is no connection."""
    return ConnectionError(f"no credentials: {error!r}")


class Server:
    """One server: an address, or the path of its socket, and how to log in."""

    __slots__ = ("address", "login", "path")

    def __init__(self, address: tuple[str, int], login: Login, path: str | None = None) -> None:
        self.address = address
        self.login = login
        self.path = path

    def at(self, address: tuple[str, int]) -> Server:
        """Another server with the same login."""
        return Server(address, self.login)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Server) and (self.address, self.path) == (other.address, other.path)

    def __hash__(self) -> int:
        return hash((self.address, self.path))

    def __str__(self) -> str:
        host, port = self.address
        return self.path or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


class Settings:
    """The servers that a client is for.

    `kind` is ``"single"``, ``"sentinel"`` (then `servers` are the sentinels, and `master` has the login of
    the master called `name`) or ``"cluster"`` (then `servers` are those that are asked first, and `remap`
    returns the address to use for one that they tell).
    """

    __slots__ = ("exceptions", "kind", "master", "name", "remap", "servers")

    def __init__(self, client: Any) -> None:
        package = _package(client)
        self.exceptions = import_module(f"{package}.exceptions")
        self.name: str = ""
        self.master: Server | None = None
        self.remap: Callable[[tuple[str, int]], tuple[str, int]] = _as_told
        pool: Any = getattr(client, "connection_pool", None)
        manager = getattr(client, "nodes_manager", None)
        if manager is not None:
            self.kind = "cluster"
            options = manager.connection_kwargs
            self.remap = getattr(manager, "address_remap", None) or _as_told
            login = Login(package, {**options, "db": 0}, _is_encrypted(options))
            nodes = manager.startup_nodes.values()
            self.servers = [Server((node.host, int(node.port)), login) for node in nodes]
        elif hasattr(pool, "sentinel_manager"):
            if not pool.is_master:
                raise ValueError(f"client must be one of the master, got {client!r}")
            self.kind = "sentinel"
            self.name = pool.service_name
            self.master = _single(package, pool)
            pools = [each.connection_pool for each in pool.sentinel_manager.sentinels]
            self.servers = [_single(package, each) for each in pools]
        else:
            self.kind = "single"
            self.servers = [_single(package, pool)]


def _as_told(address: tuple[str, int]) -> tuple[str, int]:
    return address


def _package(client: Any) -> str:
    """The package that a client is from."""
    for cls in type(client).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in _PACKAGES and (hasattr(client, "connection_pool") or hasattr(client, "nodes_manager")):
            return package
    raise TypeError(f"client must be a client of redis or valkey, got {client!r}")


def _single(package: str, pool: Any) -> Server:
    options = pool.connection_kwargs
    encrypted = _is_encrypted({"connection_class": pool.connection_class})
    address = options.get("host") or "localhost", int(options.get("port") or 6379)
    return Server(address, Login(package, options, encrypted), options.get("path"))


def _is_encrypted(options: Mapping[str, Any]) -> bool:
    bases = getattr(options.get("connection_class"), "__mro__", ())
    return bool(options.get("ssl")) or any(base.__name__ == "SSLConnection" for base in bases)


def _tls(package: str, options: Mapping[str, Any]) -> SSLContext:
    """The context that the client's package makes of its settings."""
    if any(options.get(name) for name in _OCSP):
        raise ValueError("client must not validate OCSP: connections of limiters cannot")
    wanted = {
        name: value for name, value in options.items() if name.startswith("ssl_") and "ocsp" not in name
    }
    connection = import_module(f"{package}.asyncio.connection").SSLConnection(**wanted)
    context: SSLContext = connection.ssl_context.get()
    return context
