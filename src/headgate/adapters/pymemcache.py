"""Placement for pymemcache's HashClient: ``HashClient(servers, hasher=hasher())``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from headgate._base.checks import checked_callable
from headgate._base.forks import new_lock
from headgate.placement import HashRing, Rendezvous

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.schemes import Scheme

__all__ = ["Hasher", "hasher"]


class Hasher:
    """The hasher of a HashClient; made by the callable that `hasher` returns."""

    __slots__ = ("_lock", "_lookup", "_unknown", "_weights", "get_node", "placement")

    def __init__(self, scheme: str | Scheme, weights: dict[str, float],
                 node_key: Callable[[str], str | bytes | int] | None) -> None:
        self.placement: HashRing[str] | Rendezvous[str]
        if scheme == "pymemcache":
            self.placement = Rendezvous(scheme="pymemcache", node_key=node_key)
        else:
            self.placement = HashRing(scheme=scheme, node_key=node_key)
        by_str = scheme == "pymemcache" or getattr(scheme, "name", scheme) == "uhashring"
        self._lookup = self._get_node_by_str if by_str else self.placement.get_node
        self.get_node = self._get_node_first if weights else self._lookup
        self._weights = weights
        self._unknown = set(weights)
        self._lock = new_lock()

    def _get_node_first(self, key: str | bytes) -> str | None:
        """The first lookup: all servers have been added, so that a weight for any other is an error."""
        if self._unknown:
            raise ValueError("weights must be of servers of the client, got "
                             + ", ".join(map(repr, sorted(self._unknown))))
        self.get_node = self._lookup
        return self._lookup(key)

    def _get_node_by_str(self, key: str | bytes) -> str | None:
        """Some programs hash ``str(key)``, which is the repr of bytes."""
        return self.placement.get_node(key if isinstance(key, str) else repr(key))

    def add_node(self, node: str) -> None:
        """Add a server. One that is present is kept, as HashClient revives it once per thread."""
        with self._lock:
            self._unknown.discard(node)
            if node not in self.placement:
                self.placement.add_node(node, self._weights.get(node, 1))

    def remove_node(self, node: str) -> None:
        """Remove a server.

        Raises ValueError if it is not present, as pymemcache's own hasher does.
        """
        try:
            self.placement.remove_node(node)
        except KeyError as error:
            raise ValueError(*error.args) from None


def hasher(scheme: str | Scheme = "headgate", *, weights: Mapping[str, float] | None = None,
           node_key: Callable[[str], str | bytes | int] | None = None) -> Callable[[], Hasher]:
    """Returns the `hasher` argument of HashClient: a callable that makes the placement of one client.

    `scheme` decides which server a key belongs to. ``"headgate"`` is HashRing's own; ``"pymemcache"``
    keeps every key where HashClient places it without a hasher; ``"uhashring"``, ``"libmemcached"``,
    ``"twemproxy"`` and ``"nginx"``, or a Scheme of headgate.schemes, agree with these programs. With
    ``"pymemcache"`` and ``"uhashring"`` a key given as bytes is placed as by these, which differs from the
    equal str; with all others it is the same key.

    HashClient names a server ``"host:port"``, or by the path of its socket. `weights` maps these names
    to weights, by default 1; `node_key` returns the name of the server in the program of the scheme, if that
    differs.

    Raises ValueError if `scheme` is unknown, TypeError if another argument has the wrong type. The first
    lookup raises ValueError if a name in `weights` is not that of a server.

    Complexity: that of HashRing, or of Rendezvous with ``"pymemcache"``. Servers that are added one by one
    cost one build, at the first lookup.

    >>> make = hasher("libmemcached", weights={"10.0.0.1:11211": 2})
    >>> servers = make()
    >>> servers.add_node("10.0.0.1:11211")
    >>> servers.add_node("10.0.0.2:11211")
    >>> servers.get_node("user:1")
    '10.0.0.2:11211'
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(f"weights must be a mapping of server to weight or None, got {weights!r}")
    checked_callable("node_key", node_key)
    make = partial(Hasher, scheme, dict(weights or {}), node_key)
    make()
    return make
