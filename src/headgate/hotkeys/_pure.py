"""Hot keys in pure Python: Space-Saving on a stream summary.

    _table: a dict                      _sentinel <-> buckets by rising count
    hash -> [entry, entry]              bucket.entries: a dict whose keys are entries, oldest first

The buckets, victims and errors are those of the compiled twin. Entries compare by identity, and the table
is keyed by the hash alone, so that only `_find` runs the ``__eq__`` of keys. ``__index__``, ``__hash__``, the
clock and ``__eq__`` run before the lock is taken, and a victim is dropped after that. `_find` says for which
`_version` of the set of keys its result holds; where that is over under the lock, it is called anew. The lock
is re-entrant, as a finalizer may come at any step: while `_busy` says that an edit is under way, what it adds
or clears waits in `_late` until the lock is free, and what it reads may lack the key that is being moved.
"""

from headgate.hotkeys._hotkeys import HotKeys

__all__ = ["HotKeys"]
