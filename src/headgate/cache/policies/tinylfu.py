"""W-TinyLFU."""

from headgate.cache._cache import _Cache
from headgate.cache._entries import _WORD
from headgate.hashing._pure import splitmix64

_HALVED = bytes(i >> 1 for i in range(256))


class _Sketch:
    """Count-Min of 4-bit counters: four rows of 32 in a block of 128, and a hash chooses its block.

    It has eight words of 16 counters or more, a power of two and as many as the cache has had
    entries. After ten times as many additions all counters are halved.
    """

    __slots__ = ("additions", "counters", "sample")

    def __init__(self):
        self.counters = bytearray(8 * 16)
        self.sample = 80
        self.additions = 0

    def ensure(self, entries):
        """Grow to a word per entry; the new words repeat the old counts."""
        while len(self.counters) < 16 * entries:
            self.counters = self.counters * 2
            self.sample *= 2

    def add(self, digest):
        counters, added = self.counters, 0
        for place in _places(counters, digest):
            if counters[place] < 15:
                counters[place] += 1
                added = 1
        self.additions += added
        if self.additions >= self.sample:
            self.additions //= 2
            self.counters = self.counters.translate(_HALVED)

    def frequency(self, digest):
        """How often a hash was added, at most 15 and rather too often than too seldom."""
        counters = self.counters
        return min([counters[place] for place in _places(counters, digest)])


def _places(counters, digest):
    """The positions of the four counters of a hash."""
    drawn = splitmix64(digest % _WORD)
    block = (drawn & 0xFFFF_FFFF) % (len(counters) // 128) * 128
    return [block + 32 * row + (drawn >> 32 + 5 * row & 31) for row in range(4)]


class _Rejections:
    """Which hashes were rejected lately, each with the weight of all that was rejected until then.

    A mixed hash chooses its cell, of which there are a power of two, and replaces what is there.
    """

    __slots__ = ("cells", "sum")

    def __init__(self):
        self.cells = []
        self.sum = 0

    def add(self, digest, weight, entries):
        """Add a rejected hash, in a cache of so many entries."""
        size = len(self.cells) or 8
        while size < entries // 8:
            size *= 2
        if size != len(self.cells):
            self.cells = [(0, 0)] * size
        mixed = splitmix64(digest % _WORD)
        self.sum = (self.sum + weight) % _WORD
        self.cells[mixed % size] = mixed, self.sum

    def has(self, digest, span):
        """Whether a hash was rejected, and since then less than the weight of `span`."""
        if not self.cells:
            return False
        mixed = splitmix64(digest % _WORD)
        noted, at = self.cells[mixed % len(self.cells)]
        return noted == mixed and (self.sum - at) % _WORD < span


class TinyLFUCache(_Cache):
    """A mapping of at most `maxsize` entries that admits by frequency: W-TinyLFU.

    A new entry joins an LRU window. An entry that falls out of the window is on probation in the main
    part, and when the cache is full its frequency, estimated by a Count-Min sketch of 4-bit counters
    that are halved from time to time, is compared with that of the least recently used entry on
    probation: the rarer of the two leaves. A read on probation protects, up to four fifths of the
    main part.

    The window starts with 1% of the cache. From the first rejection on it is widened when a key comes
    back that a window wider by a sixteenth of the cache would have kept, and narrowed by the hits that a
    main part smaller by as much would have lost, so that both halves of the cache end with equal use of
    their last entries. Arguments, errors and complexity are those of ``LRUCache``, the ageing of the
    sketch O(1) amortised. Iteration goes over a snapshot: window, probation, protected, each least
    recently used first.

    Source: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS
    2017; the adaptive window is headgate's own and replaces the hill climbing of Einziger, Eytan,
    Friedman, Manes, "Adaptive software cache management", Middleware 2018.

    >>> cache = TinyLFUCache(100)
    >>> for key in range(100):
    ...     cache[key] = cache.get(key)
    >>> all(cache.get(key, key) is None for key in range(100))
    True
    >>> cache.update((key, key) for key in range(100, 200))
    >>> sum(key in cache for key in range(100))
    99
    """

    __slots__ = (
        "_promotions", "_protected_maximum", "_rejections", "_sketch", "_span", "_target", "_window_maximum",
    )

    _LISTS = 3
    _HASHES = True

    def _empty(self):
        self._sketch, self._rejections, self._promotions = _Sketch(), _Rejections(), 0
        return super()._empty()

    def _fit(self):
        maximum = self._maximum
        self._window_maximum = maximum // 100 or min(1, maximum)
        self._protected_maximum = (maximum - self._window_maximum) * 4 // 5
        self._span = max(1, maximum // 16)
        self._promotions = 0
        self._target = float(self._window_maximum)

    def _count_request(self, digest):
        self._sketch.ensure(self._count)
        self._sketch.add(digest)

    def _place(self, size, digest):
        self._shrink_window(size)
        return self._ends[0]

    def _placed(self, entry):
        self._adapt(entry)

    def _hit(self, entry):
        self._sketch.add(entry.hash)
        self._rewrite(entry)

    def _rewrite(self, entry):
        window, probation, protected = self._ends
        if entry.end is not probation:
            self._move(entry, entry.end or window)
            return
        self._promotions += 1
        self._move(entry, protected)
        self._shrink_protected()

    def _shrink_protected(self):
        _, probation, protected = self._ends
        while protected.size > self._protected_maximum and (entry := self._first(protected)) is not None:
            self._move(entry, probation)

    def _shrink_window(self, size):
        """Let entries fall out of the window until `size` more fits, and return the last of them."""
        window, probation, _ = self._ends
        candidate = None
        while window.size > self._window_maximum - size and (entry := self._first(window)) is not None:
            candidate = entry
            self._move(candidate, probation)
        return candidate

    def _victim(self, size):
        candidate = self._shrink_window(size)
        victim = self._rarer(candidate)
        if victim is not None and victim is candidate and size > 0:
            self._rejections.add(victim.hash, victim.size, self._count)
        return victim

    def _rarer(self, candidate):
        """The rarer of the candidate, which may be none, and the least recently used of the main part."""
        window, probation, protected = self._ends
        victim = self._first(probation) or self._first(protected) or self._first(window)
        if victim is None:
            return None
        if candidate is None or candidate is victim:
            return victim
        frequency = self._sketch.frequency
        return victim if frequency(candidate.hash) > frequency(victim.hash) else candidate

    def _adapt(self, entry):
        """Adapt the size of the window to the requests since the last entry joined.

        A main part smaller by `_span` would have lost some of the promotions, the reads on probation: half
        the share of `_span` in the probation, as its old end is read less than its new one. A wider window
        has to be worth a 64th of the cache, for each step costs an entry of the main part.
        """
        maximum = self._maximum
        least, size = min(1, maximum), float(entry.size)
        most, lost = maximum - least, size * self._promotions
        self._promotions = 0
        if self._rejections.sum == 0:
            return
        lost /= max(2.0, 2.0 * self._ends[1].size / self._span)
        target = max(self._target - lost, float(least))
        if self._rejections.has(entry.hash, self._span):
            target += size
        self._target = target = min(target, float(most))
        window = most if target == most else int(target)
        if window > self._window_maximum and window != most and target - self._window_maximum < maximum / 64:
            return
        if window != self._window_maximum:
            self._window_maximum = window
            self._protected_maximum = (maximum - window) * 4 // 5
            self._shrink_protected()
