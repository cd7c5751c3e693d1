"""Views of a cache: snapshots when iterated, and reading them touches nothing."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, ValuesView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_ABSENT: Any = object()


class CacheKeys(KeysView["Any"]):
    """The keys, next victim first."""

    __slots__ = ()


class CacheValues(ValuesView["Any"]):
    """The values, in the order of the keys."""

    __slots__ = ()
    _mapping: Any

    def __contains__(self, value: object) -> bool:
        return any(other is value or other == value for other in self)

    def __iter__(self) -> Iterator[Any]:
        return iter([value for _, value in self._mapping._entries()])


class CacheItems(ItemsView["Any", "Any"]):
    """The pairs of key and value, in the order of the keys."""

    __slots__ = ()
    _mapping: Any

    def __contains__(self, item: Any) -> bool:
        key, value = item
        found = self._mapping.peek(key, _ABSENT)
        return found is value or (found is not _ABSENT and bool(found == value))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping._entries())
