# The steps of which the methods of a cache consist.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from headgate._c.fields cimport hg_set
from headgate._c.unicode_eq cimport hg_hash

from operator import index

from headgate._base.checks import checked_callable, checked_int
from headgate._base.clock import checked_clock
from headgate._base.pickling import initialized
from headgate.cache._lifetimes import checked_fraction, checked_lifetime, checked_seed


cdef int64_t _checked_maxsize(object maxsize, bint weighted) except -1:
    maxsize = checked_int("maxsize", maxsize)
    if maxsize < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    most = INT64_MAX if weighted else MOST_ENTRIES
    if maxsize > most:
        raise ValueError(f"maxsize must be at most {most}, got {maxsize!r}")
    return maxsize


cdef class _Engine(_Entries):
    """The steps of which the methods of a cache consist."""

    def __init__(self, maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        self._begin(maxsize, getsizeof, ttl, tti, jitter, clock, on_evict, seed)

    @cython.final
    cdef int _begin(self, maxsize, getsizeof, ttl, tti, jitter, clock, on_evict, seed) except -1:
        maximum = _checked_maxsize(maxsize, getsizeof is not None)
        checked_callable("getsizeof", getsizeof)
        lifetime, idle = checked_lifetime("ttl", ttl), checked_lifetime("tti", tti)
        share, ticker, draws = checked_fraction("jitter", jitter), checked_clock(clock), checked_seed(seed)
        checked_callable("on_evict", on_evict)
        return self._configure(maximum, getsizeof, lifetime, idle, share, ticker, on_evict, draws)

    @cython.final
    cdef int _configure(self, maximum, sizer, lifetime, idle, jitter, clock, listener, seed) except -1:
        with cython.critical_section(self):
            if self.initialized:
                raise initialized(self)
            self.initialized = True
            self.sizer, self.listener, self.ticker = sizer, listener, clock
            self.lifetime = NEVER if lifetime is None else lifetime
            self.idle = NEVER if idle is None else idle
            self.jitter = jitter
            hg_set(&self.timed, self.lifetime != NEVER or self.idle != NEVER)
            self.seed = self.draws = seed
            self.maximum = maximum
            self.plain = (sizer is None and listener is None
                          and not self.counts_requests and not self.evicts_many)
            self._fit()
        return 0

    @cython.final
    cdef inline void _touch(self, uint32_t slot, int64_t now) noexcept:
        """Count a read of a live entry for the policy and for its idle time."""
        if self.ttl_dues != NULL:
            self._schedule(slot, now, self.ttl_dues[slot])
        self._hit(slot)

    @cython.final
    cdef object _read(self, PyObject *key, Py_hash_t hash, object default):
        """The value of `key`, or `default`; counts a hit or a miss."""
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef int64_t now = self._now()
        cdef object value = default
        with cython.critical_section(self):
            slot = self._seek(key, hash)
            if slot != NIL and self._due(slot) > now:
                self.hit_count += 1
                self._touch(slot, now)
                value = <object>self._value(slot)
            else:
                self.miss_count += 1
                if slot != NIL:
                    self._remove(slot, &old_key, &old_value)
                    self.drop_counts[<int>EXPIRED] += 1
        if old_key != NULL:
            self._release(old_key, old_value, "expired")
        return value

    @cython.final
    cdef int64_t _measure(self, object value) except -1:
        """The size of `value`; runs getsizeof."""
        if self.sizer is None:
            return 1
        size = self.sizer(value)
        try:
            size = index(size)
        except TypeError:
            raise TypeError(f"getsizeof must return an int, got {size!r}") from None
        if size < 0:
            raise ValueError(f"value size must be non-negative, got {size!r}")
        if size > INT64_MAX:
            raise self._too_large(size)
        return size

    @cython.final
    cdef object _too_large(self, size):
        return ValueError(f"value too large: size {size} exceeds maxsize {self.maximum}")

    @cython.final
    cdef uint32_t _find_or_slot(self, PyObject *key, Py_hash_t hash, bint tagging) except 0xFFFFFFFF:
        """The slot of `key`; when NIL, an insertion needs no allocation."""
        cdef uint32_t slot
        cdef list labels
        while True:
            if self._lacks_slot():
                self._grow()
            if tagging and self.labels is None:
                labels = [None] * self._slots()
                if self.labels is None and PyList_GET_SIZE(<PyObject *>labels) == self._slots():
                    self.labels = labels
                    self.tagged = {}
            slot = self._find(key, hash)
            if (slot != NIL or not self._lacks_slot()) and (self.labels is not None or not tagging):
                return slot

    @cython.final
    cdef inline int _set(self, object key, object value) except -1:
        if not self.plain or self._is_timed() or not self._store_plain(key, value):
            self._store(key, value, False, None, None)
        return 0

    @cython.final
    cdef bint _store_plain(self, object key, object value) except -1:
        """What `_store` does where entries have no size, lifetime, tag or listener; False if they have."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef bint stored = False
        with cython.critical_section(self):
            slot = self._find_or_slot(<PyObject *>key, hash, False)
            if self.plain and self.maximum > 0 and not self._is_timed() and self.labels is None:
                stored = True
                if slot != NIL:
                    old_value = self._exchange(slot, <PyObject *>value)
                    self._rewrite(slot)
                elif self.count >= self.maximum:
                    self._replace_victim(<PyObject *>key, hash, <PyObject *>value, &old_key, &old_value)
                else:
                    self._insert(<PyObject *>key, hash, <PyObject *>value, 1)
        Py_XDECREF(old_key)
        Py_XDECREF(old_value)
        return stored

    @cython.final
    cdef object _store(self, object key, object value, bint keep, object ttl, tuple tags):
        """Put an entry; with `keep`, an entry that is there stays and its value is returned."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef int64_t size = self._measure(value), now, ttl_due, lifetime = self.lifetime
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef list replaced = None, dropped = None, groups = None
        cdef _Label label = None
        cdef uint32_t slot
        if ttl is not None:
            lifetime = ttl
            hg_set(&self.timed, True)
        now = self._now()
        ttl_due = self._deadline(now, lifetime)
        if self._is_timed():
            self._purge_if_due(now)
        if self.sizer is not None or self.listener is not None or self.evicts_many:
            dropped = []
            replaced = []
        if tags:
            label = _Label.__new__(_Label)
            label.tags = tags
            groups = [{} for _ in tags]
        with cython.critical_section(self):
            if self.counts_requests:
                self._count_request(hash)
            slot = self._find_or_slot(<PyObject *>key, hash, label is not None)
            if keep and slot != NIL:
                self._touch(slot, now)
                value = <object>self._value(slot)
            elif size > self.maximum:
                raise self._too_large(size)
            else:
                if self._is_timed():
                    self._ready_timers()
                if slot == NIL:
                    self._evict(size, dropped, &old_key, &old_value)
                    slot = self._insert(<PyObject *>key, hash, <PyObject *>value, size)
                else:
                    if replaced is not None:
                        replaced.append(<object>self._key(slot))
                        replaced.append(<object>self._value(slot))
                    old_value = self._replace(slot, <PyObject *>value, size, dropped)
                if self.timers != NULL:
                    self._schedule(slot, now, ttl_due)
                if self.labels is not None:
                    self._unlabel(slot)
                if label is not None:
                    self._label(slot, label, groups)
        Py_XDECREF(old_key)
        Py_XDECREF(old_value)
        if self.listener is not None:
            self._notify(replaced, "replaced")
            self._notify(dropped, "size")
        return value

    @cython.final
    cdef object _take(self, PyObject *key, Py_hash_t hash):
        """Remove the entry of `key` and return its key and value, or None where there is none."""
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef int64_t now = self._now()
        cdef tuple entry = None
        cdef Reason reason = REMOVED
        with cython.critical_section(self):
            slot = self._find(key, hash)
            if slot != NIL:
                if self._due(slot) <= now:
                    reason = EXPIRED
                self._remove(slot, &old_key, &old_value)
                self.drop_counts[<int>reason] += 1
        if old_key != NULL:
            entry = self._release(old_key, old_value, "expired" if reason == EXPIRED else "removed")
        return None if reason == EXPIRED else entry

    @cython.final
    cdef int _drop_unchanged(self, object key, object value, list dropped) except -1:
        """Drop the entry of `key` if its value is still this one."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            if slot != NIL and self._value(slot) == <PyObject *>value:
                self._drop(slot, dropped)
                self.drop_counts[<int>REMOVED] += 1
        return 0
