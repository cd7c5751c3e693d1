"""Realistic keys: their shapes, and their frequencies by Zipf's law."""

from collections.abc import Callable
from itertools import accumulate
from random import Random

_SEED = 20240229
_SKEW = 0.99
_PATHS = (
    "/api/v1/users/{}/orders",
    "/api/v1/products/{}?currency=EUR",
    "/static/img/{}.webp",
    "/blog/2024/{}-a-headline-of-some-length",
)


def user_id(number: int) -> str:
    return f"user:{number}"


def url_path(number: int) -> str:
    return _PATHS[number % len(_PATHS)].format(number)


def address(number: int) -> str:
    """Two IPv4 addresses for each IPv6 one; distinct for distinct numbers below 2**24."""
    scattered = number * 0x9E3779B1 & 0xFFFF_FFFF
    if number % 3:
        return ".".join(str(scattered >> shift & 255) for shift in (24, 16, 8, 0))
    return f"2001:db8:{scattered >> 16:x}:{scattered & 0xFFFF:x}::1"


SHAPES: dict[str, Callable[[int], str]] = {"users": user_id, "paths": url_path, "addresses": address}


def zipf_ranks(distinct: int, requests: int, skew: float = _SKEW, seed: int = _SEED) -> list[int]:
    """`requests` draws from [0, distinct) where rank r has probability proportional to 1/(r+1)**skew."""
    weights = list(accumulate((rank + 1) ** -skew for rank in range(distinct)))
    return Random(seed).choices(range(distinct), cum_weights=weights, k=requests)


def request_keys(shape: Callable[[int], str], distinct: int, requests: int) -> list[str]:
    """A request stream: equal keys are distinct objects, as in a service that parses each request."""
    numbers = list(range(distinct))
    Random(_SEED).shuffle(numbers)
    return [shape(numbers[rank]) for rank in zipf_ranks(distinct, requests)]
