"""The stream summary: keys in buckets by count, a table that finds them, and the decay of counts."""

from __future__ import annotations

from time import monotonic_ns

from headgate._base.clock import checked_now
from headgate._base.forks import new_lock, renew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_TOTAL = 2**63 - 1


def _read_clock(clock):
    return monotonic_ns() if clock is None else checked_now(clock())


class _Entry:
    __slots__ = ("bucket", "error", "hash", "key")

    def __init__(self, key, hash_):
        self.key, self.hash = key, hash_
        self.error = 0
        self.bucket = None


def _live(entry):
    """`entry`, or None if its count fell to 0 when counts were halved."""
    return None if entry is None or entry.bucket is None else entry


class _Bucket:
    __slots__ = ("count", "entries", "next", "prev")

    def __init__(self, count):
        self.count = count
        self.entries = {}
        self.prev = self.next = self


class _Summary:
    """The keys with their counts and errors."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_clock",
        "_count",
        "_deferred",
        "_half",
        "_half_life",
        "_lock",
        "_made",
        "_most",
        "_moves",
        "_sentinel",
        "_since",
        "_table",
        "_total",
        "_version",
    )

    if TYPE_CHECKING:
        _busy: bool
        _deferred: list[tuple[_Entry, int, Any] | None]
        _lock: Any
        _made: bool
        _moves: int
        _version: int

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        renew(self)
        self._version = self._moves = 0
        self._busy, self._deferred, self._made = False, [], False
        self._install(1, None, 0, None)
        return self

    def _install(self, most, half_life, half, clock):
        """Install new structures, with no key."""
        now = _read_clock(clock) if half else 0
        table: dict = {}
        sentinel = _Bucket(0)
        with self._lock:
            old = getattr(self, "_table", None), getattr(self, "_sentinel", None)
            busy, self._busy = self._busy, True
            self._table, self._sentinel = table, sentinel
            self._most, self._half_life, self._half, self._clock = most, half_life, half, clock
            self._since = now
            self._count = self._total = 0
            self._version += 1
            self._busy = busy
        del old
        if not busy:
            self._apply_deferred()

    def _renew(self):
        """In the child of a fork: link all entries anew, if another thread was editing."""
        if not self._busy:
            return
        entries = [entry for chain in self._table.values() for entry in chain]
        counts = sorted([(entry.bucket.count, at) for at, entry in enumerate(entries)])
        self._sentinel = _Bucket(0)
        for count, at in counts:
            self._insert(entries[at], count, self._sentinel.prev)
        self._count, counted = len(counts), sum([count for count, _ in counts])
        self._total = max(counted, self._total) if self._half else counted
        self._version += 1
        self._busy = False
        self._apply_deferred()

    # ---- the table --------------------------------------------------------------------------

    def _find(self, key, hash_):
        """The entry of `key`, or None, and its `_version`; runs ``__eq__``, so no lock may be held."""
        while True:
            version, found = self._version, None
            for entry in list(self._table.get(hash_, ())):
                if entry.key is key or entry.key == key:
                    found = entry
                    break
            if version == self._version:
                return found, version

    def _remove_key(self, entry):
        """Remove `entry` from the table."""
        chain = self._table[entry.hash]
        if len(chain) == 1:
            del self._table[entry.hash]
        else:
            chain.remove(entry)

    # ---- the buckets ------------------------------------------------------------------------

    @staticmethod
    def _remove_bucket(bucket):
        bucket.prev.next, bucket.next.prev = bucket.next, bucket.prev

    def _insert(self, entry, count, before):
        """Insert `entry`, which is in no bucket, into the bucket of `count`, at or after `before`."""
        after = before.next
        while after is not self._sentinel and after.count <= count:
            before, after = after, after.next
        if before.count != count:
            bucket = _Bucket(count)
            bucket.prev, bucket.next = before, after
            before.next = after.prev = bucket
            before = bucket
        before.entries[entry] = None
        entry.bucket = before

    def _add_count(self, entry, n):
        """Add `n` to the count of a live entry."""
        self._moves += 1
        bucket = before = entry.bucket
        count = bucket.count + n
        after = bucket.next
        if len(bucket.entries) == 1:
            if after is self._sentinel or after.count > count:
                bucket.count = count
                return
            before = bucket.prev
            self._remove_bucket(bucket)
        else:
            del bucket.entries[entry]
        self._insert(entry, count, before)

    def _insert_key(self, entry, n, before):
        """Insert `entry`, in place of a victim if full; returns the victim."""
        victim = None
        if self._count < self._most:
            self._count += 1
            self._insert(entry, n, before)
        else:
            least = self._sentinel.next
            victim = next(iter(least.entries))
            entry.error = least.count
            self._remove_key(victim)
            if len(least.entries) == 1:
                self._remove_bucket(least)
            else:
                del least.entries[victim]
            self._insert(entry, least.count + n, self._sentinel)
            victim.bucket = None
        self._table.setdefault(entry.hash, []).append(entry)
        self._version += 1
        return victim

    # ---- decay ------------------------------------------------------------------------------

    def _now(self):
        """The time, where counts decay; runs the clock, so no lock may be held."""
        return _read_clock(self._clock) if self._half else 0

    def _decay(self, now):
        """Halve the counts for each half-life that has passed; returns what is to be dropped last."""
        if not self._half or self._busy:
            return None
        self._busy = True
        try:
            self._since = min(self._since, now)
            if now - self._since < self._half:
                return None
            steps = (now - self._since) // self._half
            self._since += steps * self._half
            return self._halve(min(steps, 63))
        finally:
            self._busy = False

    def _decayed(self):
        """The present total and number of keys."""
        now = self._now()
        with self._lock:
            _halved = self._decay(now)
            sums = self._total, self._count
        self._apply_deferred()
        return sums

    def _halve(self, steps):
        """Halve `steps` times, rounding down; returns the entries whose count fell to 0."""
        self._total >>= steps
        self._version += 1
        gone: list = []
        bucket = self._sentinel.next
        while bucket is not self._sentinel:
            count, halved, before = bucket.count, bucket.count >> steps, bucket.prev
            for entry in bucket.entries:
                entry.error = halved - (count - entry.error >> steps)
            if halved == 0:
                gone += bucket.entries
                self._remove_bucket(bucket)
            elif before.count == halved:
                for entry in bucket.entries:
                    before.entries[entry] = None
                    entry.bucket = before
                self._remove_bucket(bucket)
            else:
                bucket.count = halved
            bucket = bucket.next
        for entry in gone:
            self._remove_key(entry)
            entry.bucket = None
        self._count -= len(gone)
        return gone

    # ---- additions --------------------------------------------------------------------------

    def _add(self, entry, number, n):
        """Add `number`, given as `n`, to the count of the key of `entry`."""
        while True:
            now = self._now()
            found, version = self._find(entry.key, entry.hash)
            with self._lock:
                if self._busy:
                    self._deferred.append((entry, number, n))
                    return
                if version == self._version:
                    _halved = self._decay(now)
                    _victim = self._add_to(_live(found), entry, number, n)
                    return

    def _add_to(self, found, entry, number, n):
        """Add `number` to the count of `found`, or of the new `entry`; returns the victim, or None."""
        self._busy = True
        try:
            if number > _MAX_TOTAL - self._total:
                raise ValueError(f"n must leave the total below 2**63, got {n!r}")
            self._total += number
            if found is None:
                return self._insert_key(entry, number, self._sentinel)
            self._add_count(found, number)
            return None
        finally:
            self._busy = False

    def _apply_deferred(self):
        """Apply what finalizers called during an edit: None is a clear, a tuple an addition's arguments."""
        while self._deferred:
            with self._lock:
                if self._busy or not self._deferred:
                    return
                late = self._deferred.pop(0)
            if late is None:
                self._clear()
            else:
                self._add(*late)

    def _clear(self):
        """Remove all keys; deferred if a finalizer calls this during an edit."""
        with self._lock:
            if self._busy:
                self._deferred.append(None)
                return
        self._install(self._most, self._half_life, self._half, self._clock)

    def _rows(self, limit):
        """Triples of key, count and error, the greatest count first; starts over if a finalizer edits."""
        while True:
            with self._lock:
                version, moves, sentinel = self._version, self._moves, self._sentinel
                rows: list = []
                bucket = sentinel.prev
                while bucket is not sentinel and len(rows) < limit:
                    rows += [(entry.key, bucket.count, entry.error) for entry in list(bucket.entries)]
                    bucket = bucket.prev
                if (version, moves) == (self._version, self._moves):
                    return rows[:limit]

    def _check(self):
        """Check all structures; raise AssertionError if an invariant does not hold."""
        live = counted = 0
        bucket = self._sentinel.next
        while bucket is not self._sentinel:
            assert bucket.next.prev is bucket
            assert bucket.count > bucket.prev.count
            assert bucket.entries
            for entry in bucket.entries:
                assert entry.bucket is bucket
                assert 0 <= entry.error <= bucket.count
                assert self._table[entry.hash].count(entry) == 1
                counted += bucket.count
                live += 1
            bucket = bucket.next
        assert live == self._count <= self._most
        assert sum(map(len, self._table.values())) == live
        assert all(self._table.values())
        assert counted == self._total if not self._half else counted <= self._total
