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

    A log is a ring that begins with its oldest entry. A time is the nanoseconds since the epoch, and 2**63,
    so that a place never used is the earliest.
    """

    __slots__ = ("length", "logs", "longest", "rates", "starts", "windows")

    def __init__(self, rates, memory, start, lines, epoch):
        self.rates = rates
        self.windows = checked_windows(rates)
        self.longest = max([period for _, period in self.windows])
        (rate,) = tables_of(rates, self.windows)
        super().__init__(rate, memory, start, lines, epoch)
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
        return _table_size(self.lines, self.length)

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
            met: list = [(full, limit if full else 0, full) for limit, _ in self.windows]
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

    def outcomes(self, charge, taken):
        """As those of a tier, of every window."""
        cost, met = charge[4:6]
        answers = []
        for (delay, count, rest), (limit, period), rate in zip(met, self.windows, self.rates, strict=True):
            left = float(max(0, limit - count - cost * taken))
            answers.append(_outcome(delay, left, period if taken and cost else rest, rate))
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

    def with_windows(self, rates, now_ns, seen):
        """This table with logs for other windows, and all that is in them. Entries that were `seen` before
        the clock was read and lie ahead of it are cut: it has stepped back.
        """
        memory = _private_memory(self.lines, longest_log(checked_windows(rates)))
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


def _delay(entry, moment, cost, limit, period):
    """How long a request waits until enough entries of a log have left a window."""
    if cost == 0:
        return 0
    if cost > limit:
        return period
    return max(0, min(entry(cost - limit - 1), moment) - moment + period)


def _log_length(rates, strict):
    """How many entries a log has, 0 if the limiter is not strict."""
    return longest_log(checked_windows(rates)) if strict else 0
