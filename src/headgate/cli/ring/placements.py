"""Placements by option: a hash ring, rendezvous hashing, or a Maglev table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from headgate.cli.errors import CommandError
from headgate.placement import HashRing, Maglev, Rendezvous

Placement = HashRing[str] | Rendezvous[str] | Maglev[str]

RING, RENDEZVOUS, MAGLEV = KINDS = ("ring", "rendezvous", "maglev")
OWN_SCHEME = "headgate"
_OPTIONS = {RING: ("scheme", "replicas"), RENDEZVOUS: ("scheme",), MAGLEV: ("size",)}
_CLASSES: dict[str, Any] = {RING: HashRing, RENDEZVOUS: Rendezvous, MAGLEV: Maglev}


class Spec(NamedTuple):
    """A kind of placement and its options, None for options that are not given."""

    kind: str = RING
    scheme: str | None = None
    replicas: int | None = None
    size: int | None = None

    def build(self, nodes: Mapping[str, float]) -> Placement:
        options = {"scheme": self.scheme, "replicas": self.replicas, "size": self.size}
        options = {name: value for name, value in options.items() if value is not None}
        for name in options:
            if name not in _OPTIONS[self.kind]:
                kinds = " or ".join([kind for kind in KINDS if name in _OPTIONS[kind]])
                raise CommandError(f"--{name} is for {kinds}, not for {self.kind}")
        if self.replicas is not None and self.scheme not in (None, OWN_SCHEME):
            raise CommandError(f"--replicas is for the scheme {OWN_SCHEME}, not for {self.scheme}, "
                               "which has a fixed number of points")
        node_key = _server_id if self.scheme == "haproxy" else None
        placement: Placement = _CLASSES[self.kind](_with_whole_weights(nodes), **options, node_key=node_key)
        return placement


def described(placement: Placement) -> str:
    """A description of a placement for titles."""
    if isinstance(placement, Maglev):
        return f"Maglev, slots: {placement.size}"
    scheme = f"scheme: {placement.scheme}"
    if isinstance(placement, Rendezvous):
        return "Rendezvous" if placement.scheme == OWN_SCHEME else f"Rendezvous, {scheme}"
    return f"replicas: {placement.replicas}" if placement.scheme == OWN_SCHEME else scheme


def as_json(placement: Placement) -> dict[str, Any]:
    """The kind and the settings of a placement, null for settings that it does not have."""
    kind = next(kind for kind, cls in _CLASSES.items() if isinstance(placement, cls))
    settings = {name: getattr(placement, name, None) for name in ("scheme", "replicas", "size")}
    return {"placement": kind} | settings


def _with_whole_weights(nodes: Mapping[str, float]) -> dict[str, float]:
    """Whole weights as int, as some schemes accept no other."""
    return {node: int(weight) if weight == int(weight) else weight for node, weight in nodes.items()}


def _server_id(node: str) -> int:
    """HAProxy places a server by its id, which is then the name of the node."""
    try:
        return int(node)
    except ValueError:
        raise ValueError(f"node must be a server id under the scheme haproxy, got {node!r}") from None
