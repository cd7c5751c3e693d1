"""Settings, records and addresses of balancers, shared by both twins."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping
from math import ceil, gcd
from os import urandom

from headgate._base.addresses import packed_address, unmapped
from headgate._base.checks import checked_int, checked_int_or_none, checked_number
from headgate.placement._members import checked_weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
_LEAST_SHARE = 0.0001
_LEAST_COUNT = 100


class ServerRecord(_Fields["_Server"]):
    """The record of a server in its balancer.

    `latency` is the peak-sensitive moving average in seconds; `health` is ``"healthy"``, ``"ejected"``,
    ``"down"`` or ``"draining"``, and `since` is when it became so, by the balancer's clock.

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


def _positive(name: str, value: int) -> int:
    number = checked_int(name, value)
    if not 1 <= number < _WORD // 2:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return number


def _failures(name: str, value: int | None) -> int:
    number = checked_int_or_none(name, value)
    return _WORD // 2 - 1 if number is None else _positive(name, number)


def _checked_seed(seed: int | None) -> int:
    number = checked_int_or_none("seed", seed)
    return random_word() if number is None else number % _WORD


def _success_rate(name: str, value: float | None) -> float:
    return 0.0 if value is None else _fraction(name, value)


def _ejection_time(name: str, value: float) -> int:
    ejection = _nanoseconds(name, value)
    if not ejection:
        raise ValueError(f"ejection_time must be positive, got {value!r}")
    return ejection


def _hot_share(name: str, value: float) -> float:
    number = checked_number(name, value)
    if not _LEAST_SHARE <= number <= 1:
        raise ValueError(f"{name} must be from {_LEAST_SHARE} to 1, got {value!r}")
    return float(number)


_SETTINGS: dict[str, Callable[[str, Any], float]] = {
    "max_failures": _failures,
    "success_rate": _success_rate,
    "ejection_time": _ejection_time,
    "max_ejected": _fraction,
    "panic_threshold": _fraction,
    "slow_start": _nanoseconds,
}
_CHECKS = _SETTINGS | {"hot_replicas": _positive, "hot_share": _hot_share}


def checked_settings(
        seed: int | None, max_failures: int | None, success_rate: float | None, ejection_time: float,
        max_ejected: float, panic_threshold: float, slow_start: float,
) -> tuple[Any, ...]:
    """The settings of a balancer as it stores them, times in nanoseconds."""
    values = max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start
    stored = [check(name, value) for (name, check), value in zip(_SETTINGS.items(), values, strict=True)]
    return _checked_seed(seed), seed is not None, *stored


def checked_hot_settings(hot_replicas: int, hot_share: float) -> tuple[int, float]:
    """The settings of hot keys, as `KeyHash` stores them."""
    return _positive("hot_replicas", hot_replicas), _hot_share("hot_share", hot_share)


def changed_settings(present: Mapping[str, float], changes: Mapping[str, Any]) -> dict[str, float]:
    """The settings that may change, as they are stored, with `changes` by the names of arguments."""
    for name in changes:
        if name not in present:
            raise TypeError(f"settings must be among {', '.join(present)}, got {name!r}")
    return {
        name: _CHECKS[name](name, changes[name]) if name in changes else value
        for name, value in present.items()
    }


def hot_keys(counted: Any, hot_share: float) -> frozenset[Any]:
    """The keys of `HotKeys` with at least that share of the total, and at least 100, by their lower bound."""
    least = max(_LEAST_COUNT, hot_share * counted.total)
    rows = counted.top(int(1 / hot_share) + 1)  # counts sum up to `total` at most
    return frozenset([row.key for row in rows if row.count - row.error >= least])


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
