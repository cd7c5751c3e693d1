"""The address of the client behind proxies, and the networks that addresses are in."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop
from functools import lru_cache, partial

from headgate._base.addresses import packed_address, unmapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

_NAT64 = bytes.fromhex("0064ff9b0000000000000000")
_6TO4 = b"\x20\x02"
UNIX = "unix"
_MOST_PAIRS = 16
_LONGEST_CACHED = 64
_MOST_CACHED = 4096
"""How long texts of addresses are that a cache keeps, and how many: clients choose them."""


def carried(packed: bytes) -> bytes:
    """The IPv4 address that one of NAT64 (``64:ff9b::/96``) or 6to4 (``2002::/16``) carries, or the same."""
    if packed.startswith(_NAT64):
        return packed[12:]
    return packed[2:6] if len(packed) == 16 and packed.startswith(_6TO4) else packed


def network_of(text: object) -> tuple[int, int, int] | None:
    """The bits of an address, how many of them a network or a single address fixes, and the number that those
    make; None if `text` is neither. A network within NAT64 or 6to4 is one of IPv4.
    """
    address, slash, length = text.partition("/") if isinstance(text, str) else ("", "", "")
    try:
        packed = unmapped(packed_address(address))
        bits = 8 * len(packed)
        free = bits - checked_length("network", int(length), bits) if slash else 0
    except ValueError:
        return None
    inner = carried(packed)
    skipped = 96 if inner == packed[12:] else 16
    if inner == packed or bits - free < skipped:
        return bits, bits - free, int.from_bytes(packed) >> free
    free = max(0, 32 - (bits - free - skipped))
    return 32, 32 - free, int.from_bytes(inner) >> free


def checked_length(name: str, length: int, most: int) -> int:
    """The length of a prefix of an address of `most` bits."""
    if isinstance(length, bool) or not isinstance(length, int):
        raise TypeError(f"{name} must be an int, got {length!r}")
    if not 0 <= length <= most:
        raise ValueError(f"{name} must be in [0, {most}], got {length!r}")
    return length


def masked(packed: bytes, length: int) -> bytes:
    """An address with all but its first `length` bits cleared."""
    free = 8 * len(packed) - length
    return (int.from_bytes(packed) >> free << free).to_bytes(len(packed))


def address_prefix(address: str, v4: int = 32, v6: int = 64) -> str:
    """The network of an address, as the key of a limit: the first `v4` or `v6` bits.

    A host that has an IPv6 address usually has all those of a /64, or more. IPv4 inside IPv6 is IPv4: mapped,
    of NAT64 (``64:ff9b::/96``) and of 6to4 (``2002::/16``). The ``"unix"`` of `client_address` is a network
    of its own.

    Raises ValueError if `address` is not one or a length is out of range, TypeError if a length is no int.

    >>> address_prefix("2001:db8::17"), address_prefix("::ffff:192.0.2.17", v4=24)
    ('2001:db8::/64', '192.0.2.0/24')
    """
    if type(address) is str and type(v4) is type(v6) is int and len(address) <= _LONGEST_CACHED:
        return _cached_prefix(address, v4, v6)
    return _prefix(address, v4, v6)


def _prefix(address: str, v4: int, v6: int) -> str:
    v4, v6 = checked_length("v4", v4, 32), checked_length("v6", v6, 128)
    if address == UNIX:
        return UNIX
    packed = carried(unmapped(packed_address(address)))
    length = v4 if len(packed) == 4 else v6
    return f"{address_text(masked(packed, length))}/{length}"


_cached_prefix = lru_cache(maxsize=_MOST_CACHED)(_prefix)


def client_address(
    request: Mapping[str, Any],
    trusted: Iterable[object] | int = (),
    *,
    header: str = "X-Forwarded-For",
    peer: str | None = None,
) -> str:
    """The address of the client that sent a request, which may have come through proxies.

    `request` is the scope of an ASGI application, the environ of a WSGI application or a mapping of header
    names. The first two contain the address of the peer; for a plain mapping it is `peer`, and without one
    the headers are taken for those of a trusted proxy.

    `trusted` names the proxies, as addresses and networks (``"10.0.0.0/8"``, or those of `ipaddress`; in one
    text, with commas between them) and ``"unix"`` for those that connect through a Unix socket; or it is how
    many proxies there are. The
    addresses in `header` are read from right to left, since each proxy appends its peer, and the
    first that is not a trusted proxy's is returned. Entries further left are claims of that client, and are
    ignored. If an entry is not an address, the proxy that wrote it is returned. A client on a Unix socket, or
    one of which nothing is known, is ``"unix"``.

    Only one header is ever read, X-Forwarded-For, ``"Forwarded"`` (RFC 7239) or another one: name the one
    that your proxies write, since they hand on the others as the client sent them.

    Raises ValueError if an address in `trusted` is not one, TypeError if `trusted`, `request` or what it
    holds is of another type.
    Complexity: O(length of the header + entries that are read x trusted networks).

    >>> scope = {"type": "http", "client": ("10.0.0.1", 5), "headers": [
    ...     (b"x-forwarded-for", b"1.1.1.1, 203.0.113.9"), (b"x-forwarded-for", b"10.0.0.2")]}
    >>> client_address(scope), client_address(scope, trusted=["10.0.0.0/8"])
    ('10.0.0.1', '203.0.113.9')
    >>> client_address({"X-Forwarded-For": "1.1.1.1, 203.0.113.9"}, trusted=1, peer="10.0.0.1")
    '203.0.113.9'
    """
    if not hasattr(request, "get"):
        raise TypeError(f"request must be a scope, an environ or a mapping of headers, got {request!r}")
    proxies = _proxies(_checked_trusted(trusted), header)
    if isinstance(request.get("wsgi.version"), tuple) or isinstance(request.get("wsgi.multithread"), bool):
        return proxies.client(peer or request.get("REMOTE_ADDR"), partial(_in_environ, request))
    headers = request.get("headers", request.get("client", ""))
    if not isinstance(headers, str):  # no client can fake that in a mapping of headers
        client = request.get("client")
        return proxies.client(peer or (client[0] if client else None), partial(_in_scope, request))
    if peer is None:
        return proxies.first_untrusted(UNIX, _in_mapping(request, header))
    return proxies.client(peer, partial(_in_mapping, request))


class Proxies:
    """The proxies that are trusted, and the header that they write, of many requests.

    Raises what `client_address` raises.

    >>> proxies = Proxies(["10.0.0.0/8"], "X-Forwarded-For")
    >>> proxies.client("10.0.0.1", {"X-Forwarded-For": "1.1.1.1, 203.0.113.9"}.get)
    '203.0.113.9'
    """

    __slots__ = ("_header", "_hops", "_is_forwarded", "_trusts")

    def __init__(self, trusted: Iterable[object] | int = (), header: str = "X-Forwarded-For") -> None:
        if not isinstance(header, str):
            raise TypeError(f"header must be a str, got {header!r}")
        checked = _checked_trusted(trusted)
        self._hops = checked if isinstance(checked, int) else 0
        self._trusts = None if isinstance(checked, int) else trusted_networks(checked)
        self._header = header
        self._is_forwarded = header.lower() == "forwarded"

    def client(self, peer: str | None, read: Callable[[str], str | None]) -> str:
        """The address of the client, for a request that came from the address `peer`, of which nothing is
        known if it is None or empty. `read` is called with the name of the header if the peer is trusted, and
        returns all its lines as one, or None.

        Complexity: O(length of the header + entries that are read x trusted networks).
        """
        if not peer:
            nearest = UNIX
        elif isinstance(peer, str):
            nearest = address_of(peer) or peer
        else:
            raise TypeError(f"peer must be a str or None, got {peer!r}")
        if self._hops > 0 if self._trusts is None else self._trusts(nearest):
            return self.first_untrusted(nearest, read(self._header))
        return nearest

    def first_untrusted(self, nearest: str, value: str | None) -> str:
        """The first address from the right in the header that is not that of a trusted proxy, or else the
        last one that was read; `nearest` if none was.
        """
        if not value:
            return nearest
        if self._is_forwarded:
            value = _unquoted(value)
        trusts, hops, end = self._trusts, 0, len(value)
        while end >= 0:
            start = value.rfind(",", 0, end)
            entry = value[start + 1 : end]
            address = address_of(_node(entry) if self._is_forwarded else entry)
            if address is None:
                break
            nearest, hops, end = address, hops + 1, start
            if hops >= self._hops if trusts is None else not trusts(address):
                break
        return nearest


_proxies = lru_cache(maxsize=64)(Proxies)


def _checked_trusted(trusted: Iterable[object] | int) -> tuple[object, ...] | int:
    """The networks, or the number of proxies."""
    if isinstance(trusted, str):
        return tuple(map(str.strip, trusted.split(",")))
    if hasattr(trusted, "__iter__"):
        return tuple(trusted)
    if isinstance(trusted, bool) or not isinstance(trusted, int):
        raise TypeError(f"trusted must be addresses or a number of proxies, got {trusted!r}")
    if trusted < 0:
        raise ValueError(f"trusted must be non-negative, got {trusted!r}")
    return trusted


class _Networks:
    """Trusted networks: bits of an address, bits that are free, the number that the others make."""

    __slots__ = ("_networks", "_unix")

    def __init__(self, trusted: tuple[object, ...]) -> None:
        names = list(map(str, trusted))
        self._unix = UNIX in names
        self._networks = [_network(text) for text in names if text != UNIX]

    def include(self, address: str) -> bool:
        try:
            packed = unmapped(packed_address(address))
        except ValueError:
            return self._unix and address == UNIX
        bits, number = 8 * len(packed), int.from_bytes(packed)
        return any(bits == width and number >> free == fixed for width, free, fixed in self._networks)


@lru_cache(maxsize=64)
def trusted_networks(trusted: tuple[object, ...]) -> Callable[[str], bool]:
    """Whether an address is in one of these networks."""
    return lru_cache(maxsize=_MOST_CACHED)(_Networks(trusted).include)


def _network(text: str) -> tuple[int, int, int]:
    address, slash, length = text.partition("/")
    try:
        packed = unmapped(packed_address(address))
        bits = 8 * len(packed)
        mapped = 96 if bits == 32 and ":" in address else 0
        free = bits - checked_length("trusted", int(length) - mapped, bits) if slash else 0
    except ValueError:
        raise ValueError(f"trusted must be addresses, networks or 'unix', got {text!r}") from None
    return bits, free, int.from_bytes(packed) >> free


def _in_environ(environ: Mapping[str, Any], header: str) -> str:
    value: str = environ.get(f"HTTP_{header.upper().replace('-', '_')}", "")
    return value


def _in_mapping(headers: Mapping[str, str], header: str) -> str:
    return ",".join(_values(headers, header.lower()))


def _in_scope(scope: Mapping[str, Any], header: str) -> str:
    headers, wanted = scope.get("headers", ()), _field(header)
    size = len(wanted)
    try:
        lines = [text for name, text in headers if len(name) == size and name.lower() == wanted]
        return str(b",".join(lines) if len(lines) > 1 else lines[0], "latin-1")
    except (IndexError, TypeError):  # there is none, or they are not bytes
        return b",".join(_lines(headers, wanted)).decode("latin-1")


@lru_cache(maxsize=64)
def _field(header: str) -> bytes:
    return header.lower().encode()


def _values(headers: Mapping[str, str], wanted: str) -> Iterator[str]:
    for name, text in headers.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"request must map names of headers to str, got {name!r}: {text!r}")
        if name.lower() == wanted:
            yield text


def _lines(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> Iterator[bytes]:
    for name, text in headers:
        if not isinstance(name, bytes) or not isinstance(text, bytes):
            raise TypeError(f"request must have headers of bytes, got {name!r}: {text!r}")
        if name.lower() == wanted:
            yield text


def _unquoted(value: str) -> str:
    """`value` without quotes and the separators in them; they pair from the right, where proxies write."""
    parts = value.replace(r"\\", "").replace(r"\"", "").split('"')
    parts[-2::-2] = [part.replace(",", "").replace(";", "") for part in parts[-2::-2]]
    return "".join(parts)


def _node(element: str) -> str:
    pairs = (pair.partition("=") for pair in element.split(";", _MOST_PAIRS))
    return next((node.strip() for name, _, node in pairs if name.strip().lower() == "for"), "")


def address_of(entry: str) -> str | None:
    """The address of an entry without its port, or None if it is none."""
    return _cached_address(entry) if len(entry) <= _LONGEST_CACHED else _read_address(entry)


def _read_address(entry: str) -> str | None:
    entry = entry.strip()
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    try:
        return address_text(unmapped(packed_address(entry)))
    except ValueError:
        return None


_cached_address = lru_cache(maxsize=_MOST_CACHED)(_read_address)


def address_text(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
