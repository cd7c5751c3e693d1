"""IP addresses as bytes."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

_MAPPED = bytes(10) + b"\xff\xff"


def packed_address(address: str, name: str = "address") -> bytes:
    """The 4 or 16 bytes of an address, without its zone; `name` is that of the argument in an error."""
    try:
        if ":" not in address:
            return inet_pton(AF_INET, address)
        return inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, TypeError, ValueError):
        raise ValueError(f"{name} must be an IPv4 or IPv6 address, got {address!r}") from None


def unmapped(packed: bytes) -> bytes:
    """The IPv4 address that is mapped into an IPv6 address, or the same address."""
    return packed[12:] if packed.startswith(_MAPPED) else packed
