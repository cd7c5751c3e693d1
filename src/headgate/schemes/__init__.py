"""How the programs of a fleet place points and hash keys, so that a HashRing agrees with them.

A `Scheme` says where the points of a node lie, how a key is hashed and how the circle is searched.
The functions here make one with the options of the program: ``HashRing(nodes, scheme=haproxy())``;
``scheme="haproxy"`` is the same with the program's defaults. `headgate` is our own scheme, with another
hash function if there must be one. Both twins share this one copy; the compiled twin hashes keys by
functions of its own, which tests hold against those here.
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
    """The scheme that an argument names or is."""
    if isinstance(scheme, Scheme):
        return scheme
    if isinstance(scheme, str) and scheme in _MAKERS:
        return _MAKERS[scheme]()
    raise ValueError(f"scheme must be one of {', '.join(_MAKERS)} or a Scheme, got {scheme!r}")
