# Balancers that hash keys: a key goes to the same server each time.
cimport cython
from libc.stdint cimport int64_t

from headgate._c.fields cimport hg_get_double
from headgate._c.xxh64 cimport hg_splitmix64

from bisect import bisect_right
from itertools import accumulate

from headgate._base.checks import checked_callable
from headgate._base.clock import checked_clock
from headgate._base.keys import key_bytes
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
from headgate.hashing._compiled import xxh64
from headgate.hotkeys._compiled import HotKeys
from headgate.placement._compiled import HashRing, _Placement

cdef double WORD = 18446744073709551616.0
cdef object _read_nodes = _Placement.nodes.__get__
cdef object _get_node = _Placement.get_node
cdef object _get_nodes = _Placement.get_nodes


cdef class _Hashed(_Balancer):
    """A balancer that hashes keys; its plan is (factory, placement, records by the id of their server)."""

    cdef tuple _plan

    def __cinit__(self, *args, **kwargs):
        self._plan = None, None, {}

    @cython.final
    cdef tuple _current_plan(self):
        """The present plan."""
        with cython.critical_section(self):
            return self._plan

    cdef object _placement_factory(self):
        return self._current_plan()[0]

    cdef object _set_plan(self, plan):
        self._plan = plan

    cdef object _make_plan(self, dict members, factory, _Record changed, weight):
        cdef _Record record
        if factory is None:
            return None, None, {}
        weights = {}
        for record in members.values():
            exact = weight if record is changed else hg_get_double(&record.weight)
            weights[record.server] = int(exact) if exact < 2**53 and exact == int(exact) else exact
        placement = factory(weights)
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must return a HashRing, Rendezvous or Maglev, got {placement!r}")
        return factory, placement, {id((<_Record>one).server): one for one in members.values()}

    cdef bint _has_name(self, server) except -1:
        placement = self._current_plan()[1]
        return placement is not None and server in placement

    cdef bint _redraws(self) noexcept:
        return False

    cdef object _read_key(self, key, bint picked):
        """The placement, its records, a key as bytes, and whether it is hot."""
        data = self._key_data(key)
        _, placement, records = self._current_plan()
        if placement is not None:
            _read_nodes(placement)  # builds it, without the lock
        return placement, records, data, False

    cdef object _key_data(self, key):
        """The bytes of a key that the placement hashes."""
        return key_bytes(key, "key")

    cdef _Record _choose(self, key, list skip, int64_t now):
        return self._choose_by_key(key, skip, now)

    @cython.final
    cdef _Record _choose_by_key(self, key, list skip, int64_t now):
        cdef _Record record = self._choose_preferred(key, skip, now, True)
        return record or self._choose_preferred(key, skip, now, False) or self._remaining(skip)[0]

    cdef _Record _choose_preferred(self, key, list skip, int64_t now, bint ramped):
        """The first active record in the key's order of preference, or None.

        If `ramped`, a server in a slow start is passed over for a part of the keys.
        """
        cdef _Record record
        placement, records, data, _ = key
        count = 0
        while count < len(records):
            count = 4 * count or 1
            found = _get_nodes(placement, data, count) if count > 1 else [_get_node(placement, data)]
            for server in found:
                record = records.get(id(server))
                if record is not None and record.index >= 0 and record not in skip and not (
                        ramped and record.slow_until and self._held_back(data, record, now)):
                    return record
        return None

    cdef _Record _choose_ejected(self, key, list left):
        """The first record of `left`, which are ejected, in the key's order of preference."""
        placement, records, data, _ = key
        found = _get_nodes(placement, data, len(records)) if placement is not None else ()
        preferred = [records.get(id(server)) for server in found]
        return next((record for record in preferred if record in left), left[0])

    cdef bint _held_back(self, data, _Record record, int64_t now) except -1:
        """Whether a slow start withholds a key from its server: keys come one by one, and stay."""
        cdef double fraction = <double>hg_splitmix64(xxh64(data)) / WORD
        return fraction * self._slow_start >= self._slow_start_elapsed(record, now)


cdef class KeyHash(_Hashed):
    """KeyHash(servers, *, placement=None, hotkeys=None, hot_replicas=2, hot_share=0.01, clock=None, \
    seed=None, max_failures=5, success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, \
    slow_start=0)\n--\n
    Picks the same server for the same `key`: a str, bytes or an int.

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

    cdef object _hotkeys
    cdef object _hot             # the keys that were hot at the last reading
    cdef int64_t _hot_at         # the time of that reading
    cdef int64_t _hot_replicas
    cdef double _hot_share

    def __cinit__(self, *args, **kwargs):
        self._hot = frozenset()

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

    cdef object _read_key(self, key, bint picked):
        read = _Hashed._read_key(self, key, picked)
        if self._hotkeys is None:
            return read
        if picked:
            self._hotkeys.add(key)
        placement, records, data, _ = read
        return placement, records, data, self._is_hot(key)

    cdef bint _is_hot(self, key) except -1:
        """Whether a key was hot at the last reading, which is made again after a second."""
        cdef int64_t now = self._now()
        cdef bint due
        with cython.critical_section(self):
            hot, share = self._hot, self._hot_share
            due = not -STEP_BACK < now - self._hot_at < SECOND  # another thread may be later by a little
            if due:
                self._hot_at = now
        if due:
            hot = hot_keys(self._hotkeys, share)
            with cython.critical_section(self):
                if self._hot_at == now:  # otherwise there is a later one
                    self._hot = hot
        return key in hot

    cdef _Record _choose(self, key, list skip, int64_t now):
        return self._choose_replica(key, skip, now) if key[3] else self._choose_by_key(key, skip, now)

    cdef _Record _choose_replica(self, key, list skip, int64_t now):
        """The less loaded of two of a hot key's replicas, drawn by weight; in panic, the first one drawn."""
        cdef _Record a
        cdef _Record b
        cdef list found = self._replicas(key, skip, now, True) or self._replicas(key, skip, now, False)
        if len(found) < 2:
            return found[0] if found else self._remaining(skip)[0]
        total = sum([(<_Record>record).weight for record in found])
        a = self._draw_from(found)
        if self._in_panic:
            return a
        found.remove(a)
        b = self._draw_from(found)
        return self._less_loaded(a, a.weight, b, b.weight, total, now)

    cdef list _replicas(self, key, list skip, int64_t now, bint ramped):
        """The first active records in a hot key's order of preference."""
        cdef _Record record
        placement, records, data, _ = key
        cdef list found = []
        count = 0
        while count < len(records) and len(found) < self._hot_replicas:
            count = 4 * count or min(self._hot_replicas, len(records))
            found = []
            for server in _get_nodes(placement, data, count):
                record = records.get(id(server))
                if record is not None and record.index >= 0 and record not in skip and not (
                        ramped and record.slow_until and self._held_back(data, record, now)):
                    found.append(record)
        return found[:self._hot_replicas]

    cdef dict _settings(self):
        return _Members._settings(self) | {"hot_replicas": self._hot_replicas, "hot_share": self._hot_share}

    cdef object _set_settings(self, dict changed):
        _Members._set_settings(self, changed)
        self._hot_replicas, self._hot_share = changed["hot_replicas"], changed["hot_share"]
        self._hot_at -= SECOND  # what is hot is read again


cdef class AddressHash(_Hashed):
    """AddressHash(servers, *, scheme="headgate", clock=None, seed=None, max_failures=5, \
    success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Picks the same server for the same client address: `key` is IPv4 or IPv6, as text or packed.

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

    cdef object _checked_weight(self, weight, factory):
        weight = server_weight(weight)
        if factory is None and weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    cdef list _present
    cdef list _weight_sums

    cdef object _build(self, list active):
        """The servers of nginx's scheme, ejected ones too, and the running sums of their weights."""
        self._present = [record for record in self._members.values() if not (<_Record>record).draining]
        self._weight_sums = list(accumulate([int((<_Record>record).weight) for record in self._present]))

    cdef object _key_data(self, key):
        return address_bytes(key, self._current_plan()[0] is None)

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef _Record record
        if key[0] is not None:
            return self._choose_by_key(key, skip, now)
        hashed = 89
        for _ in range(21):  # nginx hashes again if a server is out, up to 20 times
            hashed = nginx_hash(key[2], hashed)
            record = self._present[bisect_right(self._weight_sums, hashed % self._weight_sums[-1])]
            if record.index >= 0 and record not in skip:
                return record
        return self._remaining(skip)[0]
