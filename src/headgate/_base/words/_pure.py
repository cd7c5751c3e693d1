"""The words of a concurrency limit in pure Python: permits, and the state of an algorithm.

    word 0  | number of changes: 32 bits | permits in all: 32 bits |
    a slot  | which process: 44 bits | its permits: 20 bits |

The words, and the order in which they are written, are those of the compiled twin; a lock takes the place of
the compare-and-swap. What is written together is written with no call in between, after which an exception
out of a signal handler could come.
"""

from headgate._base.forks import new_lock, under

_WORD = 2**64
_COUNT = 2**32 - 1
_PERMITS = 2**20 - 1


class Words:
    """The 64-bit words of `memory`, a writable buffer, for all threads and processes that map it.

    Each method is one atomic step, or leaves what a process that is killed within it would. `file` is the
    lock of memory that processes share, which only the pure twin needs.

    Raises IndexError if there is no such word. Complexity: O(1).

    >>> words = Words(bytearray(16))
    >>> words.add(1, 5), words.swap(1, 7), words.load(1)
    (5, 5, 7)
    """

    __slots__ = ("__weakref__", "_locked", "_words")

    def __init__(self, memory, file=None):
        self._words = memoryview(memory).cast("B").cast("Q")
        self._locked = under(new_lock()) if file is None else file.locked

    def _at(self, at):
        if not 0 <= at < len(self._words):
            raise IndexError(f"word must be in the memory, got {at!r}")
        return at

    def load(self, at):
        """The word at `at`.

        >>> Words(bytearray(16)).load(1)
        0
        """
        return self._words[self._at(at)]

    def load_from(self, at):
        """The words from `at` on, each of them read by an atomic step of its own.

        Complexity: O(n) for n words.

        >>> Words(bytearray(24)).load_from(1)
        [0, 0]
        """
        return [self._words[place] for place in range(self._at(at), len(self._words))]

    def add(self, at, number):
        """Add a non-negative number; the sum, modulo 2**64.

        >>> Words(bytearray(16)).add(0, 3)
        3
        """
        return self._locked(self._add, self._at(at), number)

    def _add(self, at, number):
        self._words[at] = total = (self._words[at] + number) % _WORD
        return total

    def swap(self, at, value):
        """Write a word; the one that was there.

        >>> words = Words(bytearray(16))
        >>> words.swap(0, 3), words.swap(0, 4)
        (0, 3)
        """
        return self._locked(self._swap, self._at(at), value)

    def _swap(self, at, value):
        seen, self._words[at] = self._words[at], value
        return seen

    def cas(self, at, seen, value):
        """Write a word if the one that is there is `seen`; True if so.

        >>> words = Words(bytearray(16))
        >>> words.cas(0, 0, 3), words.cas(0, 0, 4), words.load(0)
        (True, False, 3)
        """
        return self._locked(self._cas, self._at(at), seen, value)

    def _cas(self, at, seen, value):
        if self._words[at] != seen:
            return False
        self._words[at] = value
        return True

    def take(self, slot, limit, mark):
        """Take a permit for `slot` if fewer than `limit` are taken; how many are taken then, or else 0.

        The list `mark` gets an element with it, so that an exception out of a signal handler loses neither.

        >>> words, mark = Words(bytearray(16)), []
        >>> words.take(1, 1, mark), words.take(1, 1, []), len(mark)
        (1, 0, 1)
        """
        return self._locked(self._take, self._at(slot), limit, mark)

    def _take(self, slot, limit, mark):
        words = self._words
        total = words[0]
        taken = total & _COUNT
        if taken >= limit:
            return 0
        words[slot] += 1
        words[0] = ((total >> 32) + 1 << 32 | taken + 1) % _WORD
        mark.append(True)
        return taken + 1

    def give(self, slot, mark):
        """Give a permit of `slot` back, with the element of `mark`; False if that is gone.

        >>> words, mark = Words(bytearray(16)), []
        >>> words.take(1, 1, mark), words.give(1, mark), words.give(1, mark)
        (1, True, False)
        """
        return self._locked(self._give, self._at(slot), mark)

    def _give(self, slot, mark):
        words = self._words
        if not mark:
            return False
        total = words[0]
        if total & _COUNT:
            words[0] = ((total >> 32) + 1 << 32 | (total & _COUNT) - 1) % _WORD
        if words[slot] & _PERMITS:
            words[slot] -= 1
        mark.pop()
        return True

    def recount(self, permits):
        """Lower the permits in all to what ``permits()`` returns, if nothing was taken or given meanwhile.

        >>> words = Words(bytearray(16))
        >>> words.take(1, 5, []), words.recount(lambda: 0), words.load(0) % 2**32
        (1, True, 0)
        """
        seen = self.load(0)
        count = permits()
        changed = ((seen >> 32) + 1 << 32 | count) % _WORD
        return count < seen & _COUNT and self.cas(0, seen, changed)

    def __reduce__(self):
        raise TypeError("a Words cannot be copied or pickled: it belongs to one memory")
