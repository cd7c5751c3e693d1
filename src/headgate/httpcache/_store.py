"""The store of an HTTPCache: responses weighed in bytes, found by key, purged by URL, prefix and tag."""

from __future__ import annotations

from headgate._base.forks import new_lock
from headgate.httpcache._dated import DatedPurges
from headgate.httpcache._purging import KEY, TAG, URL, Purge, url_tag
from headgate.httpcache._stored import Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from headgate.httpcache._log import ProcessLog
    from headgate.httpcache._settings import Settings
    from headgate.httpcache._stored import Stored


def _weight(resource: Resource) -> int:
    return resource.weight


class Store:
    """Resources by primary key in a cache of some policy, with an index of tags and a log of purges.

    What changes it holds its lock; reading needs none. Every purge is written to the log first and then
    applied, and before a response is stored, the purges since its request are compared with it.
    """

    __slots__ = (
        "_clock", "_dated", "_lock", "_log", "_most_variants", "_most_weight", "_own_keys",
        "_tagged", "cache", "evictions", "get", "purged", "seen", "shared", "stored",
    )

    def __init__(
        self,
        policy: Callable[..., Any],
        settings: Settings,
        log: ProcessLog,
        own_keys: bool,
        clock: Callable[[], int],
    ) -> None:
        self._clock = clock
        self._own_keys = own_keys
        self._lock = new_lock()
        self._log = log
        self._dated = DatedPurges()
        self.shared = log.shared
        self.seen = log.position()
        self._set_bounds(settings)
        self._tagged: dict[bytes, set[bytes]] = {}
        self.evictions = self.purged = self.stored = 0
        self.cache: Any = policy(settings.maxsize, _weight, on_evict=self._left)
        self.get: Callable[[bytes], Resource | None] = self.cache.get

    def position(self) -> int:
        """The position in the log up to which all purges are applied, those of other processes too."""
        if self.shared and self._log.position() != self.seen:
            self.catch_up()
        return self.seen

    @property
    def is_dated(self) -> bool:
        """Whether purges had times, so that other caches may want to know when responses were generated."""
        return bool(self._dated)

    def put(self, stored: Stored, since: int) -> bool:
        """Stores a response, unless a purge since the position `since` concerns it or it is too large."""
        with self._lock:
            self.catch_up()
            if (self._is_purged(stored.key, stored.url, stored.tags, since, stored.generated)
                    or stored.generated < self._dated.latest(stored.key, stored.url, stored.tags)):
                return False
            old = self.cache.peek(stored.key)
            resource = old or Resource(stored.key, stored.url, ())
            new = resource.with_variant(stored, self._most_variants, self._most_weight)
            if new.weight > self.cache.maxsize:
                return False
            self._replace(old, new)
            self.stored += 1
            return True

    def _set_bounds(self, settings: Settings) -> None:
        self._most_variants = settings.max_variants
        self._most_weight = max(1, settings.maxsize // 4)

    def reconfigure(self, settings: Settings) -> None:
        """Sets other bounds, and evicts what no longer fits."""
        with self._lock:
            self._set_bounds(settings)
            self.cache.resize(settings.maxsize)

    def remove(self, stored: Stored) -> None:
        """Removes a response, if it is still the one that is stored."""
        with self._lock:
            old = self.cache.peek(stored.key)
            if old is not None and any(other is stored for other in old.variants):
                self._keep(old, tuple(other for other in old.variants if other is not stored))

    def is_overtaken(self, key: bytes, url: bytes, tags: tuple[bytes, ...], since: int) -> bool:
        """Whether a purge since a position concerns what has this key, URL and tags."""
        if self.position() == since:
            return False
        with self._lock:
            return self._is_purged(key, url, tags, since)

    def purge(self, *purges: Purge) -> int:
        """Removes what they match, or makes it stale, in all processes; how many responses here."""
        with self._lock:
            self.catch_up()
            for purge in purges:
                self._log.append(purge.encode())
            return self.catch_up()

    def catch_up(self) -> int:
        """Applies the purges that were not applied yet; all leaves if some are lost. How many responses
        did."""
        with self._lock:
            position = self._log.position()
            if position == self.seen:
                return 0
            records = self._log.read(self.seen)
            if records is None:
                count = sum([len(resource.variants) for resource in self.cache.values()])
                self.cache.invalidate()
            else:
                count = sum([self._apply(Purge.decode(record)) for record in records])
            self.seen = position
            self.purged += count
            return count

    def _is_purged(
        self, key: bytes, url: bytes, tags: tuple[bytes, ...], since: int, generated: int = 0
    ) -> bool:
        """Whether a purge since a position concerns a response, which was `generated` at some time or, where
        that is not known, 0."""
        if since == self.seen:
            return False
        records = self._log.read(since)
        if records is None:
            return True
        purges = [Purge.decode(record) for record in records]
        return any(purge.reaches(generated) and purge.matches(key, url, tags) for purge in purges)

    def _apply(self, purge: Purge) -> int:
        now, count = self._clock(), 0
        if purge.at:
            self._dated.add(purge)
        for key in self._candidates(purge):
            resource = self.cache.peek(key)
            if resource is None:
                continue
            concerned = {
                id(stored) for stored in resource.variants
                if purge.reaches(stored.generated) and purge.matches(key, stored.url, stored.tags)
            }
            if not concerned:
                continue  # what is stored again would count as used
            kept = []
            for stored in resource.variants:
                if id(stored) not in concerned:
                    kept.append(stored)
                elif not purge.soft:
                    count += 1
                else:
                    count += now < stored.fresh_until
                    kept.append(stored.expired(now))
            self._keep(resource, tuple(kept))
        return count

    def _candidates(self, purge: Purge) -> list[bytes]:
        """The primary keys of what a purge may concern: one, those of a tag, or all."""
        if purge.kind == TAG:
            return list(self._tagged.get(purge.value, ()))
        if purge.kind == KEY:
            return [purge.value]
        if purge.kind == URL:
            return list(self._tagged.get(url_tag(purge.value), ())) if self._own_keys else [purge.value]
        return list(self.cache)

    def _keep(self, old: Resource, variants: tuple[Stored, ...]) -> None:
        """Replaces the responses of a resource by some of them, or makes it leave."""
        if variants:
            self._replace(old, Resource(old.key, old.url, variants))
        else:
            self.cache.pop(old.key, None)

    def _replace(self, old: Resource | None, new: Resource) -> None:
        tags = new.tags()
        if old is not None:
            self._untag(new.key, old.tags() - tags)
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(new.key)
        self.cache[new.key] = new

    def _untag(self, key: bytes, tags: set[bytes]) -> None:
        for tag in tags:
            keys = self._tagged.get(tag)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._tagged[tag]

    def _left(self, key: bytes, resource: Resource, reason: str) -> None:
        """What the cache calls with each resource that leaves; always while the lock is held."""
        if reason == "replaced":
            return
        if reason == "size":
            self.evictions += len(resource.variants)
        tags = resource.tags()
        if tags:
            self._untag(key, tags)

    def _check(self) -> None:
        """Raises AssertionError unless weights, groups and tags agree with what is stored."""
        with self._lock:
            self.cache._check()
            tagged: dict[bytes, set[bytes]] = {}
            for key, resource in self.cache.items():
                assert resource.key == key, "a resource is found by its key"
                assert 1 <= len(resource.variants) <= self._most_variants, "variants are bounded"
                again = Resource(key, resource.url, resource.variants)
                assert resource.weight == again.weight, "weights add up"
                places = {(stored.names, stored.secondary) for stored in resource.variants}
                assert len(places) == len(resource.variants), "variants differ in their secondary keys"
                for tag in resource.tags():
                    tagged.setdefault(tag, set()).add(key)
            assert tagged == self._tagged, "tags find their resources"
            self._dated._check()
            assert self.cache.currsize <= self.cache.maxsize, "the size is bounded"
