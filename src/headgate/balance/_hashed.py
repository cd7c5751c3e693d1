"""Balancers that hash keys: a key goes to the same server each time."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from headgate._base.checks import checked_callable
from headgate._base.clock import checked_clock
from headgate._base.keys import key_bytes
from headgate.balance._balancer import WORD, _Balancer
from headgate.balance._settings import (
    address_bytes,
    checked_scheme,
    checked_settings,
    nginx_hash,
    server_weight,
    server_weights,
)
from headgate.hashing._pure import _xxh64_bytes, splitmix64
from headgate.placement._pure import HashRing, _Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Hashed(_Balancer):
    """A balancer that hashes keys; its plan is (factory, placement, records by the id of their server)."""

    if TYPE_CHECKING:
        _plan: tuple[Any, Any, dict[int, Any]]

    _plan = None, None, {}

    def _placement_factory(self):
        return self._plan[0]

    def _set_plan(self, plan):
        self._plan = plan

    def _make_plan(self, members, factory, changed, weight):
        if factory is None:
            return None, None, {}
        weights = {}
        for record in members.values():
            exact = weight if record is changed else record.weight
            weights[record.server] = int(exact) if exact < 2**53 and exact == int(exact) else exact
        placement = factory(weights)
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must return a HashRing, Rendezvous or Maglev, got {placement!r}")
        return factory, placement, {id(record.server): record for record in members.values()}

    def _has_name(self, server):
        placement = self._plan[1]
        return placement is not None and server in placement

    def _redraws(self):
        return False

    def _read_key(self, key):
        """The placement, its records, a key as bytes, and that key prepared for lookups (no foreign code)."""
        data = prepared = self._key_data(key)
        _, placement, records = self._plan
        if placement is not None:
            prepared = _Placement._current_view(placement).prepare(data)  # the view is built without the lock
        return placement, records, data, prepared

    def _key_data(self, key):
        """The bytes of a key that the placement hashes."""
        return key_bytes(key, "key")

    def _choose(self, key, skip, now):
        record = self._choose_preferred(key, skip, now, True)
        return record or self._choose_preferred(key, skip, now, False) or self._remaining(skip)[0]

    def _choose_preferred(self, key, skip, now, ramped):
        """The first active record in the key's order of preference, or None.

        If `ramped`, a server in a slow start is passed over for a part of the keys.
        """
        placement, records, data, prepared = key
        count = 0
        while count < len(records):
            count = 4 * count or 1
            found = _Placement.get_nodes(placement, prepared, count) if count > 1 else [
                _Placement.get_node(placement, prepared)]
            for server in found:
                record = records.get(id(server))
                if record is not None and record.index >= 0 and record not in skip and not (
                        ramped and record.slow_until and self._held_back(data, record, now)):
                    return record
        return None

    def _choose_ejected(self, key, left):
        """The first record of `left`, which are ejected, in the key's order of preference."""
        placement, records, _, prepared = key
        found = _Placement.get_nodes(placement, prepared, len(records)) if placement is not None else ()
        preferred = (records.get(id(server)) for server in found)
        return next((record for record in preferred if record in left), left[0])

    def _held_back(self, data, record, now):
        """Whether a slow start withholds a key from its server: keys come one by one, and stay."""
        fraction = splitmix64(_xxh64_bytes(data)) / WORD
        return fraction * self._slow_start >= self._slow_start_elapsed(record, now)


class KeyHash(_Hashed):
    """Picks the same server for the same `key`: a str, bytes or an int.

    `placement` is called with a mapping of server to weight and returns the placement of the keys: it is
    HashRing by default, and may be Rendezvous, Maglev or, for example, ``partial(HashRing, scheme="nginx")``.
    A server is what may be a node of the placement: a str, bytes or an int, and anything else with its
    `node_key`. While a server is ejected, draining or excluded, each of its keys goes to the next server in
    the key's order of preference, and no other key moves. In a slow start a server gets its keys one by one.
    No key is stored.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Complexity: a pick costs what the placement's lookup does, or O(k log k) if the key's k preferred servers
    are out; a change of the members makes a new placement, which the next pick builds.

    >>> balancer = KeyHash(["a", "b", "c"])
    >>> balancer.get_server("user:1"), balancer.get_server("user:1", exclude=["a"])
    ('a', 'c')
    """

    def __init__(self, servers, *, placement=None, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        checked_callable("placement", placement)
        self._initialize(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start),
            HashRing if placement is None else placement)


class AddressHash(_Hashed):
    """Picks the same server for the same client address: `key` is IPv4 or IPv6, as text or packed.

    A HashRing places the addresses, IPv6 by its /64 prefix, so only the clients of a server move when it
    joins or leaves; servers are then str, bytes or int. In a slow start a server gets its clients one by one.
    With ``scheme="nginx"`` this is nginx's ip_hash, which has no slow start.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Complexity: O(1) expected a pick; O(k log k) if the address's k preferred servers are out.

    >>> balancer = AddressHash(["a", "b"])
    >>> balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::2")
    True
    """

    def __init__(self, servers, *, scheme="headgate", clock=None, seed=None, max_failures=5,
                 success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        factory = HashRing if checked_scheme(scheme) == "headgate" else None
        pairs = server_weights(servers)
        for _, weight in pairs:
            self._checked_weight(weight, factory)
        self._initialize(pairs, checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start),
            factory)

    def _checked_weight(self, weight, factory):
        weight = server_weight(weight)
        if factory is None and weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    def _build(self, active):
        """The servers of nginx's scheme, ejected ones too, and the running sums of their weights."""
        self._present = [record for record in self._members.values() if not record.draining]
        self._weight_sums = list(accumulate(int(record.weight) for record in self._present))

    def _key_data(self, key):
        return address_bytes(key, self._plan[0] is None)

    def _choose(self, key, skip, now):
        if key[0] is not None:
            return super()._choose(key, skip, now)
        hashed = 89
        for _ in range(21):  # nginx hashes again if a server is out, up to 20 times
            hashed = nginx_hash(key[2], hashed)
            record = self._present[bisect_right(self._weight_sums, hashed % self._weight_sums[-1])]
            if record.index >= 0 and record not in skip:
                return record
        return self._remaining(skip)[0]
