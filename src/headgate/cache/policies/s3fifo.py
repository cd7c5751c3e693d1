"""S3-FIFO."""

from collections import OrderedDict

from headgate.cache._cache import _Cache


class S3FIFOCache(_Cache):
    """A mapping of at most `maxsize` entries in a small queue, a main queue and a queue of ghosts.

    A new entry joins the small queue, a tenth of the cache. When it reaches the head there, it is moved
    to the main queue if it was read at least twice; otherwise it is evicted and leaves a ghost, its
    hash. The ghosts kept are as many as the entries of a full main queue (an entry of size 0 counts as
    1). A key that still has a ghost joins the main queue, whose entries are reinserted as many times as
    they were read, at most three. Arguments, errors and complexity are those of ``LRUCache``; an
    eviction is O(1) amortised over the reads. Iteration goes over a snapshot: the small queue, then the
    main one, oldest first.

    Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction",
    SOSP 2023.

    >>> cache = S3FIFOCache(10)
    >>> cache.update((i, i) for i in range(10))
    >>> cache[0], cache[0], cache[1]
    (0, 0, 1)
    >>> cache[10] = 10
    >>> 0 in cache, 1 in cache
    (True, False)
    """

    __slots__ = ("_ghost_size", "_ghosts")

    _LISTS = 2
    _HASHES = True

    def _empty(self):
        self._ghosts = OrderedDict()
        self._ghost_size = 0
        return super()._empty()

    def _fit(self):
        self._trim_ghosts()

    def _place(self, size, digest):
        small, main = self._ends
        return main if digest in self._ghosts else small

    def _placed(self, entry):
        self._ghost_size -= self._ghosts.pop(entry.hash, 0)

    def _hit(self, entry):
        entry.mark = min(3, entry.mark + 1)

    def _trim_ghosts(self):
        """Forget the oldest ghosts until the others fit."""
        while self._ghosts and 10 * self._ghost_size > 9 * self._maximum:
            self._ghost_size -= self._ghosts.popitem(last=False)[1]

    def _is_small_turn(self):
        small, main = self._ends
        return small.next is not small and (10 * small.size >= self._maximum or main.next is main)

    def _main_victim(self):
        main = self._ends[1]
        entry = self._first(main)
        while entry is not None and entry.mark:
            entry.mark -= 1
            self._move(entry, main)
            entry = self._first(main)
        return entry

    def _victim(self, size):
        small, main = self._ends
        while self._is_small_turn():
            entry = self._first(small)
            if entry is None or entry.mark < 2:
                return entry
            entry.mark = 0
            self._move(entry, main)
        return self._main_victim()

    def _evict_some(self, size, dropped):
        small, main = self._ends
        if not self._is_small_turn():
            self._evict_one(self._main_victim(), dropped)
            return
        entry = self._first(small)
        while entry is not None and entry.mark > 1:
            entry.mark = 0
            self._move(entry, main)
            if 10 * main.size > 9 * self._maximum:
                self._evict_one(self._main_victim(), dropped)
            entry = self._first(small)
        if entry is not None:
            digest, weight = entry.hash, max(1, entry.size)
            self._evict_one(entry, dropped)
            self._ghost_size += weight - self._ghosts.pop(digest, 0)
            self._ghosts[digest] = weight
            self._trim_ghosts()
