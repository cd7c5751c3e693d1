"""Views of a cache: snapshots when iterated, and reading them touches nothing."""

from collections.abc import ItemsView, KeysView, ValuesView

ABSENT = object()


class CacheKeys(KeysView):
    """The keys, next victim first."""

    __slots__ = ()


class CacheValues(ValuesView):
    """The values, in the order of the keys."""

    __slots__ = ()

    def __contains__(self, value):
        return any(other is value or other == value for other in self)

    def __iter__(self):
        return iter([value for _, value in self._mapping._entries()])


class CacheItems(ItemsView):
    """The pairs of key and value, in the order of the keys."""

    __slots__ = ()

    def __contains__(self, item):
        key, value = item
        found = self._mapping.peek(key, ABSENT)
        return found is value or (found is not ABSENT and found == value)

    def __iter__(self):
        return iter(self._mapping._entries())
