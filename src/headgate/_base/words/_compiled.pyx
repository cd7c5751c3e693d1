# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The words of a concurrency limit: permits, and the state of an algorithm, changed by atomic steps.

    word 0  | number of changes: 32 bits | permits in all: 32 bits |
    a slot  | which process: 44 bits | its permits: 20 bits |

Invariants
- The permits in all are never fewer than those that were given: a slot is raised before them and lowered
  after them, and they are counted anew under the number of changes that was seen before.
- No call waits: a process that is stopped or killed between any two steps leaves the permits in all too high.
"""
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t

from headgate._c.atomics cimport hg_cas, hg_load, hg_swap


cdef extern from *:
    """
    #define COUNT UINT64_C(0xffffffff)
    #define PERMITS UINT64_C(0xfffff)
    """
    const uint64_t COUNT
    const uint64_t PERMITS


cdef uint64_t _changed(uint64_t seen, uint64_t count) noexcept nogil:
    """The word of the permits in all after one more change."""
    return ((seen >> 32) + 1) << 32 | count


cdef uint64_t _add(uint64_t *word, uint64_t number) noexcept nogil:
    """The sum that the word has then, which wraps."""
    cdef uint64_t seen = hg_load(word)
    while not hg_cas(word, seen, seen + number):
        seen = hg_load(word)
    return seen + number


cdef class Words:
    """Words(memory, file=None)\n--\n
    The 64-bit words of `memory`, a writable buffer, for all threads and processes that map it.

    Each method is one atomic step, or leaves what a process that is killed within it would. `file` is the
    lock of memory that processes share, which only the pure twin needs.

    Raises IndexError if there is no such word. Complexity: O(1).

    >>> words = Words(bytearray(16))
    >>> words.add(1, 5), words.swap(1, 7), words.load(1)
    (5, 5, 7)
    """

    def __cinit__(self, memory, file=None):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.words = <uint64_t *>self.view.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef uint64_t *at_word(self, Py_ssize_t at) except NULL:
        if not 0 <= at < self.view.len // <Py_ssize_t>sizeof(uint64_t):
            raise IndexError(f"word must be in the memory, got {at!r}")
        return self.words + at

    def load(self, at):
        """The word at `at`.

        >>> Words(bytearray(16)).load(1)
        0
        """
        return hg_load(self.at_word(at))

    def load_from(self, at):
        """The words from `at` on, each of them read by an atomic step of its own.

        Complexity: O(n) for n words.

        >>> Words(bytearray(24)).load_from(1)
        [0, 0]
        """
        cdef Py_ssize_t count = self.view.len // <Py_ssize_t>sizeof(uint64_t) - <Py_ssize_t>at, place
        cdef uint64_t *words = self.at_word(at)
        return [hg_load(words + place) for place in range(count)]

    def add(self, at, number):
        """Add a non-negative number; the sum, modulo 2**64.

        >>> Words(bytearray(16)).add(0, 3)
        3
        """
        return _add(self.at_word(at), number)

    def swap(self, at, value):
        """Write a word; the one that was there.

        >>> words = Words(bytearray(16))
        >>> words.swap(0, 3), words.swap(0, 4)
        (0, 3)
        """
        return hg_swap(self.at_word(at), value)

    def cas(self, at, seen, value):
        """Write a word if the one that is there is `seen`; True if so.

        >>> words = Words(bytearray(16))
        >>> words.cas(0, 0, 3), words.cas(0, 0, 4), words.load(0)
        (True, False, 3)
        """
        return hg_cas(self.at_word(at), seen, value)

    def take(self, slot, limit, mark):
        """Take a permit for `slot` if fewer than `limit` are taken; how many are taken then, or else 0.

        The list `mark` gets an element with it, so that an exception out of a signal handler loses neither.

        >>> words, mark = Words(bytearray(16)), []
        >>> words.take(1, 1, mark), words.take(1, 1, []), len(mark)
        (1, 0, 1)
        """
        return self.taken(slot, limit, mark)

    cdef int64_t taken(self, Py_ssize_t slot, uint64_t limit, list mark) except -1:
        """``take``."""
        cdef uint64_t seen
        cdef uint64_t *total = self.at_word(0)
        cdef uint64_t *own = self.at_word(slot)
        seen = hg_load(total)
        if (seen & COUNT) >= limit:
            return 0
        mark.append(True)
        _add(own, 1)
        while (seen & COUNT) < limit:
            if hg_cas(total, seen, _changed(seen, (seen & COUNT) + 1)):
                return (seen & COUNT) + 1
            seen = hg_load(total)
        _add(own, <uint64_t>-1)
        mark.pop()
        return 0

    def give(self, slot, mark):
        """Give a permit of `slot` back, with the element of `mark`; False if that is gone.

        >>> words, mark = Words(bytearray(16)), []
        >>> words.take(1, 1, mark), words.give(1, mark), words.give(1, mark)
        (1, True, False)
        """
        return self.given(slot, mark)

    cdef bint given(self, Py_ssize_t slot, list mark) except -1:
        """``give``."""
        cdef uint64_t seen
        cdef uint64_t *total = self.at_word(0)
        cdef uint64_t *own = self.at_word(slot)
        try:
            mark.pop()
        except IndexError:
            return False
        seen = hg_load(total)
        while (seen & COUNT) and not hg_cas(total, seen, _changed(seen, (seen & COUNT) - 1)):
            seen = hg_load(total)
        seen = hg_load(own)
        while (seen & PERMITS) and not hg_cas(own, seen, seen - 1):
            seen = hg_load(own)
        return True

    def recount(self, permits):
        """Lower the permits in all to what ``permits()`` returns, if nothing was taken or given meanwhile.

        >>> words = Words(bytearray(16))
        >>> words.take(1, 5, []), words.recount(lambda: 0), words.load(0) % 2**32
        (1, True, 0)
        """
        cdef uint64_t *total = self.at_word(0)
        cdef uint64_t seen = hg_load(total)
        cdef uint64_t count = permits()
        return count < (seen & COUNT) and hg_cas(total, seen, _changed(seen, count))

    def __reduce__(self):
        raise TypeError("a Words cannot be copied or pickled: it belongs to one memory")
