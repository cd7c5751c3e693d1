"""Objects that misbehave: keys and values that raise, mutate or re-enter when the cache touches them."""

import random


class Mischief:
    """What an evil object does when it is touched; `draw` decides, `depth` keeps it finite."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.cache = None
        self.depth = 0
        self.active = True

    def strike(self, may_raise):
        if not self.active or self.cache is None or self.depth >= 3 or self.draw.random() < 0.5:
            return
        self.depth += 1
        try:
            self.act(self.draw.randrange(8 if may_raise else 6))
        except (KeyError, ValueError, ZeroDivisionError):
            pass
        finally:
            self.depth -= 1
        if may_raise and self.draw.random() < 0.1:
            raise ZeroDivisionError("evil")

    def act(self, choice):
        cache = self.cache
        if choice == 0:
            cache.clear()
        elif choice == 1:
            cache[EvilKey(self)] = EvilValue(self)
        elif choice == 2:
            cache.popitem()
        elif choice == 3:
            cache.resize(self.draw.randrange(2, 30))
        elif choice == 4:
            for key in list(cache)[:3]:
                cache.pop(key, None)
        elif choice == 5:
            cache.update({str(i): i for i in range(10)})
        else:
            cache.get(EvilKey(self))


class EvilKey:
    """One of few names and fewer hashes; its ``__eq__`` strikes."""

    def __init__(self, mischief, name=None):
        self.mischief = mischief
        self.name = mischief.draw.randrange(12) if name is None else name

    def __hash__(self):
        return self.name % 3

    def __eq__(self, other):
        self.mischief.strike(may_raise=True)
        return isinstance(other, EvilKey) and self.name == other.name

    def __del__(self):
        self.mischief.strike(may_raise=False)


class EvilValue:
    """Its ``__del__`` strikes."""

    def __init__(self, mischief):
        self.mischief = mischief

    def __del__(self):
        self.mischief.strike(may_raise=False)
