"""Schemes of HashRing: how other programs place points and hash keys.

A `Scheme` determines the points of a node, the hash of a key and the search of the ring. Each function of
this package returns the scheme of a program with its options: ``HashRing(nodes, scheme=haproxy())``;
``scheme="haproxy"`` is the same with default options. `headgate` returns headgate's own scheme, with another
hash function. Both twins share this code, but the compiled twin hashes keys by functions of its own, which
tests compare with those here.
"""

from collections.abc import Callable

from headgate.schemes._envoy import envoy
from headgate.schemes._haproxy import haproxy
from headgate.schemes._headgate import headgate
from headgate.schemes._libmemcached import libmemcached
from headgate.schemes._nginx import nginx
from headgate.schemes._program import Program as Program
from headgate.schemes._scheme import Scheme
from headgate.schemes._twemproxy import twemproxy
from headgate.schemes._uhashring import uhashring

__all__ = ["Scheme", "envoy", "haproxy", "headgate", "libmemcached", "nginx", "twemproxy", "uhashring"]

_MAKERS: dict[str, Callable[..., Scheme]] = {
    maker.__name__: maker for maker in (headgate, libmemcached, uhashring, twemproxy, nginx, envoy, haproxy)
}


def find(scheme: object) -> Scheme:
    """The scheme that `scheme` is or names."""
    if isinstance(scheme, Scheme):
        return scheme
    if isinstance(scheme, str) and scheme in _MAKERS:
        return _MAKERS[scheme]()
    raise ValueError(f"scheme must be one of {', '.join(_MAKERS)} or a Scheme, got {scheme!r}")
