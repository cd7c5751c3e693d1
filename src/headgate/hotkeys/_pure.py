"""Hot keys in pure Python: Space-Saving on a stream summary.

    _table: a dict                      _sentinel <-> buckets by rising count
    hash -> [entry, entry]              bucket.entries: a dict whose keys are entries, oldest first

The buckets, victims and errors are those of the compiled twin. Entries compare by identity, and the table
is keyed by the hash alone, so that only `_find` runs the ``__eq__`` of keys. ``__index__``, ``__hash__``, the
clock and ``__eq__`` run before the lock is taken, and a victim is dropped after it is released. `_find`
returns the `_version` of the set of keys for which its result holds, and is called again if that has changed
under the lock. The lock is re-entrant, as a finalizer may run at any step: while `_busy`, which means that an
edit is in progress, its additions and clears are deferred in `_deferred` until the lock is free, and what it
reads may lack the key that is being moved.

Files: _summary (entries, buckets, table, decay), _hotkeys (the public class).
"""

from headgate.hotkeys._hotkeys import HotKeys

__all__ = ["HotKeys"]
