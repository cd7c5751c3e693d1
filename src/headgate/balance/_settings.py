"""Settings, records and addresses of balancers, shared by both twins."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping
from math import ceil, gcd
from os import urandom

from headgate._base.addresses import packed_address, unmapped
from headgate._base.checks import checked_int_or_none, checked_number
from headgate.placement._members import checked_weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, NamedTuple, TypeVar

    _Server = TypeVar("_Server")

    class _Fields(NamedTuple, Generic[_Server]):
        server: _Server
        weight: float
        in_flight: int
        latency: float
        health: str
        since: int
else:
    _Fields = namedtuple("_Fields", "server weight in_flight latency health since")

_WORD = 2**64
_MAX_SECONDS = 2**62 / 1e9 / 16
_MAX_STEPS = 1024


class ServerRecord(_Fields["_Server"]):
    """The record of a server in its balancer.

    `latency` is the peak-sensitive moving average in seconds; `health` is ``"healthy"``, ``"ejected"`` or
    ``"draining"``, and `since` is when it became so, by the balancer's clock.

    >>> ServerRecord("a", 1, 0, 0.0, "healthy", 0).health
    'healthy'
    """

    __slots__ = ()


def server_weights(servers: Any) -> list[tuple[Any, float]]:
    """The pairs (server, weight) of the constructor's argument."""
    if isinstance(servers, Mapping):
        return [(server, server_weight(weight)) for server, weight in servers.items()]
    if isinstance(servers, (str, bytes)) or not isinstance(servers, Iterable):
        raise TypeError(
            f"servers must be an iterable of servers or a mapping of server to weight, got {servers!r}")
    return [(server, 1) for server in servers]


def server_weight(weight: float) -> float:
    """The exact weight of a server; in the range that is allowed, sums and ratios of weights are finite."""
    exact = checked_weight(weight)
    if not 1e-100 <= exact <= 1e100:
        raise ValueError(f"weight must be from 1e-100 to 1e100, got {weight!r}")
    return exact


def first_steps(weights: list[float]) -> int:
    """After how many steps a sequence by weight repeats, at most 1024: a random one of them is the first."""
    whole = [int(weight) for weight in weights if weight == int(weight)]
    if len(whole) == len(weights):
        return min(sum(whole) // gcd(*whole), _MAX_STEPS)
    return min(ceil(sum(weights) / min(weights)), _MAX_STEPS)


def random_word() -> int:
    """A random seed of 64 bits."""
    return int.from_bytes(urandom(8), "little")


def checked_scheme(scheme: str) -> str:
    if scheme not in ("headgate", "nginx"):
        raise ValueError(f"scheme must be 'headgate' or 'nginx', got {scheme!r}")
    return scheme


def _nanoseconds(name: str, value: float) -> int:
    seconds = checked_number(name, value)
    if not 0 <= seconds < _MAX_SECONDS:
        raise ValueError(f"{name} must be finite and non-negative, got {value!r}")
    return round(seconds * 1e9)


def _fraction(name: str, value: float) -> float:
    number = checked_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value!r}")
    return float(number)


def _failures(value: int | None) -> int:
    number = checked_int_or_none("max_failures", value)
    if number is None:
        return _WORD // 2 - 1
    if not 1 <= number < _WORD // 2:
        raise ValueError(f"max_failures must be positive, got {value!r}")
    return number


def _checked_seed(seed: int | None) -> int:
    number = checked_int_or_none("seed", seed)
    return random_word() if number is None else number % _WORD


def checked_settings(
        seed: int | None, max_failures: int | None, success_rate: float | None, ejection_time: float,
        max_ejected: float, panic_threshold: float, slow_start: float,
) -> tuple[int, bool, int, float, int, float, float, int]:
    """The settings of a balancer as it stores them, times in nanoseconds."""
    rate = 0.0 if success_rate is None else _fraction("success_rate", success_rate)
    ejection = _nanoseconds("ejection_time", ejection_time)
    if not ejection:
        raise ValueError(f"ejection_time must be positive, got {ejection_time!r}")
    return (_checked_seed(seed), seed is not None, _failures(max_failures), rate, ejection,
            _fraction("max_ejected", max_ejected), _fraction("panic_threshold", panic_threshold),
            _nanoseconds("slow_start", slow_start))


def address_bytes(key: str | bytes, whole: bool) -> bytes:
    """The packed client address of a key: 4 bytes of IPv4; of IPv6 16 if `whole`, else the 8 of its /64."""
    if isinstance(key, str):
        packed = packed_address(key, "key")
    elif isinstance(key, bytes):
        packed = key
    else:
        raise TypeError(f"key must be an address as str or bytes, got {key!r}")
    if len(packed) == 4:
        return packed
    if len(packed) != 16:
        raise ValueError(f"key must have 4 or 16 bytes, got {key!r}")
    return packed if whole else unmapped(packed)[:8]


def nginx_hash(address: bytes, hashed: int) -> int:
    """One round of nginx's ip_hash: over the first three octets of IPv4, all of IPv6."""
    for octet in address[:3] if len(address) == 4 else address:
        hashed = (hashed * 113 + octet) % 6271
    return hashed
