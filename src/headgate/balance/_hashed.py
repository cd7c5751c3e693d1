"""Balancers that hash keys: a key goes to the same server each time."""

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


class _Hashed(_Balancer):
    """A balancer that hashes keys; its plan is (what makes a placement, the placement, records by id)."""

    _plan = None, None, {}

    def _make(self):
        return self._plan[0]

    def _adopt(self, plan):
        self._plan = plan

    def _planned(self, members, make, changed, weight):
        if make is None:
            return None, None, {}
        weights = {}
        for record in members.values():
            share = weight if record is changed else record.weight
            weights[record.server] = int(share) if share < 2**53 and share == int(share) else share
        placement = make(weights)
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must make a HashRing, Rendezvous or Maglev, got {placement!r}")
        return make, placement, {id(record.server): record for record in members.values()}

    def _has_name(self, server):
        placement = self._plan[1]
        return placement is not None and server in placement

    def _warms(self):
        return False

    def _read_key(self, key):
        data = self._key_data(key)
        _, placement, records = self._plan
        if placement is not None:
            _Placement.nodes.__get__(placement)  # builds it, which other threads are not to wait for
        return placement, records, data

    def _key_data(self, key):
        """The bytes that a key is placed by."""
        return key_bytes(key, "key")

    def _choose(self, key, skip, now):
        record = self._preference(key, skip, now, True)
        return record or self._preference(key, skip, now, False) or self._left(skip)[0]

    def _preference(self, key, skip, now, warming):
        """The first active record that a key prefers, or None; `warming` holds back slow starts."""
        placement, records, data = key
        count = 0
        while count < len(records):
            count = 4 * count or 1
            found = _Placement.get_nodes(placement, data, count) if count > 1 else [
                _Placement.get_node(placement, data)]
            for server in found:
                record = records.get(id(server))
                if record is not None and record.seat >= 0 and record not in skip and not (
                        warming and record.warm and self._comes_later(data, record, now)):
                    return record
        return None

    def _resort(self, key, left):
        """The ejected record that a key prefers."""
        placement, records, data = key
        found = _Placement.get_nodes(placement, data, len(records)) if placement is not None else ()
        preferred = (records.get(id(server)) for server in found)
        return next((record for record in preferred if record in left), left[0])

    def _comes_later(self, data, record, now):
        """Whether a key does not go yet to a server in a slow start: keys come one by one, and stay."""
        return splitmix64(_xxh64_bytes(data)) / WORD * self._slow_start >= self._warmth(record, now)


class KeyHash(_Hashed):
    """The same server for the same `key`, whatever is hashed: a str, bytes or an int.

    `placement` is called with a mapping of server to weight and returns the placement of keys: HashRing,
    which is the default, Rendezvous, Maglev, or such as ``partial(HashRing, scheme="nginx")``. Servers are
    what its nodes may be: str, bytes or int, and anything else with its `node_key`. While a server is
    ejected, draining or excluded, each of its keys goes to the next server in the order in which the key
    prefers them, and no other key moves. In a slow start a server gets its keys one by one. No key is
    remembered.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: that of the placement a pick, and O(k log k) where k servers that the key prefers are out; a
    change of the members makes a new placement, which the next pick builds.

    >>> balancer = KeyHash(["a", "b", "c"])
    >>> balancer.get_server("user:1"), balancer.get_server("user:1", exclude=["a"])
    ('a', 'c')
    """

    def __init__(self, servers, *, placement=None, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        checked_callable("placement", placement)
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start),
            HashRing if placement is None else placement)


class AddressHash(_Hashed):
    """The same server for the same client address: `key`, IPv4 or IPv6 as text or packed.

    A HashRing places the addresses, IPv6 by its /64, so that a server that joins or leaves moves only its
    own clients; servers are then str, bytes or int. In a slow start a server gets its clients one by one.
    With ``scheme="nginx"`` it is nginx's ip_hash, in which a slow start does not hold back.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) expected a pick; O(k log k) where k servers that the address prefers are out.

    >>> balancer = AddressHash(["a", "b"])
    >>> balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::2")
    True
    """

    def __init__(self, servers, *, scheme="headgate", clock=None, seed=None, max_failures=5,
                 success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        make = HashRing if checked_scheme(scheme) == "headgate" else None
        pairs = server_weights(servers)
        for _, weight in pairs:
            self._admitted(weight, make)
        self._begin(pairs, checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), make)

    def _admitted(self, weight, make):
        weight = server_weight(weight)
        if make is None and weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    def _arrange(self, active):
        """What nginx's scheme walks over: the servers, those that are out too, and sums of their weights."""
        self._line = [record for record in self._members.values() if not record.draining]
        self._ends = list(accumulate(int(record.weight) for record in self._line))

    def _key_data(self, key):
        return address_bytes(key, self._plan[0] is None)

    def _choose(self, key, skip, now):
        if key[0] is not None:
            return super()._choose(key, skip, now)
        hashed = 89
        for _ in range(21):  # nginx hashes on where a server is out, up to 20 times
            hashed = nginx_hash(key[2], hashed)
            record = self._line[bisect_right(self._ends, hashed % self._ends[-1])]
            if record.seat >= 0 and record not in skip:
                return record
        return self._left(skip)[0]
