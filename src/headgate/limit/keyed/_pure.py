"""Rate limits by key in pure Python: a table of fixed size for each tier of the rate.

    key --keyed hash--> tag, two lines

    line  | cell | cell | cell | cell | cell | cell | cell | cell |
    cell  | tag: 23 bits | time at which nothing is owed any more: 40 bits |

The cells, and what becomes of them, are those of the compiled twin; the tags of a table stand behind its
times, and are searched at the speed of C. The system gives its memory as it is used. A lock takes the place
of the compare-and-swap; the clock and the conversions of arguments, which are foreign code, run before it is
taken.

A finalizer or a signal handler may use the limiter wherever Python calls or returns, amid an edit too. So
the lock is re-entrant, `edits` counts what is written, and whoever writes first looks whether the count is
the one under which he has read, with no call between the two; else he starts over.

A strict limiter has one table, whose cells are the heads of logs of the times, in nanoseconds, of the last
requests of each key:

    log   | time | time | ... |         one for each token of the largest limit, for all tiers together

The compiled twin keeps a log in no order, since many may write to it at once; here it is a ring.
"""

import os
import sys
from array import array
from bisect import bisect_right
from hashlib import blake2b
from math import inf, ldexp
from operator import itemgetter
from sys import byteorder
from time import monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, under
from headgate._base.keys import key_bytes
from headgate._base.pickling import initialized
from headgate.limit import _waiting
from headgate.limit._decision import Decision, with_details
from headgate.limit._rate import checked_rates
from headgate.limit._reservation import Reservation
from headgate.limit._tables import (
    checked_mismatch,
    checked_overflow,
    checked_windows,
    count_lines,
    largest_cost,
    longest_log,
    no_memory,
    scale_of,
    stride_of,
    tables_of,
)
from headgate.limit._units import checked_amount, to_units, units_at, unused, wait

try:
    import mmap
except ImportError:  # WASI, browsers
    mmap = None

_CELLS = 8
_CONTROL = 8
_WORD_SIZE = 8
_TAG_SIZE = 4
_LINE = _TAG_SIZE * _CELLS
_BLOCK = 512
_LEAST_MAP = 2**16
_TIMES = 2**40
_HALF = _TIMES // 2
_WORD = 2**64
_MOST_DEBT = _LONG_PAST = _BACK = 2**37  # cells.h says why
_SILENCE = 5 * 2**35
_MOST_COST = 2**40
_AT, _COST, _DEBT, _MISSING, _INHERITED, _AHEAD = 1, 4, 5, 6, 7, 8
_STEPS = 2**32
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if mmap and os.name == "posix" else {}
_HASH_BYTES = 11
_HASHES = 2 ** (8 * _HASH_BYTES)
_SPREAD = 0x9E3779_B97F4A7C_15F39CC1
_STR, _INT = _SPREAD, 2 * _SPREAD % _HASHES


def _hash_in_process(secret):
    """Python's SipHash with the secret before the key, where it has one: much faster than BLAKE2b."""
    if sys.hash_info.algorithm not in ("siphash13", "siphash24") or sys.hash_info.width < 64:
        return _hash_anywhere(secret)
    return lambda data: hash(secret + data) * _SPREAD % _HASHES


def _hash_anywhere(secret):
    """The same in all processes."""
    keyed = blake2b(key=secret, digest_size=_HASH_BYTES)

    def hash_of(data):
        digest = keyed.copy()
        digest.update(data)
        return int.from_bytes(digest.digest(), "little")

    return hash_of


class _Tier:
    """The table of a tier, its parameters, and the time up to which its lines are swept."""

    __slots__ = (
        "bits",
        "burst",
        "ceiling",
        "edits",
        "epoch",
        "evictions",
        "first",
        "lines",
        "multiplier",
        "rate",
        "search",
        "shift",
        "stride",
        "swept",
        "tags",
        "times",
        "turns",
    )

    def __init__(self, rate, memory, start, lines, now):
        self.rate = rate
        self.edits = [0]
        self.bits, self.multiplier, self.shift, self.burst = scale_of(rate)
        self._allot(memory, start, lines)
        self.lines = lines
        self.stride = stride_of(lines)
        self.epoch = now
        self.ceiling = self.burst

    def _allot(self, memory, start, lines):
        """Lay out the table in `memory`, from the byte `start` on."""
        view = memoryview(memory)[start:]
        words = _WORD_SIZE * (_CONTROL + _CELLS * lines)
        self.times = view[_WORD_SIZE * _CONTROL : words].cast("Q")
        self.tags = view[words : words + _TAG_SIZE * _CELLS * lines].cast("I")
        self.search, self.first = memory.find, start + words
        self._begin(view)

    def _begin(self, _):
        self.evictions = 0
        self.swept = 0
        self.turns = 0

    def units(self, now):
        return units_at(now - self.epoch, self.multiplier, self.shift)

    def places(self, hashed):
        """Where the two lines of a key start."""
        lines = self.lines
        return (
            ((hashed >> 32 & 0xFFFF_FFFF) * lines >> 32) * _CELLS,
            ((hashed & 0xFFFF_FFFF) * lines >> 32) * _CELLS,
        )

    def find(self, tag, places):
        """Where the cell of a key is, or None."""
        search, wanted = self.search, tag.to_bytes(_TAG_SIZE, byteorder)
        for start in places:
            begin = self.first + _TAG_SIZE * start
            at = search(wanted, begin, begin + _LINE)
            while at >= 0 and at % _TAG_SIZE:  # parts of two tags
                at = search(wanted, at + 1, begin + _LINE)
            if at >= 0:
                return (at - self.first) // _TAG_SIZE
        return None

    def earliest(self, places, now):
        """The cell that a new key takes, and its gap."""
        best, least = 0, inf
        for start in places:
            for at in range(start, start + _CELLS):
                gap = self.gap(at, now)
                if gap < least:
                    best, least = at, gap
        return best, least

    def gap(self, at, now):
        """The time of a cell less now; that of a cell never used is earlier than all others."""
        if self.tags[at] == 0:
            return -_TIMES
        return (self.times[at] - now + _HALF) % _TIMES - _HALF

    def look(self, tag, hashed, now_ns, amount, evict, fully=False):
        """What a request meets: its cost and the debt of its key, the units that are missing, if above 0,
        the debt of the key that it would displace, and the time of its cell if that is too far ahead, or
        if what others have swept is.
        """
        elapsed = now_ns - self.epoch
        if elapsed >= 0:
            now = elapsed * self.multiplier >> self.shift
        else:
            now = units_at(elapsed, self.multiplier, self.shift)
        cost = amount << self.bits if type(amount) is int else to_units(amount, self.bits)
        places = self.places(hashed)
        at = self.find(tag, places)
        if at is None:
            at, gap = self.earliest(places, now)
            inherited = min(max(gap, 0), self.ceiling)
            ahead = self.times[at] if gap > self.ceiling else None
            if inherited and cost and not evict:
                return self, at, now, elapsed, cost, self.burst, inherited, 0, ahead
            return self, at, now, elapsed, cost, 0, cost - self.burst if cost else 0, inherited, ahead
        ahead = None
        debt = gap = (self.times[at] - now + _HALF) % _TIMES - _HALF
        if gap > self.ceiling:
            debt = self.ceiling
            ahead = self.times[at]
        elif gap < 0:
            debt = 0
            if self.is_behind(now):
                ahead = self.times[at]
        return self, at, now, elapsed, cost, debt, debt + cost - self.burst if cost else 0, 0, ahead

    def is_behind(self, now):
        """Whether the mark of the sweeps is so far ahead that the clock has stepped back, or was read long
        ago.
        """
        return (self.swept - now + _WORD // 2) % _WORD - _WORD // 2 >= _BACK

    def mend(self, charge, now_ns):
        """Cut what was seen, and is too far ahead of a clock that was read later."""
        self.cut(charge[_AT], charge[_AHEAD], now_ns)

    def cut(self, at, seen, now_ns):
        """Cut the time of a cell, if it is still the one that was seen."""
        times, edits, now = self.times, self.edits, self.units(now_ns)
        if self.gap(at, now) > self.ceiling and times[at] == seen:
            edits[0] += 1
            times[at] = (now + self.ceiling) % _TIMES

    def take(self, tag, charge, edit):
        """Write what an allowed request owes, if nothing was written since `edit`; True if so.

        Who takes the cell of another takes over his debt as well.
        """
        _, at, now, _, cost, debt, _, inherited, _ = charge
        owed = debt + cost
        time = (now + (owed if owed > inherited else inherited)) % _TIMES
        tags, times, edits = self.tags, self.times, self.edits
        if edits[0] != edit:
            return False
        edits[0] = edit + 1
        tags[at] = tag
        times[at] = time
        if inherited > 0:
            self.evictions += 1
        return True

    def undo(self, tag, charge):
        """Give back what was taken, as another tier was written meanwhile."""
        at, times, edits = charge[_AT], self.times, self.edits
        if self.tags[at] == tag:
            edits[0] += 1
            times[at] = (times[at] - charge[_COST]) % _TIMES

    def owe(self, tag, hashed, now_ns, amount, evict):
        """Charge `amount`, or as much as a key may owe; False if something else was written meanwhile."""
        edit = self.edits[0]
        charge = self.look(tag, hashed, now_ns, 0, evict)
        cost = min(to_units(min(amount, _MOST_COST), self.bits), self.burst - charge[_DEBT])
        if cost <= 0 or (charge[_INHERITED] and not evict):
            return True
        return self.take(tag, (*charge[:_COST], cost, *charge[_DEBT:]), edit)

    def unused(self, cost, actual, booked, now_ns):
        """The tokens to give back of `cost`, taken at the time `booked`, if `actual` are used."""
        came = self.units(now_ns) - self.units(booked)
        return ldexp(unused(to_units(cost, self.bits), to_units(actual, self.bits), came), -self.bits)

    def give(self, tag, hashed, now_ns, amount):
        """Give back at most `amount` of what a key owes; False if something else was written meanwhile."""
        times, edits = self.times, self.edits
        edit = edits[0]
        now, back = self.units(now_ns), to_units(min(amount, _MOST_COST), self.bits)
        at = self.find(tag, self.places(hashed))
        gap = 0 if at is None else self.gap(at, now)
        if gap <= 0 or back <= 0:
            return True
        back = min(back, gap, self.ceiling)
        if edits[0] != edit:
            return False
        edits[0] = edit + 1
        times[at] = (times[at] - back) % _TIMES
        return True

    def restamp(self, line, now, gap, everything, edit):
        """Set the times of a line to ``now + gap``: those long past, or all of them.

        The count of edits after those, None if something else was written meanwhile.
        """
        start, time, times, edits = line * _CELLS, (now + gap) % _TIMES, self.times, self.edits
        for at, tag in enumerate(self.tags[start : start + _CELLS].tolist(), start):
            if tag and (everything or self.gap(at, now) < -_LONG_PAST):
                if edits[0] != edit:
                    return None
                edits[0] = edit = edit + 1
                times[at] = time
        return edit

    def sweep(self, now, certain):
        """Sweep the lines that are due; False if the clock is far behind and the caller is not certain."""
        edit = self.edits[0]
        lag = (now - self.swept + _WORD // 2) % _WORD - _WORD // 2
        if -_BACK < lag < 0:
            return True
        if lag < 0 and not certain:
            return False
        everything = not 0 <= lag < _SILENCE
        due = lag >> self.stride
        gap = self.ceiling if lag < 0 else -_LONG_PAST
        self.turns += lag < 0
        first = (self.swept >> self.stride) % self.lines
        for line in self.used(first, self.lines if everything else min(due, self.lines)):
            edit = self.restamp(line, now, gap, everything, edit)
            if edit is None:
                return self.sweep(now, certain)
        self.swept = now if everything else self.swept + (due << self.stride)
        return True

    def used(self, first, count):
        """Those of `count` lines that may have a key; blocks of lines without any are passed over."""
        last = first + count
        for begin, end in (first, min(last, self.lines)), (0, last - self.lines):
            for start in range(begin, end, _BLOCK):
                stop = min(start + _BLOCK, end)
                if self.tags[start * _CELLS : stop * _CELLS].tobytes().strip(b"\0"):
                    yield from range(start, stop)

    def answers(self, charge, taken):
        """How long the request has to wait, what is left, and for how long anything is owed; of the rate."""
        elapsed, cost, debt, missing = charge[3:7]
        owed = debt + cost if taken else debt
        wait_ns = wait(elapsed, missing, self.multiplier, self.shift)
        rest = wait(elapsed, owed, self.multiplier, self.shift)
        return [_answer(wait_ns, ldexp(max(0, self.burst - owed), -self.bits), rest, self.rate)]

    @property
    def size(self):
        """The bytes of the table."""
        return _size(self.lines, 0)

    def rescaled(self, rate, now_ns):
        """This table in the units of `rate`, with the debts of all cells."""
        table = _Tier(rate, _private(self.lines, 0), 0, self.lines, self.epoch)
        before, now = self.units(now_ns), table.units(now_ns)
        for at, tag in enumerate(self.tags):
            owed = min(self.gap(at, before), self.ceiling) if tag else 0
            if owed > 0:
                owed = min(_MOST_DEBT, -(-(owed << table.bits) >> self.bits))
                table.ceiling = max(table.ceiling, owed)
                table.tags[at] = tag
                table.times[at] = (now + owed) % _TIMES
        table.swept = now
        table.evictions = self.evictions
        return table


class _SharedTier(_Tier):
    """A tier whose table, and the words that control it, lie in memory such as that of a file."""

    __slots__ = ("_control",)

    def _begin(self, view):
        self._control = view[: _WORD_SIZE * _CONTROL].cast("Q")

    @property
    def swept(self):
        return self._control[0]

    @swept.setter
    def swept(self, units):
        self._control[0] = units % _WORD

    @property
    def evictions(self):
        return self._control[1]

    @evictions.setter
    def evictions(self, count):
        self._control[1] = count % _WORD

    @property
    def turns(self):
        """How often the clock was found far back."""
        return self._control[2]

    @turns.setter
    def turns(self, count):
        self._control[2] = count % _WORD


class _Logs(_SharedTier):
    """The table of a strict limiter: the heads of logs, and for each of them a log of times.

    A log is a ring that begins with its oldest entry. A time is the nanoseconds since the epoch, and 2**63,
    so that a place never used is the earliest.
    """

    __slots__ = ("length", "logs", "longest", "rates", "starts", "windows")

    def __init__(self, rates, memory, start, lines, epoch):
        self.rates = rates
        self.windows = checked_windows(rates)
        self.longest = max([period for _, period in self.windows])
        super().__init__(*tables_of(rates, self.windows), memory, start, lines, epoch)
        self.ceiling += _STEPS  # by one a request, however many come in one nanosecond

    def _allot(self, memory, start, lines):
        super()._allot(memory, start, lines)
        self.length = longest_log(self.windows)
        logs = _WORD_SIZE * _CELLS * lines * self.length
        view = memoryview(memory)
        self.logs = view[-logs:].cast("Q")
        self.starts = view[-logs - _TAG_SIZE * _CELLS * lines : -logs].cast("I")

    @property
    def size(self):
        """The bytes of the table."""
        return _size(self.lines, self.length)

    def place(self, at, number):
        """Where the entry of a log is that has so many before it."""
        return at * self.length + (self.starts[at] + number) % self.length

    def entries(self, at):
        """A function that answers an entry by its number."""
        logs, first, start, length = self.logs, at * self.length, self.starts[at], self.length
        return lambda number: logs[first + (start + number) % length]

    def finished(self, at):
        """The entries of a log in which a process that was killed has left some before the oldest."""
        starts, edits = self.starts, self.edits
        edit = edits[0]
        times = list(map(self.entries(at), range(self.length)))
        falls = [number for number in range(1, self.length) if times[number] < times[number - 1]]
        fall = falls[0] if falls else 0  # none, if a finalizer has seen to it
        if edits[0] == edit:
            starts[at] = (starts[at] + fall) % self.length
        return self.entries(at)

    def look(self, tag, hashed, now_ns, amount, evict, fully=False):
        """As that of a tier, but the nanoseconds that are missing in all windows, for the debt what each of
        them says, if that is asked for, and the times of the head and of the newest entry.
        """
        elapsed, cost = now_ns - self.epoch, int(amount)
        now, moment = self.units(now_ns), elapsed + _WORD // 2
        places = self.places(hashed)
        at, gap, inherited = self.find(tag, places), 0, 0
        if at is None:
            at, gap = self.earliest(places, now)
            inherited = min(max(gap, 0), self.ceiling)
        entry = self.entries(at)
        if entry(0) > entry(-1):
            entry = self.finished(at)
        newest = entry(-1)
        ahead = None
        if newest > moment or self.gap(at, now) > self.ceiling or self.is_behind(now):
            ahead = self.times[at], newest
        if inherited:
            full = wait(elapsed, inherited, self.multiplier, self.shift) if cost and not evict else 0
            met = [(full, limit if full else 0, full) for limit, _ in self.windows]
        elif fully:
            met = [self.measure(entry, moment, cost, *window) for window in self.windows]
        else:
            met = [(_delay(entry, moment, cost, *window),) for window in self.windows]
        return self, at, now, elapsed, cost, met, max(met)[0], inherited, ahead

    def measure(self, entry, moment, cost, limit, period):
        """How long a request waits at a window, how many entries count, and for how long any of them does."""
        bound = moment - period
        count = self.length - bisect_right(range(self.length), bound, key=entry)
        rest = min(entry(-1), moment) - bound if count else 0
        return _delay(entry, moment, cost, limit, period), count, rest

    def answers(self, charge, taken):
        """As those of a tier, of every window."""
        cost, met = charge[4:6]
        answers = []
        for (delay, count, rest), (limit, period), rate in zip(met, self.windows, self.rates, strict=True):
            left = float(max(0, limit - count - cost * taken))
            answers.append(_answer(delay, left, period if taken and cost else rest, rate))
        return answers

    def mend(self, charge, now_ns):
        """Cut what was seen, and lies ahead of a clock that was read later."""
        at, (head, newest) = charge[_AT], charge[_AHEAD]
        self.cut(at, head, now_ns)
        moment, logs, edits = now_ns - self.epoch + _WORD // 2, self.logs, self.edits
        for number in range(self.length):
            place = self.place(at, number)
            if moment < logs[place] <= newest:
                edits[0] += 1
                logs[place] = moment

    def take(self, tag, charge, edit):
        """Log an allowed request, in the places of the oldest entries, if nothing was written since `edit`.

        False if it was; what is logged of the request by then stays, and counts.
        """
        _, at, now, elapsed, cost, _, _, inherited, _ = charge
        moment, logs, starts, tags, times, edits = (
            elapsed + _WORD // 2, self.logs, self.starts, self.tags, self.times, self.edits
        )
        places = [self.place(at, number) for number in range(cost)]
        start, head = (starts[at] + cost) % self.length, self.head(elapsed, now, self.gap(at, now))
        if edits[0] != edit:
            return False
        edits[0] = edit = edit + 1
        for place in places:
            if edits[0] != edit:
                return False
            logs[place] = moment
        if edits[0] != edit:
            return False
        starts[at], tags[at], times[at] = start, tag, head
        if inherited > 0:
            self.evictions += 1
        return True

    def head(self, elapsed, now, gap):
        """The time of a head whose newest entry is from `elapsed`: later than it was, and not before that
        entry is of no use.
        """
        owed = units_at(elapsed + self.longest - 1, self.multiplier, self.shift) + 1 - now
        return (now + (owed if gap < owed else gap + 1)) % _TIMES

    def owe(self, tag, hashed, now_ns, amount, evict):
        """As that of a tier: as many entries as have room in every window."""
        edit = self.edits[0]
        charge = self.look(tag, hashed, now_ns, 0, evict, True)
        if charge[_INHERITED] and not evict:
            return True
        met = zip(charge[_DEBT], self.windows, strict=True)
        cost = min(int(amount), *[limit - count for (_, count, _), (limit, _) in met])
        return cost <= 0 or self.take(tag, (*charge[:_COST], cost, *charge[_DEBT:]), edit)

    def unused(self, cost, actual, booked, now_ns):
        """As that of a tier: entries that have left all windows do not come back."""
        return cost - actual if now_ns - booked < self.longest else 0

    def give(self, tag, hashed, now_ns, amount):
        """Drop the oldest entries of a key that count, at most so many of them, and all before them."""
        logs, edits = self.logs, self.edits
        edit = edits[0]
        at = self.find(tag, self.places(hashed))
        if at is None:
            return True
        bound = now_ns - self.epoch + _WORD // 2 - self.longest
        past = bisect_right(range(self.length), bound, key=self.entries(at))
        back = min(int(amount), self.length - past)
        for number in range(past + back if back else 0):
            place = self.place(at, number)
            if edits[0] != edit:
                break  # fewer are dropped, since others may stand there now
            edits[0] = edit = edit + 1
            logs[place] = 0
        return True

    def newest(self):
        """The newest entry of all logs."""
        return max([self.entries(at)(-1) for at in range(len(self.tags))])

    def rescaled(self, rates, now_ns, seen):
        """This table with logs for other windows, and all that is in them. Entries that were `seen` before
        the clock was read and lie ahead of it are cut: it has stepped back.
        """
        memory = _private(self.lines, longest_log(checked_windows(rates)))
        table = _Logs(rates, memory, 0, self.lines, self.epoch)
        elapsed, now = now_ns - self.epoch, table.units(now_ns)
        moment = elapsed + _WORD // 2
        kept = min(self.length, table.length)
        for at, tag in enumerate(self.tags):
            newest = list(map(self.entries(at), range(self.length - kept, self.length))) if tag else [0]
            newest = [min(time, moment) if time <= seen else time for time in newest]
            if newest[-1] > moment - table.longest:
                end = (at + 1) * table.length
                table.logs[end - kept : end] = memoryview(array("Q", newest))
                table.tags[at] = tag
                table.times[at] = table.head(max(elapsed, newest[-1] - _WORD // 2), now, -_TIMES)
        table.swept = now
        table.evictions = self.evictions
        table.turns = self.turns
        return table

    def check_logs(self, now_ns):
        """A log is in order; where an entry counts that is not ahead of the clock, the head is not dead; but
        if the clock has been far back, heads count from then on, and entries from before may come to count
        again."""
        assert self.length == longest_log(self.windows)
        now, moment = self.units(now_ns), now_ns - self.epoch + _WORD // 2
        for at in range(len(self.tags)):
            log = list(map(self.entries(at), range(self.length)))
            assert log == sorted(log)
            counts = log[-1] + self.longest > moment >= log[-1]
            assert not counts or self.turns or self.gap(at, now) > 0


def _answer(wait_ns, left, rest, rate):
    """What a tier answers: under a limit of 0 nothing comes, however long one waits."""
    if rate.limit:
        return wait_ns, left, rest, rate
    return (inf, left, inf, rate) if wait_ns else (0, left, 0, rate)


def _delay(entry, moment, cost, limit, period):
    """How long a request waits until enough entries of a log have left a window."""
    if cost == 0:
        return 0
    if cost > limit:
        return period
    return max(0, min(entry(cost - limit - 1), moment) - moment + period)


def _length(rates, strict):
    """How many entries a log has, 0 if the limiter is not strict."""
    return longest_log(checked_windows(rates)) if strict else 0


def _size(lines, length):
    """The bytes of a table with a log of that length for every cell."""
    words = _CONTROL + _CELLS * lines * (1 + length)
    return _WORD_SIZE * words + _TAG_SIZE * _CELLS * lines * (2 if length else 1)


def _private(lines, length):
    """The memory of a table, given by the system as it is used; at once if it is small, or without mmap."""
    size = _size(lines, length)
    try:
        return mmap.mmap(-1, size, **_PRIVATE) if mmap and size >= _LEAST_MAP else bytearray(size)
    except (MemoryError, OSError, OverflowError):
        raise no_memory() from None


class RateLimiter:
    """At most so many requests in so long for each key, in memory of fixed size.

    `rate` is a rate or several tiers of them, each of which must allow a request: ``"10/s"``,
    ``"5 per 10 seconds"``, ``"1/s; 5/10s; 10/min"``, `Rate` objects. A request takes its cost at every tier
    or nothing at any; a denied one changes nothing. `burst` is how many may come at once, if it is not the
    limit of a single rate. Over any interval of t seconds a key is allowed at most
    ``burst + t * limit / period``, so up to twice the limit within one period.

    With `strict` a key is never allowed more than the limit in any interval as long as the period: the times
    of its last requests are kept, exact to the nanosecond, in 16 bytes for each of the limit and each of
    `max_keys`, once for all tiers. Limits and costs are whole then, and no burst is given.

    Keys are str, bytes or int, and text is another key than its bytes. They are not kept: a keyed hash of 23
    bits finds a cell among sixteen, and two keys may share one, with odds of two in a million. `max_keys`
    keys may owe something at once, in 16 bytes a key and tier, set aside from the start. When all sixteen
    cells are in use, the key that owes least gives way to a new one (`on_full` is ``"evict"``), which is
    allowed but takes over that debt, or else the new key is denied (``"deny"``). `clock` is a callable that
    returns integer nanoseconds, by default the monotonic clock.

    `path` names a file, best in /dev/shm, through which all processes of a host have one limit; it is made
    with the permissions `mode`. All must give the same settings, but with ``on_mismatch="adopt"`` the rate of
    a file that is there takes the place of `rate`. One that is killed loses what it was about to take, at
    most. The limit outlives the processes, but not the system: after a restart nothing is owed.

    Raises ValueError if `rate` says no rate, or none that can be `strict`, if `burst` is given with several
    tiers, if `max_keys` or `on_full` is unknown or out of range, or if `path` is a file of something else, of
    other settings, of the other twin or with another mode; TypeError if an argument has a wrong type;
    OSError if the file cannot be opened or has no room.

    Source: the generic cell rate algorithm of ITU-T I.371, as virtual scheduling.

    Complexity: O(tiers) for a decision, O(tiers * limit) if it is strict.

    >>> limiter = RateLimiter("2/s", clock=lambda: 0)
    >>> limiter.allow("ann"), limiter.allow("ann"), limiter.allow("ann"), limiter.allow("bob")
    (True, True, False, True)
    >>> limiter
    RateLimiter('2/s')
    >>> minute = RateLimiter("100/min", strict=True, max_keys=10, clock=lambda: 0)
    >>> minute.allow("ann", 100), minute.decide("ann").retry_after
    (True, 60.0)
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_edits",
        "_evict",
        "_hash",
        "_largest",
        "_locked",
        "_max_keys",
        "_rates",
        "_strict",
        "_table",
        "_tiers",
        "_waiting",
    )

    def __init__(
        self,
        rate,
        *,
        burst=None,
        max_keys=1_000_000,
        path=None,
        mode=0o600,
        on_full="evict",
        strict=False,
        on_mismatch="raise",
        clock=None,
    ):
        rates = checked_rates(rate, burst)
        adopt = checked_mismatch(on_mismatch)
        length = _length(rates, strict)
        lines = count_lines(max_keys)
        if hasattr(self, "_tiers"):
            raise initialized(self)
        self._evict = checked_overflow(on_full)
        self._clock = checked_clock(clock)
        self._max_keys = max_keys
        self._strict = bool(strict)
        self._waiting = _waiting.Lines()
        self._edits = [0]
        now = self._now_ns()
        if path is None:
            self._table = None
            self._locked = under(new_lock())
            self._hash = _hash_in_process(os.urandom(16))
            if strict:
                self._offer(rates, [_Logs(rates, _private(lines, length), 0, lines, now)])
            else:
                self._offer(rates, [_Tier(tier, _private(lines, 0), 0, lines, now) for tier in rates])
            return
        from headgate.limit._files import HEADER, shared_limiter

        def size_of(rates):
            return _size(lines, _length(rates, strict)) * (1 if strict else len(rates))

        table, rates = shared_limiter(
            path, mode, "pure", rates, max_keys, on_full, self._strict, size_of, now, adopt
        )
        self._table, self._locked = table, table.locked
        self._hash = _hash_anywhere(table.secret)
        if strict:
            self._offer(rates, [_Logs(rates, table.map, HEADER, lines, table.epoch)])
            return
        size = _size(lines, 0)
        self._offer(rates, [
            _SharedTier(tier, table.map, HEADER + size * at, lines, table.epoch)
            for at, tier in enumerate(rates)
        ])

    def _offer(self, rates, tiers, edit=0):
        """Let decisions be made by `tiers`, if nothing was written since `edit`; True if so."""
        edits, largest = self._edits, largest_cost(rates)
        for tier in tiers:
            tier.edits = edits
        if edits[0] != edit:
            return False
        edits[0] = edit + 1
        self._rates, self._tiers, self._largest = rates, tiers, largest
        return True

    def _now_ns(self):
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _swept(self):
        """Now, when all lines are swept that are due; a time far back is believed when it is read twice."""
        now = monotonic_ns() if self._clock is None else checked_now(self._clock())
        for tier in self._tiers:
            if ((now - tier.epoch) * tier.multiplier >> tier.shift) - tier.swept >> tier.stride:
                return now if self._sweep(now, False) else self._swept_back()
        return now

    def _swept_back(self):
        now = self._now_ns()
        self._sweep(now, True)
        return now

    def _sweep(self, now, certain):
        return self._locked(self._sweep_all, now, certain)

    def _sweep_all(self, now, certain):
        return False not in [tier.sweep(tier.units(now), certain) for tier in self._tiers]

    def _locate(self, key):
        """The tag of a key, and the hash that gives its lines, others for text, bytes and numbers."""
        kind = _STR if isinstance(key, str) else 0 if isinstance(key, bytes) else _INT
        hashed = self._hash(key_bytes(key, "key")) ^ kind
        return hashed >> 65 or 1, hashed

    def _charge(self, key, cost, take, fully=False):
        """Ask every tier; with `take`, charge all of them or none.

        Whether all allow, and what each said: enough for ``_decision`` if `fully`.
        """
        amount = cost if type(cost) is int and cost >= 0 else checked_amount("cost", cost)
        if amount > self._largest:
            raise ValueError(f"cost must be at most the burst {self._largest!r}, got {cost!r}")
        self._check_whole(cost, amount)
        tag, hashed = self._locate(key)
        now = self._swept()
        while True:
            allowed, ahead, charges = self._locked(self._attempt, tag, hashed, now, amount, take, fully)
            if not ahead:
                return allowed, charges
            now = self._swept()
            self._locked(self._mend, now, charges)

    def _attempt(self, tag, hashed, now, amount, take, fully):
        """What ``_charge`` returns, and whether a time must be mended first."""
        while True:
            allowed, ahead, charges, edit = True, False, [], self._edits[0]
            for tier in self._tiers:
                charge = tier.look(tag, hashed, now, amount, self._evict, fully)
                charges.append(charge)
                if charge[_MISSING] > 0:
                    allowed = False
                if charge[_AHEAD] is not None:
                    ahead = take
            if not (take and allowed and amount) or ahead or self._take(tag, charges, edit):
                return allowed, ahead, charges

    def _take(self, tag, charges, edit):
        """Charge all tiers; False, and none is charged, if something was written since `edit`."""
        for charge in charges:
            if not charge[0].take(tag, charge, edit):
                for other in charges[: charges.index(charge)]:
                    other[0].undo(tag, other)
                return False
            edit += 1
        return True

    def _check_whole(self, cost, amount):
        if self._strict and amount % 1:
            raise ValueError(f"cost must be whole with strict=True, got {cost!r}")

    def _mend(self, now, charges):
        """Cut the times that are too far ahead of the clock, as it was read after they were."""
        for charge in charges:
            tier = charge[0]
            if charge[_AHEAD] is not None:
                tier.mend(charge, now)

    def _decision(self, allowed, charges, taken):
        """Of the tiers that deny the one that does so for longest, or the one with the least left."""
        answers = []
        for charge in charges:
            answers += charge[0].answers(charge, taken and allowed)
        if allowed:
            _, left, reset, rate = min(answers, key=itemgetter(1))
            return Decision(True, rate.burst, left, 0.0, reset / 1e9, str(rate))
        wait_ns, left, reset, rate = max(answers, key=itemgetter(0))
        decision = Decision(False, rate.burst, left, wait_ns / 1e9, reset / 1e9, str(rate))
        violated = tuple([str(answer[-1]) for answer in answers if answer[0]])
        return decision if len(violated) < 2 else with_details(decision, violated)

    def _with_more(self, key, decision):
        """With the time at which there is one token more, which only its log tells of a strict limit."""
        if not self._strict or decision.remaining >= 1:
            return decision
        told = self._decision(*self._charge(key, 1, False, True), False)
        return with_details(decision, (), told.retry_after)

    def allow(self, key, cost=1):
        """Take `cost` for `key` if every tier has it; True if so.

        Raises TypeError or ValueError if `key` is no key, ValueError if `cost` is negative, not finite or
        above the smallest burst, or not whole where the limiter is strict. A cost of 0 is always allowed.
        Complexity: O(tiers).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.allow("ann", 3), limiter.allow("ann", 2)
        (True, False, True)
        """
        return self._charge(key, cost, True)[0]

    def decide(self, key, cost=1):
        """Take `cost` for `key` if every tier has it, and say how matters stand, as a `Decision`.

        It speaks for the tier that denies for longest, or else for the one with the least remaining.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s; 10/min", clock=lambda: 0)
        >>> limiter.decide("ann").policy
        '2/s'
        >>> limiter.decide("ann").remaining
        0.0
        >>> limiter.decide("ann").retry_after
        0.5
        """
        return self._with_more(key, self._decision(*self._charge(key, cost, True, True), True))

    def peek(self, key, cost=1):
        """What ``decide`` would answer, but without taking anything.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.peek("ann").remaining, limiter.peek("ann").remaining
        (2.0, 2.0)
        """
        return self._with_more(key, self._decision(*self._charge(key, cost, False, True), False))

    def reserve(self, key, cost=1):
        """Take `cost` for `key` if every tier has it, as a `Reservation`: it is false if one denies. What is
        used in the end is told to its ``settle``, and ``cancel`` gives all back.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("1000/min", clock=lambda: 0)
        >>> reservation = limiter.reserve("ann", cost=800)
        >>> limiter.peek("ann").remaining, reservation.settle(300), limiter.peek("ann").remaining
        (200.0, None, 700.0)
        """
        booked = self._now_ns()
        decision = self.decide(key, cost)
        return Reservation(checked_amount("cost", cost), [(self, key, booked)], None, decision)

    def _has(self, key, cost):
        """Whether ``peek`` would allow it."""
        return self._charge(key, cost, False)[0]

    def refund(self, key, cost=1):
        """Give back `cost` of what `key` owes, at every tier, as when a request came to nothing.

        More than is owed is not given. Requests that were refunded late do not count, so more than the rate
        may have been allowed while they were under way. A strict limiter drops the oldest entries, so that
        no interval has too many, whichever request it was.

        Raises what ``allow`` raises, but a cost may be above the burst. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.refund("ann"), limiter.peek("ann").remaining
        (True, None, 1.0)
        """
        amount = checked_amount("cost", cost)
        self._check_whole(cost, amount)
        self._give(key, amount)

    def reset(self, key):
        """Forget what `key` owes.

        Raises TypeError or ValueError if `key` is no key. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.reset("ann"), limiter.allow("ann", 2)
        (True, None, True)
        """
        self._give(key, _MOST_COST)

    def _give(self, key, amount):
        self._charge(key, 0, True)  # mends a time that is too far ahead
        place, given = self._locate(key), 0
        while given < len(self._tiers):
            given = self._locked(self._give_from, given, *place, self._swept(), amount)
        self._waiting.nudge(key)

    def _give_from(self, which, tag, hashed, now, amount):
        """Give back at this tier and those after it, up to one for which the clock must be read again."""
        for given, tier in enumerate(self._tiers[which:], which):
            if tier.is_behind(tier.units(now)):
                return given
            while not tier.give(tag, hashed, now, amount):
                pass
        return len(self._tiers)

    def _check_settled(self, actual):
        """Raise if so many tokens cannot have been used of a reservation."""
        if self._strict and actual % 1:
            raise ValueError(f"actual must be whole with strict=True, got {actual!r}")

    def _settled(self, key, cost, actual, booked):
        """Let only `actual` of the `cost` taken at the time `booked` have been taken, or even more."""
        self._charge(key, 0, True)  # mends a time that is too far ahead
        place, done = self._locate(key), 0
        while done < len(self._tiers):
            done = self._locked(self._settle_from, done, *place, self._swept(), cost, actual, booked)
        self._waiting.nudge(key)

    def _settle_from(self, which, tag, hashed, now, cost, actual, booked):
        """Settle at this tier and those after it, up to one for which the clock must be read again."""
        for done, tier in enumerate(self._tiers[which:], which):
            if tier.is_behind(tier.units(now)):
                return done
            if actual > cost:
                while not tier.owe(tag, hashed, now, actual - cost, self._evict):
                    pass
                continue
            back = tier.unused(cost, actual, booked, now)
            while not tier.give(tag, hashed, now, back):
                pass
        return len(self._tiers)

    def acquire(self, key, cost=1, timeout=None):
        """Wait until `cost` can be taken for `key`; False if that is not within `timeout` seconds, None for
        any time.

        Those that wait for one key are served in the order in which they came, in this process. The thread
        sleeps; other threads and event loops go on. The time is waited to its end, since ``refund``,
        ``reset`` or ``reconfigure`` may bring tokens sooner; a `timeout` of 0 never waits. ``allow`` does not
        queue and may take what comes in between.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.

        >>> limiter = RateLimiter("2/h")
        >>> limiter.acquire("ann", 2), limiter.acquire("ann", timeout=0.01)
        (True, False)
        """
        return _waiting.acquire_key(self, self._waiting, key, cost, timeout)

    def acquire_async(self, key, cost=1, timeout=None):
        """``acquire`` for coroutines, on any event loop; cancelling gives the place back.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimiter("2/s").acquire_async("ann"))
        True
        """
        return _waiting.acquire_key_async(self, self._waiting, key, cost, timeout)

    def reconfigure(self, rate, *, burst=None):
        """Set another rate; what is owed at a tier is owed at the tier in its place, up to 32 bursts.

        A strict limiter keeps as many of the last entries of each key as the largest limit.

        Raises what the constructor raises, ValueError if processes share the limit. Complexity: O(max_keys).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.reconfigure("20/s"), limiter.peek("ann").remaining
        (True, None, 12.0)
        """
        rates = self._changed_rates(rate, burst)
        seen = self._locked(self._newest) if self._strict else 0
        self._locked(self._change, rates, self._swept(), seen)
        self._waiting.nudge_all()

    def _newest(self):
        return self._tiers[0].newest()

    def _change(self, rates, now, seen):
        edit = None
        while edit is None or not self._offer(rates, self._rescaled(rates, now, seen), edit):
            edit = self._edits[0]

    def _rescaled(self, rates, now, seen):
        """The tables of other rates, with the debts of those that stand in their places. No entry of a log
        that was written before the clock was read is later than `seen`.
        """
        if self._strict:
            return [self._tiers[0].rescaled(rates, now, seen)]
        kept = zip(self._tiers, rates, strict=False)
        tiers = [tier.rescaled(changed, now) for tier, changed in kept]
        lines = self._tiers[0].lines
        more = [_Tier(changed, _private(lines, 0), 0, lines, now) for changed in rates[len(tiers) :]]
        return tiers + more

    def _changed_rates(self, rate, burst=None):
        """The tiers that ``reconfigure`` would set."""
        rates = checked_rates(rate, burst)
        if self._table is not None:
            raise ValueError(self._table.refusal)
        if self._strict:
            checked_windows(rates)
        return rates

    @property
    def rates(self):
        """The tiers, a tuple of `Rate`.

        >>> RateLimiter("1/s; 10/min").rates
        (Rate(limit=1, period=1, burst=1), Rate(limit=10, period=60, burst=10))
        """
        return self._rates

    @property
    def max_keys(self):
        """How many keys that owe something have room.

        >>> RateLimiter("1/s").max_keys
        1000000
        """
        return self._max_keys

    @property
    def evictions(self):
        """How often a key that owed something gave way to another.

        >>> RateLimiter("1/s").evictions
        0
        """
        return sum([tier.evictions for tier in self._tiers])

    def __sizeof__(self):
        return object.__sizeof__(self) + sum([tier.size for tier in self._tiers])

    def __repr__(self):
        return f"{type(self).__name__}({'; '.join(map(str, self.rates))!r})"

    def __reduce__(self):
        raise TypeError("a RateLimiter cannot be copied or pickled: its state belongs to one clock")

    def _check(self):
        self._swept()
        tables = tables_of(self._rates, checked_windows(self._rates) if self._strict else ())
        for tier, rate in zip(self._tiers, tables, strict=True):
            assert (tier.bits, tier.multiplier, tier.shift, tier.burst) == scale_of(rate)
            assert 0 <= tier.burst <= tier.ceiling
            assert tier.lines == count_lines(self._max_keys)
            for start in range(0, len(tier.tags), _CELLS):
                tags = list(tier.tags[start : start + _CELLS])
                assert len(set(tags) - {0}) == _CELLS - tags.count(0)
        if self._strict:
            self._tiers[0].check_logs(self._now_ns())
