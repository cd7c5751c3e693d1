"""Where the entries of a cache are found, and the lists in which its policy keeps them."""

from __future__ import annotations

import sys

from headgate._base.forks import new_lock
from headgate.cache._views import _ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COUNTED = ("expired", "replaced", "removed", "loads", "failures", "nanoseconds")
_PLAIN = frozenset({bool, bytes, float, int, str, type, type(None)})
_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def _is_plain(key, depth=2):
    """Whether a dict hashes and compares `key` without running code of its own."""
    kind = type(key)
    return kind in _PLAIN or (kind is tuple and depth > 0 and (
        _PLAIN.issuperset(map(type, key)) or all(_is_plain(part, depth - 1) for part in key)))


def _itself(entry):
    return entry


class _Entry:
    """A key, its value and its place; `bucket` is the hash under which `_foreign` has it, None in `_data`."""

    __slots__ = (
        "bucket",
        "due",
        "end",
        "hash",
        "key",
        "mark",
        "next",
        "prev",
        "size",
        "stamp",
        "tags",
        "ttl_due",
        "value",
    )

    if TYPE_CHECKING:
        bucket: int | None
        due: int
        end: Any
        hash: int
        key: Any
        mark: int
        next: Any
        prev: Any
        size: int
        stamp: int
        tags: tuple[str, ...]
        ttl_due: int
        value: Any

    def __init__(self, key=None, bucket=None):
        self.key, self.bucket = key, bucket
        self.prev = self.next = self.value = None
        self.stamp = 0
        self.tags = ()


class _End(_Entry):
    """The end of a list: the oldest entry follows it, the newest precedes it, `size` is that of all."""

    __slots__ = ()

    def __init__(self):
        super().__init__()
        self.prev = self.next = self
        self.end = None
        self.size = 0


class _Table:
    """The state of a cache, how an entry is found, and the lists."""

    __slots__ = (
        "__weakref__",
        "_additions",
        "_clock",
        "_count",
        "_counts",
        "_data",
        "_draws",
        "_ends",
        "_evictions",
        "_filled",
        "_flights",
        "_foreign",
        "_generation",
        "_heap",
        "_hits",
        "_idle",
        "_initialized",
        "_jitter",
        "_lifetime",
        "_listener",
        "_lock",
        "_locks_reads",
        "_maximum",
        "_misses",
        "_plain",
        "_seed",
        "_sizer",
        "_stamps",
        "_tagged",
        "_timed",
        "_version",
    )

    if TYPE_CHECKING:
        _additions: int
        _clock: Any
        _count: int
        _counts: dict[str, int]
        _data: Any
        _draws: int
        _ends: Any
        _evictions: int
        _filled: int
        _flights: Any
        _foreign: Any
        _generation: int
        _heap: Any
        _hits: int
        _idle: int | None
        _initialized: bool
        _jitter: float
        _lifetime: int | None
        _listener: Any
        _lock: Any
        _locks_reads: bool
        _maximum: int
        _misses: int
        _plain: bool
        _seed: int
        _sizer: Any
        _stamps: int
        _tagged: Any
        _timed: bool
        _unlinked: Any  # a hook of _Entries
        _version: int

    _LISTS = 1

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        self._hits = self._misses = self._evictions = self._version = self._additions = self._generation = 0
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._maximum = self._draws = self._seed = self._stamps = 0
        self._sizer = self._listener = self._clock = self._lifetime = self._idle = self._flights = None
        self._jitter, self._plain, self._initialized = 0.0, False, False
        self._data = self._foreign = self._heap = self._tagged = self._ends = None
        self._set_timed(False)
        self._empty()
        return self

    def _set_timed(self, timed):
        """Set whether entries may have a lifetime; readers take the lock then, and where there is no GIL."""
        self._timed, self._locks_reads = timed, timed or not _GIL

    def _empty(self):
        """Remove all entries, and return them for the caller to drop."""
        data, foreign, heap, tagged = {}, {}, [], {}
        ends = tuple([self._new_end() for _ in range(self._LISTS)])
        data, self._data = self._data, data
        foreign, self._foreign = self._foreign, foreign
        heap, self._heap = self._heap, heap
        tagged, self._tagged = self._tagged, tagged
        ends, self._ends = self._ends, ends
        self._filled = self._count = 0
        self._version += 1
        self._additions += 1
        return data, foreign, heap, tagged, ends

    @staticmethod
    def _new_end():
        return _End()

    def __del__(self, is_finalizing=sys.is_finalizing):
        """Break the cycles of links, so that the entries go at once; at the end of an interpreter the names
        of this module may be gone."""
        if is_finalizing():
            return
        old = self._empty()
        self._unchain(self._snapshot(ends=old[-1]), old[-1])

    def _unchain(self, entries, ends):
        """Make all entries of lists dead."""
        for entry in entries:
            entry.prev = entry.next = entry.end = None
        for end in list(self._all_ends(ends)):
            end.prev = end.next = None

    # ---- keys -------------------------------------------------------------------------------

    def _seek(self, key):
        """The entry of `key`, or None; runs code of keys, so no lock may be held."""
        data, foreign = self._data, self._foreign
        entry = data.get(key) if data or not foreign else None
        return self._seek_foreign(key) if entry is None and foreign else entry

    def _seek_foreign(self, key):
        """The entry of `key` in the bucket of its hash, or None."""
        for entry in self._foreign.get(hash(key), ()):
            if entry.key is key or entry.key == key:
                return entry
        return None

    def _is_current(self, entry, additions):
        """Whether the result of `_seek` still holds; `additions` is the count before it. The lock is held."""
        if entry is None:
            return additions == self._additions
        return entry.next is not None or self._is_found(entry)

    def _is_found(self, entry):
        """Whether `_seek` finds `entry`; a dead one only while it is being linked again."""
        if entry.bucket is not None:
            return any(other is entry for other in self._foreign.get(entry.bucket, ()))
        data, key = self._data, entry.key
        return key in data and data[key] is entry

    def _forget_key(self, entry):
        """Remove the key of `entry`."""
        if entry.bucket is None:
            data, key = self._data, entry.key
            if key in data and data[key] is entry:
                del data[key]
            return
        foreign, home = self._foreign, entry.bucket
        while True:
            group = foreign.get(home, ())
            rest = tuple([other for other in group if other is not entry])
            if len(rest) == len(group):
                return
            if home in foreign and foreign[home] is group:
                if rest:
                    foreign[home] = rest
                else:
                    del foreign[home]
                return

    # ---- entries and their lists ------------------------------------------------------------

    def _move(self, entry, end):
        """Move a live entry to the newest end of the list of `end`."""
        next, last = entry.next, end.prev
        if next is None or last is None or last is entry:
            return
        prev, size = entry.prev, entry.size
        prev.next = next
        next.prev = prev
        entry.end.size -= size
        entry.prev, entry.next, entry.end = last, end, end
        last.next = entry
        end.prev = entry
        end.size += size
        self._version += 1

    def _unlink(self, entry):
        """Unlink a live entry and return its value; _ABSENT if a finalizer was faster."""
        prev, next, value = entry.prev, entry.next, entry.value
        if next is None:
            return _ABSENT
        end, size = entry.end, entry.size
        prev.next = next
        next.prev = prev
        end.size -= size
        self._filled -= size
        self._count -= 1
        self._version += 1
        entry.prev = entry.next = entry.end = entry.value = None
        self._unlinked(entry, end, next)
        return value

    def _first(self, end):
        """The oldest entry of a list, None if it is empty or has been cleared."""
        entry = end.next
        return None if entry is end else entry

    def _snapshot(self, row=_itself, ends=None):
        """``row(entry)`` of the live entries, or of the lists of `ends`, list by list, the oldest first.

        All are of one moment. Readers take the lock meanwhile, so that none moves an entry.
        """
        with self._lock:
            try:
                while True:
                    self._locks_reads = True
                    version = self._version
                    rows = self._walk(row, ends or self._ends)
                    if version == self._version:
                        return rows
            finally:
                self._locks_reads = self._timed or not _GIL  # no other code runs between the two

    def _walk(self, row, ends):
        """Rows of the lists of `ends`; cut short, with another `_version`, at an entry that has left."""
        rows = []
        for end in self._all_ends(ends):
            entry = end.next
            while entry is not None and entry.end is end:
                rows.append(row(entry))
                entry = entry.next
        return rows

    def _all_ends(self, ends):
        return ends
