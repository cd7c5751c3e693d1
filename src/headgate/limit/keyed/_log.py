"""The table of a strict limiter: for each cell a log of the times of the last requests."""

from array import array
from bisect import bisect_right

from headgate.limit._tables import checked_windows, longest_log, tables_of
from headgate.limit._units import units_at, wait
from headgate.limit.keyed._table import (
    _AHEAD,
    _AT,
    _CELLS,
    _COST,
    _DEBT,
    _INHERITED,
    _MOST_DEBT,
    _NEVER_TWICE,
    _TAG_SIZE,
    _TIMES,
    _WORD,
    _WORD_SIZE,
    _outcome,
    _private_memory,
    _SharedTier,
    _table_size,
)

_STEPS = 2**32


class _Logs(_SharedTier):
    """The table of a strict limiter: the heads of logs, and for each of them a log of times.

    A log is a ring that begins with its oldest entry. A time is the nanoseconds since the epoch, plus 2**63,
    so that a slot never used is the earliest.
    """

    __slots__ = ("length", "logs", "longest", "rates", "starts", "windows")

    def __init__(self, rates, memory, start, lines, epoch, generation=0, before=None, length=None):
        self.rates = rates
        self.windows = checked_windows(rates)
        self.longest = max([period for _, period in self.windows])
        self.length = longest_log(self.windows) if length is None else length
        (rate,) = tables_of(rates, self.windows)
        super().__init__(rate, memory, start, lines, epoch, generation, before)
        self.ceiling = self.burst + _STEPS  # each request adds one, however many come in one nanosecond

    def _allot(self, memory, start, lines):
        super()._allot(memory, start, lines)
        logs = _WORD_SIZE * _CELLS * lines * self.length
        view = memoryview(memory)
        self.logs = view[-logs:].cast("Q")
        self.starts = view[-logs - _TAG_SIZE * _CELLS * lines : -logs].cast("I")

    @property
    def is_strict(self):
        """Whether cells are the heads of logs."""
        return True

    def kept(self, at):
        """How long the newest entry counted when the rate was switched, in the units of this one."""
        newest = max(map(self.entries(at), range(self.length))) - _WORD // 2
        owed = units_at(newest + self.longest - 1, self.multiplier, self.shift) + 1 - self.since
        return min(owed, _MOST_DEBT) + (self.generation & _NEVER_TWICE) if owed > 0 else 0

    @property
    def size(self):
        """The bytes of the table."""
        return _table_size(self.lines, self.length)

    def slot(self, at, number):
        """The index of the entry of a log with `number` others before it."""
        return at * self.length + (self.starts[at] + number) % self.length

    def entries(self, at):
        """A function that returns an entry by its number."""
        logs, first, start, length = self.logs, at * self.length, self.starts[at], self.length
        return lambda number: logs[first + (start + number) % length]

    def recovered(self, at):
        """The entries of a log that is put in order, as a process was killed while it wrote to it."""
        starts, edits = self.starts, self.edits
        edit = edits[0]
        times = list(map(self.entries(at), range(self.length)))
        falls = [number for number in range(1, self.length) if times[number] < times[number - 1]]
        fall = falls[0] if falls else 0  # none, if a finalizer has done so
        if edits[0] == edit:
            starts[at] = (starts[at] + fall) % self.length
        return self.entries(at)

    def decide(self, tag, hashed, now_ns, amount, evict, fully=False):
        """As for a tier, but with the nanoseconds that are missing in all windows, for the debt the measures
        of each window, if wanted `fully`, and with the times of the head and of the newest entry.
        """
        elapsed, cost = now_ns - self.epoch, int(amount)
        now, stamp = self.units(now_ns), elapsed + _WORD // 2
        candidates = self.candidates(hashed)
        at, gap, inherited = self.find(tag, candidates), 0, 0
        if at is None:
            at, gap = self.earliest(candidates, now)
            inherited = min(max(gap, 0), self.ceiling)
        entry = self.entries(at)
        if entry(0) > entry(-1):
            entry = self.recovered(at)
        newest = entry(-1)
        ahead = None
        if newest > stamp or self.gap(at, now) > self.ceiling or self.is_behind(now):
            ahead = self.times[at], newest
        if inherited:
            full = wait(elapsed, inherited, self.multiplier, self.shift) if cost and not evict else 0
            met: list = [(full, limit if full else 0, full) for limit, _ in self.windows]
        elif fully:
            met = [self.measure(entry, stamp, cost, *window) for window in self.windows]
        else:
            met = [(_delay(entry, stamp, cost, *window),) for window in self.windows]
        return self, at, now, elapsed, cost, met, max(met)[0], inherited, ahead

    def measure(self, entry, stamp, cost, limit, period):
        """How long a request has to wait for a window, how many entries count, and for how long."""
        bound = stamp - period
        count = self.length - bisect_right(range(self.length), bound, key=entry)
        rest = min(entry(-1), stamp) - bound if count else 0
        return _delay(entry, stamp, cost, limit, period), count, rest

    def outcomes(self, charge, taken):
        """As for a tier, for every window."""
        cost, met = charge[4:6]
        outcomes = []
        for (delay, count, rest), (limit, period), rate in zip(met, self.windows, self.rates, strict=True):
            remaining = float(max(0, limit - count - cost * taken))
            outcomes.append(_outcome(delay, remaining, period if taken and cost else rest, rate))
        return outcomes

    def clamp(self, charge, now_ns):
        """Clamp what was seen, and is ahead of a clock that was read later."""
        at, (head, newest) = charge[_AT], charge[_AHEAD]
        self.clamp_cell(at, head, now_ns)
        stamp, logs, edits = now_ns - self.epoch + _WORD // 2, self.logs, self.edits
        for number in range(self.length):
            slot = self.slot(at, number)
            if stamp < logs[slot] <= newest:
                edits[0] += 1
                logs[slot] = stamp

    def take(self, tag, charge, edit):
        """Log an allowed request, in the slots of the oldest entries, if nothing was written since `edit`.

        False if it was; what has been logged of the request by then stays, and counts.
        """
        _, at, now, elapsed, cost, _, _, inherited, _ = charge
        stamp, logs, starts, tags, times, edits = (
            elapsed + _WORD // 2, self.logs, self.starts, self.tags, self.times, self.edits
        )
        slots = [self.slot(at, number) for number in range(cost)]
        start, head = (starts[at] + cost) % self.length, self.head(elapsed, now, self.gap(at, now))
        if edits[0] != edit:
            return False
        edits[0] = edit = edit + 1
        for slot in slots:
            if edits[0] != edit:
                return False
            logs[slot] = stamp
        if edits[0] != edit:
            return False
        starts[at], tags[at], times[at] = start, tag, head
        if inherited > 0:
            self.evictions += 1
        return True

    def head(self, elapsed, now, gap):
        """The time of a head whose newest entry is from `elapsed`: later than it was, and not before that
        entry stops counting.
        """
        owed = units_at(elapsed + self.longest - 1, self.multiplier, self.shift) + 1 - now
        return (now + (owed if gap < owed else gap + 1)) % _TIMES | self.parity

    def charge_up_to(self, tag, hashed, now_ns, amount, evict):
        """As for a tier: as many entries as every window allows."""
        edit = self.edits[0]
        charge = self.decide(tag, hashed, now_ns, 0, evict, True)
        if charge[_INHERITED] and not evict:
            return True
        met = zip(charge[_DEBT], self.windows, strict=True)
        cost = min(int(amount), *[limit - count for (_, count, _), (limit, _) in met])
        return cost <= 0 or self.take(tag, (*charge[:_COST], cost, *charge[_DEBT:]), edit)

    def unused(self, cost, actual, reserved_at, now_ns):
        """As for a tier: entries that have left all windows are not refunded."""
        return cost - actual if now_ns - reserved_at < self.longest else 0

    def refund(self, tag, hashed, now_ns, amount):
        """Drop the oldest entries of a key that still count, at most so many, and all before them."""
        logs, edits = self.logs, self.edits
        edit = edits[0]
        if self.is_stale():
            return False
        at = self.find(tag, self.candidates(hashed))
        if at is None:
            return True
        bound = now_ns - self.epoch + _WORD // 2 - self.longest
        past = bisect_right(range(self.length), bound, key=self.entries(at))
        back = min(int(amount), self.length - past)
        for number in range(past + back if back else 0):
            slot = self.slot(at, number)
            if edits[0] != edit:
                break  # fewer are dropped, since other entries may be there now
            edits[0] = edit = edit + 1
            logs[slot] = 0
        return True

    def newest(self):
        """The newest entry of all logs."""
        return max([self.entries(at)(-1) for at in range(len(self.tags))])

    def with_windows(self, rates, now_ns, seen):
        """This table with logs for other windows. Entries that were `seen` before the clock was read and are
        ahead of it are clamped: it has stepped back.
        """
        memory = _private_memory(self.lines, longest_log(checked_windows(rates)))
        table = _Logs(rates, memory, 0, self.lines, self.epoch)
        elapsed, now = now_ns - self.epoch, table.units(now_ns)
        stamp = elapsed + _WORD // 2
        kept = min(self.length, table.length)
        for at, tag in enumerate(self.tags):
            newest = list(map(self.entries(at), range(self.length - kept, self.length))) if tag else [0]
            newest = [min(time, stamp) if time <= seen else time for time in newest]
            if newest[-1] > stamp - table.longest:
                end = (at + 1) * table.length
                table.logs[end - kept : end] = memoryview(array("Q", newest))
                table.tags[at] = tag
                table.times[at] = table.head(max(elapsed, newest[-1] - _WORD // 2), now, -_TIMES)
        table.swept = now
        table.evictions = self.evictions
        table.rewinds = self.rewinds
        return table

    def check_logs(self, now_ns):
        """A log is in order; where an entry counts that is not ahead of the clock, the head is not free; but
        if the clock has been far back, heads count from then on, and earlier entries may count again."""
        assert self.length >= longest_log(self.windows)
        now, stamp = self.units(now_ns), now_ns - self.epoch + _WORD // 2
        for at in range(len(self.tags)):
            log = list(map(self.entries(at), range(self.length)))
            assert log == sorted(log)
            counts = log[-1] + self.longest > stamp >= log[-1]
            assert not counts or self.rewinds or self.gap(at, now) > 0


def _delay(entry, stamp, cost, limit, period):
    """How long a request has to wait until enough entries of a log have left a window."""
    if cost == 0:
        return 0
    if cost > limit:
        return period
    return max(0, min(entry(cost - limit - 1), stamp) - stamp + period)


def _log_length(rates, strict):
    """How many entries a log has, 0 if the limiter is not strict."""
    return longest_log(checked_windows(rates)) if strict else 0
