# Least recently used, without and with a lifetime.
cimport cython
from libc.stdint cimport uint32_t


cdef class LRUCache(_Cache):
    """LRUCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops the least recently used one first.

    With `getsizeof`, a callable from a value to a non-negative int, `maxsize` bounds the sum of
    the sizes instead of the number of entries. ``on_evict(key, value, reason)`` is called after
    an entry has left, with the reason ``"size"``, ``"expired"``, ``"replaced"`` or ``"removed"``;
    what it raises goes to ``sys.unraisablehook``.

    An entry ends `ttl` seconds after it was written, or `tti` seconds after it was last used,
    whichever comes first; each ttl is shortened at random by up to the share `jitter`. `clock` is a
    callable that returns integer nanoseconds, by default the monotonic clock. An entry that has
    ended is never returned nor counted, and leaves with the next write or count. All draws follow
    from `seed`.

    ``cache[key]``, ``get``, ``setdefault`` and ``put`` make an entry the most recently used;
    ``peek``, ``in`` and iteration touch nothing. Iteration goes over a snapshot, least recently
    used first. Every method is atomic among threads.

    Raises ValueError if `maxsize` is negative or above 2**31 entries (2**63 - 1 with
    `getsizeof`), `ttl` or `tti` is not positive or `jitter` outside [0, 1), TypeError if an
    argument has the wrong type.

    Complexity: O(1) for every operation on one key; memory grows with use, never beyond maxsize.

    >>> cache = LRUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        self._renew(slot)


cdef class TTLCache(LRUCache):
    """TTLCache(maxsize, ttl, getsizeof=None, *, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    An LRUCache whose entries end `ttl` seconds after they were written.

    Arguments, errors and complexity are those of ``LRUCache``; ``put`` may give an entry another
    lifetime.

    >>> now = [0]
    >>> cache = TTLCache(2, ttl=1, clock=lambda: now[0])
    >>> cache["a"] = 1
    >>> now[0] = 999_999_999
    >>> cache["a"]
    1
    >>> now[0] = 1_000_000_000
    >>> "a" in cache, len(cache), cache.expirations
    (False, 0, 1)
    """

    def __init__(self, maxsize, ttl, getsizeof=None, *, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        if ttl is None:
            raise TypeError(f"ttl must be a number of seconds, got {ttl!r}")
        self._begin(maxsize, getsizeof, ttl, tti, jitter, clock, on_evict, seed)
