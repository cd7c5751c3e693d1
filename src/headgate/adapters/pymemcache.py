"""Placement for pymemcache's HashClient: ``HashClient(servers, hasher=hasher())``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from headgate._forks import new_lock
from headgate.placement import HashRing, Rendezvous

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.schemes import Scheme

__all__ = ["Hasher", "hasher"]


class Hasher:
    """What HashClient asks where a key belongs; made by the callable that `hasher` returns."""

    __slots__ = ("_absent", "_find", "_lock", "_weights", "get_node", "placement")

    def __init__(self, scheme: str | Scheme, weights: dict[str, float],
                 node_key: Callable[[str], str | bytes | int] | None) -> None:
        self.placement: HashRing[str] | Rendezvous[str]
        if scheme == "pymemcache":
            self.placement = Rendezvous(scheme="pymemcache", node_key=node_key)
        else:
            self.placement = HashRing(scheme=scheme, node_key=node_key)
        by_str = scheme == "pymemcache" or getattr(scheme, "name", scheme) == "uhashring"
        self._find = self._get_node_by_str if by_str else self.placement.get_node
        self.get_node = self._get_first_node if weights else self._find
        self._weights = weights
        self._absent = set(weights)
        self._lock = new_lock()

    def _get_first_node(self, key: str | bytes) -> str | None:
        """The first lookup, when all servers are there, so that a weight of none of them is a mistake."""
        if self._absent:
            raise ValueError("weights must be of servers that the client has, got "
                             + ", ".join(map(repr, sorted(self._absent))))
        self.get_node = self._find
        return self._find(key)

    def _get_node_by_str(self, key: str | bytes) -> str | None:
        """These programs hash ``str(key)``: the repr of bytes."""
        return self.placement.get_node(key if isinstance(key, str) else repr(key))

    def add_node(self, node: str) -> None:
        """Adds a server; one that is there already stays, since HashClient revives it once a thread."""
        with self._lock:
            self._absent.discard(node)
            if node not in self.placement:
                self.placement.add_node(node, self._weights.get(node, 1))

    def remove_node(self, node: str) -> None:
        """Removes a server.

        Raises ValueError if it is not there, as pymemcache's own hasher does.
        """
        try:
            self.placement.remove_node(node)
        except KeyError as error:
            raise ValueError(*error.args) from None


def hasher(scheme: str | Scheme = "headgate", *, weights: Mapping[str, float] | None = None,
           node_key: Callable[[str], str | bytes | int] | None = None) -> Callable[[], Hasher]:
    """What HashClient takes as its `hasher`: a callable that makes the placement of one client.

    `scheme` says which server a key belongs to. ``"headgate"`` is HashRing's own; ``"pymemcache"``
    leaves every key where HashClient has it without a hasher; ``"uhashring"``, ``"libmemcached"``,
    ``"twemproxy"`` and ``"nginx"``, or a Scheme of headgate.schemes, agree with these programs. Under
    ``"pymemcache"`` and ``"uhashring"`` a key given as bytes belongs where these have it, which is not
    where its str does; under all others it is the same key.

    HashClient calls a server ``"host:port"``, or by the path of its socket. `weights` maps these names
    to weights, 1 for those it lacks; `node_key` returns the name that the program of the scheme knows
    the server by, where that is another one.

    Raises ValueError if there is no such `scheme`, TypeError if another argument has the wrong type. A name
    in `weights` that is none of the servers by the first lookup is a ValueError there.

    Complexity: of the calls that HashClient makes, as HashRing; as Rendezvous under ``"pymemcache"``.
    Servers that are added one by one cost one build, at the first key.

    >>> make = hasher("libmemcached", weights={"10.0.0.1:11211": 2})
    >>> servers = make()
    >>> servers.add_node("10.0.0.1:11211")
    >>> servers.add_node("10.0.0.2:11211")
    >>> servers.get_node("user:1")
    '10.0.0.2:11211'
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(f"weights must be a mapping of server to weight or None, got {weights!r}")
    if node_key is not None and not callable(node_key):
        raise TypeError(f"node_key must be callable or None, got {node_key!r}")
    make = partial(Hasher, scheme, dict(weights or {}), node_key)
    make()
    return make
