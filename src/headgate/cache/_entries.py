"""How entries join and leave a cache: the hooks of its policy, lifetimes and tags."""

from heapq import heapify, heappop, heappush
from time import monotonic_ns

from headgate._base.clock import checked_now
from headgate.cache._lifetimes import NEVER, shortened
from headgate.cache._listeners import notify
from headgate.cache._table import _Table
from headgate.cache._views import _ABSENT
from headgate.hashing._pure import splitmix64

_WORD = 2**64


class _Entries(_Table):
    """Entries that join, live for a while, and leave."""

    __slots__ = ()

    _HASHES = False

    # ---- the policy: what a subclass decides ------------------------------------------------

    def _fit(self):
        """Adopt another maxsize."""

    def _asked(self, digest):
        """A key with this hash is about to be stored."""

    def _place(self, size, digest):
        """The end of the list that a new entry joins."""
        return self._ends[0]

    def _placed(self, entry):
        """A new entry has been linked."""

    def _hit(self, entry):
        """An entry was read."""

    def _rewrite(self, entry):
        """An entry has another value."""
        self._hit(entry)

    def _victim(self, size):
        """The live entry that gives way to `size` more, None if a finalizer was faster."""
        return self._first(self._ends[0])

    def _evict_some(self, size, dropped):
        """Evict one entry, or as many as one step of the policy evicts."""
        self._evict_one(self._victim(size), dropped)

    def _left(self, entry, end, next):
        """An entry has been unlinked from the list of `end`, where `next` followed it."""

    # ---- joining and leaving ----------------------------------------------------------------

    def _enter(self, entry, is_new, value, size, digest, hard, dropped):
        """Evict until a dead entry fits, and give it its place; False if a finalizer was faster."""
        births, bucket, group = self._births, entry.bucket, None
        self._evict(size, dropped)
        end = self._place(size, digest)
        version = self._version
        if bucket is not None:
            group = (*self._odd.get(bucket, ()), entry)
        if version != self._version or births != self._births or entry.next is not None:
            return False
        if self._filled > self._room - size:
            return False
        last = end.prev
        entry.value, entry.size, entry.hash = value, size, digest
        entry.due, entry.hard, entry.mark = hard, hard, 0
        entry.prev, entry.next, entry.end = last, end, end
        last.next = entry
        end.prev = entry
        end.size += size
        self._filled += size
        self._count += 1
        self._version += 1
        if is_new:
            self._births += 1
            if bucket is None:
                self._data[entry.key] = entry
            else:
                self._odd[bucket] = group
        return True

    def _exchange(self, entry, value, size, hard):
        """Give a live entry another value, size and end of its ttl, and return the old value."""
        old, growth = entry.value, size - entry.size
        entry.value, entry.size, entry.due = value, size, hard
        entry.hard = hard
        entry.end.size += growth
        self._filled += growth
        self._version += 1
        return old

    def _lift(self, entry, replaced):
        """Take a live entry that grows beyond the bound out of its list; it stays where it is found."""
        old = self._unlink(entry)
        if old is not _ABSENT:
            replaced += (entry.key, old)

    def _settle(self, entry, was_live, now, tags):
        """Tell the policy of a stored entry, and give it its lifetime and its tags."""
        if was_live:
            self._rewrite(entry)
        elif entry.next is not None:
            self._placed(entry)
        if self._timed:
            self._lease(entry, now)
        if tags or entry.tags:
            self._retag(entry, tags)

    def _drop(self, entry, dropped):
        """Make an entry dead, and append its key and value to `dropped`; False if it was dead already."""
        if entry.next is None:
            return False
        self._forget_key(entry)
        value = self._unlink(entry)
        if value is _ABSENT:
            return False
        dropped += (entry.key, value)
        if entry.tags:
            self._retag(entry, ())
        return True

    def _evict(self, size, dropped):
        """Evict until `size` more fits."""
        while self._count and self._filled > self._room - size:
            self._evict_some(size, dropped)

    def _evict_one(self, victim, dropped):
        if victim is not None and self._drop(victim, dropped):
            self._evictions += 1

    def _tell(self, dropped, reason):
        """Tell the listener of the keys and values that `dropped` alternates."""
        if dropped and self._listener is not None:
            notify(self._listener, dropped, reason)

    # ---- lifetimes --------------------------------------------------------------------------

    def _now(self):
        """The time where entries may have a lifetime; runs the clock."""
        if not self._timed:
            return 0
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _due(self, now, lifetime):
        """When an entry that is written now ends by its ttl."""
        if lifetime is None or lifetime == NEVER:
            return NEVER
        if self._jitter:
            lifetime = shortened(lifetime, self._jitter, self._draw())
        return now + lifetime

    def _draw(self):
        """The next 64 bits of splitmix64's sequence."""
        drawn = splitmix64(self._draws)
        self._draws = (self._draws + 1) % _WORD
        return drawn

    def _lease(self, entry, now):
        """Let a live entry be found when its lifetime ends."""
        due = entry.hard if self._idle is None else min(entry.hard, now + self._idle)
        self._stamps = stamp = self._stamps + 1
        entry.due, entry.stamp = due, stamp
        if due == NEVER or entry.next is None:
            return
        heappush(self._heap, (due, stamp, entry))
        if len(self._heap) > 2 * self._count + 64:
            heap = [item for item in self._heap if item[2].stamp == item[1] and item[2].next is not None]
            heapify(heap)
            if stamp == self._stamps:
                self._heap = heap

    def _purge(self, now, dropped):
        """Drop every entry whose lifetime has ended."""
        while self._heap and self._heap[0][0] <= now:
            _, stamp, entry = heappop(self._heap)
            if entry.stamp == stamp and self._drop(entry, dropped):
                self._counts["expired"] += 1

    def _purge_now(self):
        """What `_purge_at` dropped now."""
        return self._purge_at(self._now()) if self._timed else []

    def _purge_at(self, now):
        """What `_purge` dropped, told to the listener."""
        dropped = []
        with self._lock:
            self._purge(now, dropped)
        self._tell(dropped, "expired")
        return dropped

    def _end_lifetime(self, entry, now):
        """Drop an entry that was found expired."""
        dropped = []
        with self._lock:
            if entry.due <= now and self._drop(entry, dropped):
                self._counts["expired"] += 1
        self._tell(dropped, "expired")

    # ---- tags -------------------------------------------------------------------------------

    def _retag(self, entry, tags):
        old, entry.tags = entry.tags, tags
        for tag in old + tags:
            self._label(entry, tag)

    def _label(self, entry, tag):
        """Let the group of a tag hold an entry if the entry has the tag, and not otherwise."""
        fresh, groups = {}, self._tagged
        if tag in entry.tags:
            if tag not in groups:
                groups[tag] = fresh
            groups[tag][entry] = None
        elif tag in groups and entry in groups[tag]:
            del groups[tag][entry]
            if not groups[tag]:
                del groups[tag]
