"""How entries join and leave a cache: the hooks of policies, lifetimes and tags."""

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

    # ---- the policy: what a subclass defines ------------------------------------------------

    def _fit(self):
        """Adopt another maxsize."""

    def _count_request(self, digest):
        """Count a request for a key with this hash, which is about to be stored."""

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
        """The live entry to evict for `size` more, None if a finalizer was faster."""
        return self._first(self._ends[0])

    def _evict_some(self, size, dropped):
        """Evict one entry, or as many as one step of the policy evicts."""
        self._evict_one(self._victim(size), dropped)

    def _unlinked(self, entry, end, next):
        """An entry has been unlinked from the list of `end`, where `next` followed it."""

    # ---- joining and leaving ----------------------------------------------------------------

    def _insert(self, entry, is_new, value, size, digest, ttl_due, dropped):
        """Evict until a dead entry fits, and link it; False if a finalizer was faster."""
        additions, bucket, group = self._additions, entry.bucket, None
        self._evict(size, dropped)
        end = self._place(size, digest)
        version = self._version
        if bucket is not None:
            group = (*self._foreign.get(bucket, ()), entry)
        if version != self._version or additions != self._additions or entry.next is not None:
            return False
        if self._filled > self._maximum - size:
            return False
        last = end.prev
        entry.value, entry.size, entry.hash = value, size, digest
        entry.due, entry.ttl_due, entry.mark = ttl_due, ttl_due, 0
        entry.prev, entry.next, entry.end = last, end, end
        last.next = entry
        end.prev = entry
        end.size += size
        self._filled += size
        self._count += 1
        self._version += 1
        if is_new:
            self._additions += 1
            if bucket is None:
                self._data[entry.key] = entry
            else:
                self._foreign[bucket] = group
        return True

    def _exchange(self, entry, value, size, ttl_due):
        """Replace value, size and deadline by ttl of a live entry, and return the old value."""
        old, growth = entry.value, size - entry.size
        entry.value, entry.size, entry.due = value, size, ttl_due
        entry.ttl_due = ttl_due
        entry.end.size += growth
        self._filled += growth
        self._version += 1
        return old

    def _unlink_grown(self, entry, replaced):
        """Unlink a live entry that no longer fits; its key is still found."""
        old = self._unlink(entry)
        if old is not _ABSENT:
            replaced += (entry.key, old)

    def _finish_store(self, entry, was_live, now, tags):
        """Let the policy know a stored entry, and set its lifetime and its tags."""
        if was_live:
            self._rewrite(entry)
        elif entry.next is not None:
            self._placed(entry)
        if self._timed:
            self._schedule(entry, now)
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
        while self._count and self._filled > self._maximum - size:
            self._evict_some(size, dropped)

    def _evict_one(self, victim, dropped):
        if victim is not None and self._drop(victim, dropped):
            self._evictions += 1

    def _notify(self, dropped, reason):
        """Call the listener for the keys and values that alternate in `dropped`."""
        if dropped and self._listener is not None:
            notify(self._listener, dropped, reason)

    # ---- lifetimes --------------------------------------------------------------------------

    def _now(self):
        """The time where entries may have a lifetime; runs the clock."""
        if not self._timed:
            return 0
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _deadline(self, now, lifetime):
        """The deadline by ttl of an entry that is written now."""
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

    def _schedule(self, entry, now):
        """Set the deadline of a live entry: by its ttl, or by its idle time if that is earlier."""
        due = entry.ttl_due if self._idle is None else min(entry.ttl_due, now + self._idle)
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
        """`_purge_at` the present time."""
        return self._purge_at(self._now()) if self._timed else []

    def _purge_at(self, now):
        """`_purge`, then call the listener; the keys and values that were dropped."""
        dropped: list = []
        with self._lock:
            self._purge(now, dropped)
        self._notify(dropped, "expired")
        return dropped

    def _end_lifetime(self, entry, now):
        """Drop an entry that was found expired."""
        dropped: list = []
        with self._lock:
            if entry.due <= now and self._drop(entry, dropped):
                self._counts["expired"] += 1
        self._notify(dropped, "expired")

    # ---- tags -------------------------------------------------------------------------------

    def _retag(self, entry, tags):
        old, entry.tags = entry.tags, tags
        for tag in old + tags:
            self._label(entry, tag)

    def _label(self, entry, tag):
        """Add an entry to the group of a tag if it has the tag, and remove it otherwise."""
        fresh: dict = {}
        groups = self._tagged
        if tag in entry.tags:
            if tag not in groups:
                groups[tag] = fresh
            groups[tag][entry] = None
        elif tag in groups and entry in groups[tag]:
            del groups[tag][entry]
            if not groups[tag]:
                del groups[tag]
