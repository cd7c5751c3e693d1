"""The table of a tier: for each key a cell with its debt."""

import os
import sys
from _blake2 import blake2b  # as hashlib would load OpenSSL
from math import inf, ldexp
from sys import byteorder

from headgate.limit._generations import epoch_of
from headgate.limit._tables import no_memory, scale_of, stride_of
from headgate.limit._units import to_units, units_at, unused, wait

try:
    import mmap
except ImportError:  # WASI, browsers
    _MAPS = False
else:
    _MAPS = True

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
_PAST = 2**36  # cells.h says why, of these too
_MOST_DEBT = _LONG_PAST = _BACK = 2**37
_IDLE = 5 * 2**35
_MOST_COST = 2**40
_NEVER_TWICE = 0xFFFF
_SWEPT, _EVICTIONS, _REWINDS, _OTHER_SWEPT, _SINCE, _CEILING = 0, 1, 2, 3, 4, 6
_AT, _COST, _DEBT, _MISSING, _INHERITED, _AHEAD = 1, 4, 5, 6, 7, 8
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if _MAPS and os.name == "posix" else {}
_HASH_BYTES = 11
_HASHES = 2 ** (8 * _HASH_BYTES)
_SPREAD = 0x9E3779_B97F4A7C_15F39CC1
_STR, _INT = _SPREAD, 2 * _SPREAD % _HASHES


def _hash_in_process(secret):
    """Python's SipHash with the secret before the key, where there is one: much faster than BLAKE2b."""
    if sys.hash_info.algorithm not in ("siphash13", "siphash24") or sys.hash_info.width < 64:
        return _hash_anywhere(secret)
    return lambda data: hash(secret + data) * _SPREAD % _HASHES


def _hash_anywhere(secret):
    """A keyed hash that is the same in all processes."""
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
        "parity",
        "rate",
        "rewinds",
        "search",
        "shift",
        "stride",
        "swept",
        "tags",
        "times",
    )

    def __init__(self, rate, memory, start, lines, now):
        self.rate = rate
        self.edits = [0]
        self.parity = 0
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
        self.rewinds = 0

    def units(self, now):
        return units_at(now - self.epoch, self.multiplier, self.shift)

    def candidates(self, hashed):
        """Where the two lines of a key start."""
        lines = self.lines
        return (
            ((hashed >> 32 & 0xFFFF_FFFF) * lines >> 32) * _CELLS,
            ((hashed & 0xFFFF_FFFF) * lines >> 32) * _CELLS,
        )

    def find(self, tag, candidates):
        """The index of the cell of a key, or None."""
        search, wanted = self.search, tag.to_bytes(_TAG_SIZE, byteorder)
        for start in candidates:
            begin = self.first + _TAG_SIZE * start
            at = search(wanted, begin, begin + _LINE)
            while at >= 0 and at % _TAG_SIZE:  # parts of two tags
                at = search(wanted, at + 1, begin + _LINE)
            if at >= 0:
                return (at - self.first) // _TAG_SIZE
        return None

    def earliest(self, candidates, now):
        """The cell that a new key takes, and its gap."""
        best, least = 0, inf
        for start in candidates:
            for at in range(start, start + _CELLS):
                gap = self.gap(at, now)
                if gap < least:
                    best, least = at, gap
        return best, least

    def gap(self, at, now):
        """The time of a cell minus now; that of a cell never used is earlier than all others."""
        if self.tags[at] == 0:
            return -_TIMES
        return (self.times[at] - now + _HALF) % _TIMES - _HALF

    def is_current(self, at):
        """Whether a cell is of the generation that is loaded."""
        return self.times[at] & _TIMES == self.parity

    def decide(self, tag, hashed, now_ns, amount, evict, fully=False):
        """Decide a request without taking it: its cost and the debt of its key, the units that are missing,
        if above 0, the debt of the key that it would evict, and the time of its cell if that, or the mark of
        the sweeps, is too far ahead.
        """
        elapsed = now_ns - self.epoch
        if elapsed >= 0:
            now = elapsed * self.multiplier >> self.shift
        else:
            now = units_at(elapsed, self.multiplier, self.shift)
        cost = amount << self.bits if type(amount) is int else to_units(amount, self.bits)
        candidates = self.candidates(hashed)
        at = self.find(tag, candidates)
        if at is None:
            at, gap = self.earliest(candidates, now)
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

    def clamp(self, charge, now_ns):
        """Clamp what was seen, and is too far ahead of a clock that was read later."""
        self.clamp_cell(charge[_AT], charge[_AHEAD], now_ns)

    def clamp_cell(self, at, seen, now_ns):
        """Clamp the time of a cell, if it is still the one that was seen."""
        times, edits, now = self.times, self.edits, self.units(now_ns)
        if self.gap(at, now) > self.ceiling and times[at] == seen:
            edits[0] += 1
            times[at] = (now + self.ceiling) % _TIMES | self.parity

    def take(self, tag, charge, edit):
        """Write what an allowed request owes, if nothing was written since `edit`; True if so.

        A key that evicts another takes over its debt as well.
        """
        _, at, now, _, cost, debt, _, inherited, _ = charge
        owed = debt + cost
        time = (now + (owed if owed > inherited else inherited)) % _TIMES | self.parity
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
        """Undo a charge, as another tier was written meanwhile."""
        at, times, edits = charge[_AT], self.times, self.edits
        if self.tags[at] == tag:
            edits[0] += 1
            times[at] = (times[at] - charge[_COST]) % _TIMES | self.parity

    def is_stale(self):
        """Whether the rate has been switched since it was loaded."""
        return False

    def charge_up_to(self, tag, hashed, now_ns, amount, evict):
        """Charge `amount`, but no more than a key may owe; False if something else was written meanwhile."""
        edit = self.edits[0]
        if self.is_stale():
            return False
        charge = self.decide(tag, hashed, now_ns, 0, evict)
        cost = min(to_units(min(amount, _MOST_COST), self.bits), self.burst - charge[_DEBT])
        if cost <= 0 or (charge[_INHERITED] and not evict):
            return self.edits[0] == edit
        return self.take(tag, (*charge[:_COST], cost, *charge[_DEBT:]), edit)

    def unused(self, cost, actual, reserved_at, now_ns):
        """The tokens to refund of `cost`, taken at the time `reserved_at`, if `actual` are used."""
        refilled = self.units(now_ns) - self.units(reserved_at)
        return ldexp(unused(to_units(cost, self.bits), to_units(actual, self.bits), refilled), -self.bits)

    def refund(self, tag, hashed, now_ns, amount):
        """Refund at most `amount` of what a key owes; False if something else was written meanwhile."""
        times, edits = self.times, self.edits
        edit = edits[0]
        if self.is_stale():
            return False
        now, back = self.units(now_ns), to_units(min(amount, _MOST_COST), self.bits)
        at = self.find(tag, self.candidates(hashed))
        gap = 0 if at is None else self.gap(at, now)
        if gap <= 0 or back <= 0:
            return edits[0] == edit
        back = min(back, gap, self.ceiling)
        if edits[0] != edit:
            return False
        edits[0] = edit + 1
        times[at] = (times[at] - back) % _TIMES | self.parity
        return True

    def restamp(self, line, now, gap, everything, edit):
        """Set the times of a line to ``now + gap``: those in the distant past, or all of them.

        Returns the count of edits afterwards, None if something else was written meanwhile.
        """
        start, time, times, edits = line * _CELLS, (now + gap) % _TIMES | self.parity, self.times, self.edits
        for at, tag in enumerate(self.tags[start : start + _CELLS].tolist(), start):
            if tag and self.is_current(at) and (everything or self.gap(at, now) < -_LONG_PAST):
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
        everything = not 0 <= lag < _IDLE
        due = lag >> self.stride
        gap = self.ceiling if lag < 0 else -_LONG_PAST
        self.rewinds += lag < 0
        first = (self.swept >> self.stride) % self.lines
        for line in self.used(first, self.lines if everything else min(due, self.lines)):
            edit = self.restamp(line, now, gap, everything, edit)
            if edit is None:
                return self.sweep(now, certain)
        self.swept = now if everything else self.swept + (due << self.stride)
        return True

    def used(self, first, count):
        """Those of `count` lines that may have a key; blocks of lines without any are skipped."""
        last = first + count
        for begin, end in (first, min(last, self.lines)), (0, last - self.lines):
            for start in range(begin, end, _BLOCK):
                stop = min(start + _BLOCK, end)
                if self.tags[start * _CELLS : stop * _CELLS].tobytes().strip(b"\0"):
                    yield from range(start, stop)

    def outcomes(self, charge, taken):
        """How long the request has to wait, what remains, and how long anything is owed; and the rate."""
        elapsed, cost, debt, missing = charge[3:7]
        owed = debt + cost if taken else debt
        wait_ns = wait(elapsed, missing, self.multiplier, self.shift)
        rest = wait(elapsed, owed, self.multiplier, self.shift)
        return [_outcome(wait_ns, ldexp(max(0, self.burst - owed), -self.bits), rest, self.rate)]

    @property
    def size(self):
        """The bytes of the table."""
        return _table_size(self.lines, 0)

    def rescaled(self, rate, now_ns):
        """This table in the units of `rate`, with the debts of all cells."""
        table = _Tier(rate, _private_memory(self.lines, 0), 0, self.lines, self.epoch)
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
    """A tier whose table, and the words that control it, are in memory such as that of a file.

    There the rate may be switched: a tier is of one generation, and knows the rate `before` as long as cells
    may be of that.
    """

    __slots__ = ("_control", "_mark", "before", "generation", "since", "since_before", "switches")

    def __init__(self, rate, memory, start, lines, epoch, generation=0, before=None):
        self.switches = memoryview(b"")
        super().__init__(rate, memory, start, lines, epoch_of(epoch, generation, self.is_strict))
        half = generation % 2
        self.generation = generation
        self.parity = half * _TIMES
        self._mark = _OTHER_SWEPT if half else _SWEPT
        self.ceiling = max(self.burst, min(self._control[_CEILING + half], _MOST_DEBT))
        now = (self._control[_SINCE + half] + _WORD // 2) % _WORD - _WORD // 2
        self.since = self.units(now)
        self.before = None
        if before is not None:
            bits, multiplier, shift, _ = scale_of(before)
            self.before = bits
            earlier = now - epoch_of(epoch, generation - 1, self.is_strict)
            self.since_before = units_at(earlier, multiplier, shift)

    @property
    def is_strict(self):
        """Whether cells are the heads of logs."""
        return False

    def _begin(self, view):
        self._control = view[: _WORD_SIZE * _CONTROL].cast("Q")
        self._mark = _SWEPT

    def is_stale(self):
        return len(self.switches) > 0 and self.switches[0] != self.generation

    def settle(self, start, now):
        """Convert the cells of a line that are of the generation before, while this one is in force.

        False if that is not done, as something else was written or a fork has freed the file.
        """
        tags, times, edits = self.tags, self.times, self.edits
        at = start
        while at < start + _CELLS:
            edit = edits[0]
            if edits[1]:
                return False
            if self.is_stale():
                return True
            if tags[at] and not self.is_current(at):
                time = self.converted(at, now)
                if edits[0] != edit:
                    return False
                edits[0] = edit + 1
                times[at] = time
            at += 1
        return True

    def converted(self, at, now):
        """The time of a cell of the generation before in this one."""
        owed = self.kept(at)
        time = self.since + owed
        if not owed:
            time -= self.generation & _NEVER_TWICE if self.is_strict else _PAST
        return max(time, now - _LONG_PAST) % _TIMES | self.parity

    def kept(self, at):
        """What a key owed when the rate was switched, in the units of this one."""
        owed = self.gap(at, self.since_before)
        return min(_MOST_DEBT, -(-(owed << self.bits) >> self.before)) if owed > 0 else 0

    def prepare(self, rate, now_ns, epoch, edit):
        """Write the words of the next generation, of another rate, before the switch to that; nothing if
        that has come meanwhile, or something was written since `edit`.
        """
        other = (self.generation + 1) % 2
        bits, multiplier, shift, burst = scale_of(rate)
        since = units_at(now_ns - epoch_of(epoch, self.generation + 1, self.is_strict), multiplier, shift)
        paid = max(0, self.units(now_ns) - self.since)
        kept = -(-(max(self.burst, self.ceiling - paid) << bits) >> self.bits)
        ceiling = max(burst, min(kept, _MOST_DEBT))
        if self.switches[0] == self.generation and self.edits[0] == edit:
            self._control[_OTHER_SWEPT if other else _SWEPT] = since % _WORD
            self._control[_SINCE + other] = now_ns % _WORD
            self._control[_CEILING + other] = ceiling

    @property
    def swept(self):
        return self._control[self._mark]

    @swept.setter
    def swept(self, units):
        self._control[self._mark] = units % _WORD

    @property
    def evictions(self):
        return self._control[_EVICTIONS]

    @evictions.setter
    def evictions(self, count):
        self._control[_EVICTIONS] = count % _WORD

    @property
    def rewinds(self):
        """How often the clock was found far back."""
        return self._control[_REWINDS]

    @rewinds.setter
    def rewinds(self, count):
        self._control[_REWINDS] = count % _WORD


def _outcome(wait_ns, remaining, rest, rate):
    """The outcome of a tier; under a limit of 0 nothing is ever refilled."""
    if rate.limit:
        return wait_ns, remaining, rest, rate
    return (inf, remaining, inf, rate) if wait_ns else (0, remaining, 0, rate)


def _table_size(lines, length):
    """The bytes of a table with a log of that length for every cell."""
    words = _CONTROL + _CELLS * lines * (1 + length)
    return _WORD_SIZE * words + _TAG_SIZE * _CELLS * lines * (2 if length else 1)


def _private_memory(lines, length):
    """The memory of a table, provided as it is used; at once if it is small, or without mmap."""
    size = _table_size(lines, length)
    try:
        return mmap.mmap(-1, size, **_PRIVATE) if _MAPS and size >= _LEAST_MAP else bytearray(size)
    except (MemoryError, OSError, OverflowError):
        raise no_memory() from None
