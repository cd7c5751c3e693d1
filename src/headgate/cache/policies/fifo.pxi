# First in, first out.
cimport cython
from libc.stdint cimport uint32_t


cdef class FIFOCache(_Cache):
    """FIFOCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops the one written longest ago first.

    Reading an entry does not save it, writing it again puts it last in the queue. Arguments,
    errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot, the next
    victim first.

    >>> cache = FIFOCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['b', 'c']
    """

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        pass

    @cython.final
    cdef void _rewrite(self, uint32_t slot) noexcept:
        self._renew(slot)
