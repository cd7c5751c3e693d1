"""Naive models of the eviction policies, written from their papers as plainly as possible.

A model keeps lists of keys, oldest first, and searches them; `Naive` adds sizes, lifetimes and the methods.
"""

from headgate.cache.policies.tinylfu import _Rejections, _Sketch
from headgate.hashing._pure import splitmix64

NEVER = 2**63 - 1


class Entry:
    def __init__(self, key, value, size):
        self.key, self.value, self.size = key, value, size
        self.ttl_due = self.due = NEVER
        self.turn = 0
        self.tags = ()


class LRU:
    def __init__(self, cache, seed=0):
        self.cache, self.queue = cache, []

    def count_request(self, key):
        pass

    def admit(self, key):
        self.queue.append(key)

    def removed(self, key):
        self.queue.remove(key)

    def hit(self, key):
        self.queue.remove(key)
        self.queue.append(key)

    def rewrite(self, key):
        self.hit(key)

    def victim(self, size):
        return self.queue[0]

    def step(self, size):
        """Evict as one step of the policy does."""
        self.cache.evict(self.victim(size))

    def order(self):
        return self.queue

    def cleared(self):
        self.__init__(self.cache)

    def resized(self):
        pass


class FIFO(LRU):
    def hit(self, key):
        pass

    def rewrite(self, key):
        self.queue.remove(key)
        self.queue.append(key)


class LFU(LRU):
    """Counts, and the step at which each key got its count."""

    def __init__(self, cache, seed=0):
        super().__init__(cache)
        self.uses, self.since, self.steps = {}, {}, 0

    def _count(self, key, uses):
        self.steps += 1
        self.uses[key], self.since[key] = uses, self.steps

    def admit(self, key):
        self._count(key, 1)

    def removed(self, key):
        del self.uses[key], self.since[key]

    def hit(self, key):
        self._count(key, self.uses[key] + 1)

    def order(self):
        return sorted(self.uses, key=lambda key: (self.uses[key], self.since[key]))

    def victim(self, size):
        return self.order()[0]


class SIEVE(LRU):
    def __init__(self, cache, seed=0):
        super().__init__(cache)
        self.visited, self.hand = set(), None

    def hit(self, key):
        self.visited.add(key)

    def rewrite(self, key):
        self.visited.add(key)

    def _newer(self, key):
        place = self.queue.index(key) + 1
        return self.queue[place] if place < len(self.queue) else None

    def removed(self, key):
        if self.hand == key:
            self.hand = self._newer(key)
        self.visited.discard(key)
        self.queue.remove(key)

    def victim(self, size):
        key = self.queue[0] if self.hand is None else self.hand
        while key in self.visited:
            self.visited.remove(key)
            newer = self._newer(key)
            key = self.queue[0] if newer is None else newer
        self.hand = key
        return key


class S3FIFO(LRU):
    """Algorithm 1 of the paper; a ghost weighs at least 1."""

    def __init__(self, cache, seed=0):
        self.cache, self.small, self.main, self.freq, self.ghosts = cache, [], [], {}, []

    def _weight(self, keys):
        return sum(self.cache.size_of(key) for key in keys)

    def admit(self, key):
        ghost = next((ghost for ghost in self.ghosts if ghost[0] == hash(key)), None)
        (self.main if ghost else self.small).append(key)
        if ghost:
            self.ghosts.remove(ghost)
        self.freq[key] = 0

    def removed(self, key):
        (self.small if key in self.small else self.main).remove(key)
        del self.freq[key]

    def hit(self, key):
        self.freq[key] = min(3, self.freq[key] + 1)

    def rewrite(self, key):
        self.hit(key)

    def _is_turn_of_small(self):
        return bool(self.small) and (10 * self._weight(self.small) >= self.cache.maxsize or not self.main)

    def _promote(self):
        key = self.small.pop(0)
        self.freq[key] = 0
        self.main.append(key)

    def _main_victim(self):
        while self.freq[self.main[0]] > 0:
            key = self.main.pop(0)
            self.freq[key] -= 1
            self.main.append(key)
        return self.main[0]

    def victim(self, size):
        while self._is_turn_of_small():
            if self.freq[self.small[0]] <= 1:
                return self.small[0]
            self._promote()
        return self._main_victim()

    def step(self, size):
        if not self._is_turn_of_small():
            self.cache.evict(self._main_victim())
            return
        while self.small and self.freq[self.small[0]] > 1:
            self._promote()
            if 10 * self._weight(self.main) > 9 * self.cache.maxsize:
                self.cache.evict(self._main_victim())
        if self.small:
            key = self.small[0]
            self.ghosts = [ghost for ghost in self.ghosts if ghost[0] != hash(key)]
            self.ghosts.append((hash(key), max(1, self.cache.size_of(key))))
            self.cache.evict(key)
            self.resized()

    def resized(self):
        while 10 * sum(weight for _, weight in self.ghosts) > 9 * self.cache.maxsize:
            self.ghosts.pop(0)

    def order(self):
        return self.small + self.main


class WTinyLFU(LRU):
    """Window, probation and protected; sketch and rejections are those of the pure twin."""

    def __init__(self, cache, seed=0):
        self.cache, self.window, self.probation, self.protected = cache, [], [], []
        self.sketch, self.rejections = _Sketch(), _Rejections()
        self.resized()

    def cleared(self):
        self.window, self.probation, self.protected = [], [], []
        self.sketch, self.rejections, self.promotions = _Sketch(), _Rejections(), 0

    def resized(self):
        self.window_maximum = max(self.cache.maxsize // 100, min(1, self.cache.maxsize))
        self.promotions, self.target = 0, float(self.window_maximum)

    def _weight(self, keys):
        return sum(self.cache.size_of(key) for key in keys)

    def _protected_maximum(self):
        return (self.cache.maxsize - self.window_maximum) * 4 // 5

    def count_request(self, key):
        self.sketch.ensure(len(self.cache.entries))
        self.sketch.add(hash(key))

    def _overflow(self, size):
        """Move entries from the window to probation; the last one is the candidate."""
        candidate = None
        while self.window and self._weight(self.window) + size > self.window_maximum:
            candidate = self.window.pop(0)
            self.probation.append(candidate)
        return candidate

    def _shrink_protected(self):
        while self._weight(self.protected) > self._protected_maximum() and self.protected:
            self.probation.append(self.protected.pop(0))

    def admit(self, key):
        self._overflow(self.cache.size_of(key))
        self.window.append(key)
        self._adapt(key)

    def _adapt(self, key):
        maxsize, size, span = self.cache.maxsize, self.cache.size_of(key), max(1, self.cache.maxsize // 16)
        promotions, self.promotions = self.promotions, 0
        if not self.rejections.sum:
            return
        lost = size * promotions / max(2.0, 2.0 * self._weight(self.probation) / span)
        least = min(1, maxsize)
        self.target = max(self.target - lost, least)
        self.target = min(self.target + size * self.rejections.has(hash(key), span), maxsize - least)
        wider, before = self.target - self.window_maximum, self.window_maximum
        if wider < 0 or wider >= maxsize / 64 or self.target == maxsize - least:
            self.window_maximum = int(self.target)
        if self.window_maximum != before:
            self._shrink_protected()

    def removed(self, key):
        for keys in (self.window, self.probation, self.protected):
            if key in keys:
                keys.remove(key)

    def hit(self, key):
        self.sketch.add(hash(key))
        self.rewrite(key)

    def rewrite(self, key):
        if key in self.probation:
            self.promotions += 1
            self.probation.remove(key)
            self.protected.append(key)
            self._shrink_protected()
            return
        keys = self.window if key in self.window else self.protected
        keys.remove(key)
        keys.append(key)

    def victim(self, size):
        candidate = self._overflow(size)
        victim = (self.probation or self.protected or self.window)[0]
        frequency = self.sketch.frequency
        if candidate is None:
            return victim
        if candidate != victim and frequency(hash(candidate)) > frequency(hash(victim)):
            return victim
        if size:
            self.rejections.add(hash(candidate), self.cache.size_of(candidate), len(self.cache.entries))
        return candidate

    def order(self):
        return self.window + self.probation + self.protected


class RR(LRU):
    """Keys in the order of writing, and in slots: the last slot fills an empty one."""

    def __init__(self, cache, seed=0):
        super().__init__(cache)
        self.slots, self.draws = [], seed

    def admit(self, key):
        self.queue.append(key)
        self.slots.append(key)

    def removed(self, key):
        self.queue.remove(key)
        place = self.slots.index(key)
        self.slots[place] = self.slots[-1]
        self.slots.pop()

    def hit(self, key):
        pass

    def victim(self, size):
        drawn = splitmix64(self.draws)
        self.draws += 1
        return self.slots[drawn * len(self.slots) >> 64]

    def cleared(self):
        self.queue, self.slots = [], []


MODELS = {
    "FIFOCache": FIFO,
    "LFUCache": LFU,
    "LRUCache": LRU,
    "RRCache": RR,
    "S3FIFOCache": S3FIFO,
    "SieveCache": SIEVE,
    "TinyLFUCache": WTinyLFU,
}


class Naive:
    """A cache of a policy's model, with `events`, the arguments of its listener's calls."""

    def __init__(self, policy, maxsize, weighted=False, clock=lambda: 0, ttl=None, tti=None, seed=0):
        self.maxsize, self.weighted, self.clock, self.ttl, self.tti = maxsize, weighted, clock, ttl, tti
        self.entries, self.events, self.turns = {}, [], 0
        self.hits = self.misses = self.evictions = self.expirations = 0
        self.policy = MODELS[policy](self, seed)

    def size_of(self, key):
        return self.entries[key].size

    def items(self):
        self.expire()
        return [(self.entries[key].key, self.entries[key].value) for key in self.policy.order()]

    def currsize(self):
        return sum(entry.size for entry in self.entries.values())

    def _leave(self, key, reason):
        self.policy.removed(key)
        entry = self.entries.pop(key)
        self.events.append((entry.key, entry.value, reason))
        return entry

    def evict(self, key):
        self._leave(key, "size")
        self.evictions += 1

    def expire(self):
        ended = [entry for entry in self.entries.values() if entry.due <= self.clock()]
        ended.sort(key=lambda entry: (entry.due, entry.turn))
        for entry in ended:
            self._leave(entry.key, "expired")
            self.expirations += 1
        return [(entry.key, entry.value) for entry in ended]

    def _schedule(self, entry):
        self.turns += 1
        entry.turn = self.turns
        entry.due = entry.ttl_due if self.tti is None else min(entry.ttl_due, self.clock() + self.tti)

    def get(self, key, default=None):
        entry = self.entries.get(key)
        if entry is None or entry.due <= self.clock():
            self.misses += 1
            if entry is not None:
                self._leave(key, "expired")
                self.expirations += 1
            return default
        self.hits += 1
        if self.tti is not None:
            self._schedule(entry)
        self.policy.hit(key)
        return entry.value

    def put(self, key, value, ttl=None, tags=()):
        self.expire()
        self.policy.count_request(key)
        size = value if self.weighted else 1
        if size > self.maxsize:
            raise ValueError
        entry = self.entries.get(key)
        if entry is None:
            entry = self._insert(Entry(key, value, size))
        else:
            self.events.append((entry.key, entry.value, "replaced"))
            entry.value = value
            if self.currsize() - entry.size + size <= self.maxsize:
                entry.size = size
                self.policy.rewrite(key)
            else:
                self.policy.removed(key)
                del self.entries[key]
                entry.size = size
                self._insert(entry)
        lifetime = self.ttl if ttl is None else ttl
        entry.ttl_due = NEVER if lifetime in (None, NEVER) else self.clock() + lifetime
        entry.tags = tags
        self._schedule(entry)

    def _insert(self, entry):
        while self.currsize() + entry.size > self.maxsize:
            self.policy.step(entry.size)
        self.entries[entry.key] = entry
        self.policy.admit(entry.key)
        return entry

    def setdefault(self, key, default):
        found = self.get(key)
        if found is None:
            self.put(key, default)
            return default
        return found

    def pop(self, key, default):
        entry = self.entries.get(key)
        if entry is None:
            return default
        if entry.due <= self.clock():
            self._leave(key, "expired")
            self.expirations += 1
            return default
        return self._leave(key, "removed").value

    def popitem(self):
        self.expire()
        if not self.entries:
            raise KeyError
        entry = self._leave(self.policy.victim(0), "removed")
        return entry.key, entry.value

    def invalidate(self, tag):
        tagged = [entry for entry in self.entries.values() if tag in entry.tags]
        for entry in tagged:
            self._leave(entry.key, "removed")
        return len(tagged)

    def clear(self):
        dropped = [self.entries[key] for key in self.policy.order()]
        self.events += [(entry.key, entry.value, "removed") for entry in dropped]
        self.entries = {}
        self.policy.cleared()

    def resize(self, maxsize):
        self.expire()
        self.maxsize = maxsize
        self.policy.resized()
        while self.currsize() > maxsize:
            self.policy.step(0)
