"""Addresses of hosts, by c-ares: unlike in a few threads, no name waits for the server of another."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import aiodns

Address = tuple[str, int] | tuple[str, int, int, int]


class Names:
    """A resolver for one event loop. It reads /etc/hosts, and asks `servers` or those of /etc/resolv.conf.

    A literal address is its own, and no other form of a number is one.
    """

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._resolver = aiodns.DNSResolver(servers or None, timeout=1.0, tries=3)

    async def addresses(self, host: str, port: int) -> list[tuple[socket.AddressFamily, Address]]:
        """The addresses, in the order in which to try them. Raises OSError, TimeoutError included."""
        try:
            found = await self._resolver.getaddrinfo(host, port=port, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            kind = TimeoutError if error.args[0] == aiodns.error.ARES_ETIMEOUT else OSError
            raise kind(f"{host}: {error.args[1]}") from error
        return [(node.family, (node.addr[0].decode(), *node.addr[1:])) for node in found.nodes]

    async def close(self) -> None:
        await self._resolver.close()
