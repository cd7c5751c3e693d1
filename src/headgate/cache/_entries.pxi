# How entries join and leave a cache: the hooks of policies, lifetimes and tags.
cimport cython
from cpython.dict cimport PyDict_Contains, PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from headgate._c.atomics cimport hg_add
from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.slots cimport (
    hg_chain_pop,
    hg_chain_push,
    hg_node,
    hg_table_cell,
    hg_table_empty,
    hg_table_enter,
    hg_table_leave,
    hg_table_set,
)
from headgate._c.xxh64 cimport hg_splitmix64

from headgate._base.clock import checked_now
from headgate.cache._lifetimes import shortened
from headgate.cache._listeners import notify


cdef enum Reason:
    EXPIRED
    REPLACED
    REMOVED
    REASONS


cdef class _Entries(_Table):
    """Entries that join, live for a while, and leave."""

    # ---- the policy: what a subclass defines ------------------------------------------------

    cdef void _fit(self) noexcept:
        """Adopt another maxsize."""

    cdef void _count_request(self, Py_hash_t hash) noexcept:
        """Count a request for a key with this hash, which is about to be stored."""

    cdef void _join(self, uint32_t slot) noexcept:
        """Link a new entry."""
        self._link(slot, 0)

    cdef void _leave(self, uint32_t slot) noexcept:
        """Unlink an entry."""
        self._unlink(slot)

    cdef void _hit(self, uint32_t slot) noexcept:
        """An entry was read."""

    cdef void _rewrite(self, uint32_t slot) noexcept:
        """An entry has another value."""
        self._hit(slot)

    cdef uint32_t _victim(self, int64_t size) noexcept:
        """The entry to evict for `size` more."""
        return self.nodes[0].next

    cdef int _evict_some(self, int64_t size, list dropped) except -1:
        """Evict one entry, or as many as one step of the policy evicts."""
        return self._evict_one(self._victim(size), dropped)

    cdef void _resized(self, uint32_t slot, int64_t growth) noexcept:
        """The size of a live entry changes by `growth`, in its place."""

    # ---- joining and leaving ----------------------------------------------------------------

    @cython.final
    cdef uint32_t _take_slot(self) noexcept:
        cdef uint32_t slot = hg_chain_pop(self.nodes, sizeof(hg_node), &self.free)
        if slot == NIL:
            self.used += 1
            slot = self.used
        return slot

    @cython.final
    cdef void _set_entry(self, uint32_t slot, PyObject *key, PyObject *value) noexcept:
        """Store two references, which it takes over, in an unused slot."""
        Py_DECREF(self._key(slot))
        Py_DECREF(self._value(slot))
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot, key)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1, value)

    @cython.final
    cdef inline PyObject *_exchange_item(self, Py_ssize_t i, PyObject *item) noexcept:
        """Set an item of the entries; the caller owns the old one."""
        cdef PyObject *old = PyList_GET_ITEM(<PyObject *>self.entries, i)
        Py_INCREF(item)
        PyList_SET_ITEM(<PyObject *>self.entries, i, item)
        return old

    @cython.final
    cdef uint32_t _insert(self, PyObject *key, Py_hash_t hash, PyObject *value, int64_t size) noexcept:
        cdef uint32_t slot = self._take_slot()
        Py_INCREF(key)
        Py_INCREF(value)
        self._set_entry(slot, key, value)
        self.nodes[slot].hash = hash
        if self.sizes != NULL:
            self.sizes[slot] = size
        hg_table_enter(&self.table, hash, slot)
        self._join(slot)
        self.count += 1
        self.filled += size
        return slot

    @cython.final
    cdef inline PyObject *_exchange(self, uint32_t slot, PyObject *value) noexcept:
        """Replace the value of a live slot; the caller owns the old one."""
        self.drop_counts[<int>REPLACED] += 1
        return self._exchange_item(2 * <Py_ssize_t>slot + 1, value)

    @cython.final
    cdef PyObject *_replace(self, uint32_t slot, PyObject *value, int64_t size, list dropped) except? NULL:
        """Replace the value and size of a live slot; the caller owns the old value.

        An entry that no longer fits leaves its list and joins again when others have been evicted.
        """
        cdef PyObject *old = self._exchange(slot, value)
        cdef int64_t old_size = self._size(slot)
        if self.filled - old_size > self.maximum - size:
            self._leave(slot)
            self.filled -= old_size
            self._evict(size, dropped, NULL, NULL)
            self.sizes[slot] = size
            self.filled += size
            self._join(slot)
            return old
        if self.sizes != NULL:
            self._resized(slot, size - old_size)
            self.filled += size - old_size
            self.sizes[slot] = size
        self._rewrite(slot)
        return old

    @cython.final
    cdef inline void _replace_victim(self, PyObject *key, Py_hash_t hash, PyObject *value,
                                     PyObject **old_key, PyObject **old_value) noexcept:
        """Store a plain entry whose key was just not found in the slot of the victim.

        It is entered where the probe ended, while the victim is still in the table: that saves a second
        probe, and there is always a free cell. The caller drops the old references last.
        """
        cdef uint32_t slot = self._victim(1), hole
        self._leave(slot)
        hole = hg_table_cell(&self.table, self.nodes[slot].hash, slot)
        self.nodes[slot].hash = hash
        hg_table_set(&self.table, self.vacant, slot)
        hg_table_empty(&self.table, self.nodes, sizeof(hg_node), hole)
        old_key[0] = self._exchange_item(2 * <Py_ssize_t>slot, key)
        old_value[0] = self._exchange_item(2 * <Py_ssize_t>slot + 1, value)
        self._join(slot)
        self.eviction_count += 1

    @cython.final
    cdef void _remove(self, uint32_t slot, PyObject **key, PyObject **value) noexcept:
        """Take an entry out; the caller owns the two references and drops them last."""
        hg_table_leave(&self.table, self.nodes, sizeof(hg_node), slot)
        self._leave(slot)
        if self.timers != NULL and self.timers[slot].due != NEVER:
            hg_wheel_remove(self.wheel, self.timers, slot)
        if self.labels is not None:
            self._unlabel(slot)
        key[0] = self._key(slot)
        value[0] = self._value(slot)
        Py_INCREF(Py_None)
        Py_INCREF(Py_None)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot, Py_None)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1, Py_None)
        self.count -= 1
        self.filled -= self._size(slot)
        hg_chain_push(self.nodes, sizeof(hg_node), &self.free, slot)

    @cython.final
    cdef tuple _release(self, PyObject *key, PyObject *value, str reason):
        """Return the removed key and value as a tuple, after calling the listener."""
        cdef tuple entry
        try:
            entry = (<object>key, <object>value)
        finally:
            Py_DECREF(key)
            Py_DECREF(value)
        self._notify(entry, reason)
        return entry

    @cython.final
    cdef int _drop(self, uint32_t slot, list dropped) except -1:
        """Move an entry to the end of `dropped`."""
        cdef PyObject *key
        cdef PyObject *value
        dropped.append(<object>self._key(slot))
        dropped.append(<object>self._value(slot))
        self._remove(slot, &key, &value)
        Py_DECREF(key)
        Py_DECREF(value)
        return 0

    @cython.final
    cdef int _evict(self, int64_t size, list dropped, PyObject **key, PyObject **value) except -1:
        """Evict until `size` more fits. With `dropped` None, at most one entry has to go."""
        while self.filled > self.maximum - size or self.count > MOST_ENTRIES:
            if dropped is None:
                self._remove(self._victim(size), key, value)
                self.eviction_count += 1
            else:
                self._evict_some(size, dropped)
        return 0

    @cython.final
    cdef int _evict_one(self, uint32_t slot, list dropped) except -1:
        self._drop(slot, dropped)
        self.eviction_count += 1
        return 0

    @cython.final
    cdef int _notify(self, dropped, str reason) except -1:
        """Call the listener for the keys and values that alternate in `dropped`."""
        if self.listener is not None and dropped:
            notify(self.listener, dropped, reason)
        return 0

    # ---- lifetimes --------------------------------------------------------------------------

    @cython.final
    cdef int64_t _now(self) except? -1:
        """The time where entries may have a lifetime; runs the clock."""
        if not self._is_timed():
            return 0
        return hg_monotonic_ns() if self.ticker is None else checked_now(self.ticker())

    @cython.final
    cdef uint64_t _draw(self) noexcept:
        """The next 64 bits of splitmix64's sequence."""
        return hg_splitmix64(hg_add(&self.draws, 1))

    @cython.final
    cdef int64_t _deadline(self, int64_t now, int64_t lifetime) except? -1:
        """The deadline by ttl of an entry that is written now."""
        if lifetime == NEVER:
            return NEVER
        if self.jitter != 0:
            lifetime = shortened(lifetime, self.jitter, self._draw())
        return now + lifetime

    @cython.final
    cdef inline int64_t _due(self, uint32_t slot) noexcept:
        return NEVER if self.timers == NULL else self.timers[slot].due

    @cython.final
    cdef inline int64_t _ttl_due(self, uint32_t slot) noexcept:
        return self._due(slot) if self.ttl_dues == NULL else self.ttl_dues[slot]

    @cython.final
    cdef int _ready_timers(self) except -1:
        """Allocate a timer per slot in a cache whose entries had no lifetime so far."""
        cdef Py_ssize_t slot
        cdef hg_timer *timers
        if self.timers == NULL and self.capacity > 0:
            timers = <hg_timer *>malloc(<size_t>self._slots() * sizeof(hg_timer))
            if timers == NULL or not self._ready_wheel():
                free(timers)
                raise MemoryError
            for slot in range(self._slots()):
                timers[slot].due = NEVER
            self.timers = timers
        return 0

    @cython.final
    cdef inline void _set_timer(self, uint32_t slot, int64_t due) noexcept:
        if self.timers[slot].due != NEVER:
            hg_wheel_remove(self.wheel, self.timers, slot)
        if due != NEVER:
            hg_wheel_add(self.wheel, self.timers, slot, due)

    @cython.final
    cdef inline void _schedule(self, uint32_t slot, int64_t now, int64_t ttl_due) noexcept:
        """Set the deadline of a live entry: by its ttl, or by its idle time if that is earlier."""
        if self.ttl_dues != NULL:
            self.ttl_dues[slot] = ttl_due
        if self.idle != NEVER:
            ttl_due = min(ttl_due, now + self.idle)
        self._set_timer(slot, ttl_due)

    @cython.final
    cdef int _purge(self, int64_t now, list dropped) except -1:
        """Drop every entry whose lifetime has ended."""
        cdef uint32_t slot
        if self.timers == NULL or not self._intact():
            return 0
        while True:
            slot = hg_wheel_due(self.wheel, self.timers, now)
            if slot == NIL:
                return 0
            self._drop(slot, dropped)
            self.drop_counts[<int>EXPIRED] += 1

    @cython.final
    cdef list _purge_now(self):
        """`_purge_at` the present time."""
        return self._purge_at(self._now()) if self._is_timed() else []

    @cython.final
    cdef int _purge_if_due(self, int64_t now) except -1:
        """`_purge_at`, if any lifetime has ended."""
        cdef bint due
        with cython.critical_section(self):
            due = self.timers != NULL and hg_rank(now) >= self.wheel.soonest
        if due:
            self._purge_at(now)
        return 0

    @cython.final
    cdef list _purge_at(self, int64_t now):
        """`_purge`, then call the listener; the keys and values that were dropped."""
        cdef list dropped = []
        with cython.critical_section(self):
            self._purge(now, dropped)
        self._notify(dropped, "expired")
        return dropped

    # ---- tags -------------------------------------------------------------------------------

    @cython.final
    cdef void _unlabel(self, uint32_t slot) noexcept:
        """Take the tags off a slot; labels and plain strings run no foreign code."""
        cdef PyObject *stored = PyList_GET_ITEM(<PyObject *>self.labels, slot)
        cdef PyObject *group
        cdef _Label label
        if stored == Py_None:
            return
        label = <_Label>stored
        Py_INCREF(Py_None)
        PyList_SET_ITEM(<PyObject *>self.labels, slot, Py_None)
        Py_DECREF(stored)
        label.slot = NIL
        for tag in label.tags:
            group = PyDict_GetItem(self.tagged, tag) if self.tagged is not None else NULL
            if group != NULL and PyDict_Contains(<object>group, label):
                PyDict_DelItem(<object>group, label)
                if len(<dict><object>group) == 0:
                    PyDict_DelItem(self.tagged, tag)

    @cython.final
    cdef int _label(self, uint32_t slot, _Label label, list groups) except -1:
        """Give a live slot its tags; `groups` are dicts to use for those that are new."""
        cdef PyObject *stored = PyList_GET_ITEM(<PyObject *>self.labels, slot)
        cdef Py_ssize_t i
        label.slot = slot
        Py_INCREF(<PyObject *>label)
        PyList_SET_ITEM(<PyObject *>self.labels, slot, <PyObject *>label)
        Py_DECREF(stored)
        for i in range(len(label.tags)):
            tag = label.tags[i]
            if PyDict_GetItem(self.tagged, tag) == NULL:
                PyDict_SetItem(self.tagged, tag, groups[i])
            PyDict_SetItem(<object>PyDict_GetItem(self.tagged, tag), label, None)
        return 0

    @cython.final
    cdef int _remove_labelled(self, list labels, list dropped) except -1:
        """Remove the entries that still have one of `labels`."""
        cdef _Label label
        for label in labels:
            if label.slot != NIL and self._intact():
                self._drop(label.slot, dropped)
                self.drop_counts[<int>REMOVED] += 1
        return 0
