"""Balancers that hash keys: a key goes to the same server each time."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from headgate._base.checks import checked_callable
from headgate._base.clock import checked_clock
from headgate._base.keys import key_bytes
from headgate.balance._balancer import SECOND, WORD, _Balancer
from headgate.balance._members import STEP_BACK
from headgate.balance._settings import (
    address_bytes,
    checked_hot_settings,
    checked_scheme,
    checked_settings,
    hot_keys,
    nginx_hash,
    server_weight,
    server_weights,
)
from headgate.hashing._pure import _xxh64_bytes, splitmix64
from headgate.hotkeys._pure import HotKeys
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

    def _read_key(self, key, picked):
        """The placement, its records, a key as bytes, that key prepared for lookups (no foreign code), and
        whether it is hot.
        """
        data = prepared = self._key_data(key)
        _, placement, records = self._plan
        if placement is not None:
            prepared = _Placement._current_view(placement).prepare(data)  # the view is built without the lock
        return placement, records, data, prepared, False

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
        placement, records, data, prepared, _ = key
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
        placement, records, _, prepared, _ = key
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
    `node_key`. While a server is ejected, down, draining or excluded, each of its keys goes to the next in
    the key's order of preference, and no other key moves. In a slow start a server gets its keys one by one.

    With `hotkeys`, a HotKeys in which each `pick` counts its key, hot keys are replicated: each goes to the
    less loaded of two of the first `hot_replicas` servers in its order of preference that are not ejected,
    down, draining or excluded. A key is hot while ``count - error`` is at least the fraction `hot_share` of
    the total, and at least 100; this is read at most once a second. `get_server` does not count the key, but
    returns one of the replicas if it is hot. Nothing else stores a key.

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
    are out, and of a hot key what the lookup of `hot_replicas` nodes does; once a second O(1 / `hot_share`).
    A change of the members makes a new placement, which the next pick builds.

    >>> balancer = KeyHash(["a", "b", "c"])
    >>> balancer.get_server("user:1"), balancer.get_server("user:1", exclude=["a"])
    ('a', 'c')
    >>> balancer = KeyHash(["a", "b", "c"], hotkeys=HotKeys(100))
    >>> balancer.hotkeys.add("celebrity", 1000)
    >>> sorted({balancer.pick("celebrity").server for _ in range(100)})
    ['a', 'b']
    """

    if TYPE_CHECKING:
        _hotkeys: HotKeys | None
        _hot: frozenset[Any]

    _hotkeys, _hot = None, frozenset()
    _hot_at, _hot_replicas, _hot_share = 0, 2, 0.01

    def __init__(self, servers, *, placement=None, hotkeys=None, hot_replicas=2, hot_share=0.01, clock=None,
                 seed=None, max_failures=5, success_rate=None, ejection_time=30, max_ejected=0.5,
                 panic_threshold=0.5, slow_start=0):
        checked_callable("placement", placement)
        if hotkeys is not None and not isinstance(hotkeys, HotKeys):
            raise TypeError(f"hotkeys must be HotKeys or None, got {hotkeys!r}")
        replicas, share = checked_hot_settings(hot_replicas, hot_share)
        self._initialize(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start),
            HashRing if placement is None else placement)
        self._hotkeys, self._hot_replicas, self._hot_share = hotkeys, replicas, share
        self._hot_at = self._rebuilt_at - SECOND

    @property
    def hotkeys(self):
        """The HotKeys that count the keys of picks, or None.

        >>> KeyHash(["a"]).hotkeys is None
        True
        """
        return self._hotkeys

    def _read_key(self, key, picked):
        read = super()._read_key(key, picked)
        if self._hotkeys is None:
            return read
        if picked:
            self._hotkeys.add(key)
        return *read[:-1], self._is_hot(key)

    def _is_hot(self, key):
        """Whether a key was hot at the last reading, which is made again after a second."""
        now = self._now()
        with self._lock:
            hot, share = self._hot, self._hot_share
            due = not -STEP_BACK < now - self._hot_at < SECOND  # another thread may be later by a little
            if due:
                self._hot_at = now
        if due:
            hot = hot_keys(self._hotkeys, share)
            with self._lock:
                if self._hot_at == now:  # otherwise there is a later one
                    self._hot = hot
        return key in hot

    def _choose(self, key, skip, now):
        return self._choose_replica(key, skip, now) if key[-1] else super()._choose(key, skip, now)

    def _choose_replica(self, key, skip, now):
        """The less loaded of two of a hot key's replicas, drawn by weight; in panic, the first one drawn."""
        found = self._replicas(key, skip, now, True) or self._replicas(key, skip, now, False)
        if len(found) < 2:
            return found[0] if found else self._remaining(skip)[0]
        total = sum([record.weight for record in found])
        a = self._draw_from(found)
        if self._in_panic:
            return a
        found.remove(a)
        b = self._draw_from(found)
        return self._less_loaded(a, a.weight, b, b.weight, total, now)

    def _replicas(self, key, skip, now, ramped):
        """The first active records in a hot key's order of preference."""
        placement, records, data, prepared, _ = key
        found: list = []
        count = 0
        while count < len(records) and len(found) < self._hot_replicas:
            count = 4 * count or min(self._hot_replicas, len(records))
            nodes = _Placement.get_nodes(placement, prepared, count)
            preferred = (records.get(id(server)) for server in nodes)
            found = [record for record in preferred
                     if record is not None and record.index >= 0 and record not in skip and not (
                         ramped and record.slow_until and self._held_back(data, record, now))]
        return found[:self._hot_replicas]

    def _settings(self):
        return super()._settings() | {"hot_replicas": self._hot_replicas, "hot_share": self._hot_share}

    def _set_settings(self, changed):
        super()._set_settings(changed)
        self._hot_replicas, self._hot_share = changed["hot_replicas"], changed["hot_share"]
        self._hot_at -= SECOND  # what is hot is read again


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
