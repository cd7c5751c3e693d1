"""The rate of a limiter, which may be in a file, where each of the processes that share it may switch it."""

from time import monotonic_ns

from headgate._base.clock import checked_now
from headgate.limit._generations import SWITCHES
from headgate.limit._tables import checked_windows, largest_cost, tables_of
from headgate.limit.keyed._log import _Logs
from headgate.limit.keyed._table import _BLOCK, _CELLS, _SharedTier, _table_size

_HEADER = 4096
_GENERATION, _SETTLED = 0, 1


class _Switching:
    """The rate that is loaded, for all tables."""

    __slots__ = (
        "_clock",
        "_edits",
        "_largest",
        "_lines",
        "_locked",
        "_rates",
        "_strict",
        "_switches",
        "_table",
        "_tiers",
    )

    def _publish(self, rates, tiers, edit):
        """Set the tables that decide, if nothing was written since `edit`; True if so."""
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

    def _share(self, table, lines, strict, clock):
        """Let the tables be those of a file."""
        self._strict, self._clock = strict, clock
        self._table, self._locked, self._edits, self._lines = table, table.locked, table.edits, lines
        self._switches = memoryview(table.map)[SWITCHES : SWITCHES + 16].cast("Q")
        self._locked(self._load_rate)
        self._settle_cells()

    def _renewed(self, function, *args):
        """What ``function(*args)`` returns at the rate that is in force; under the lock."""
        if self._table is not None:
            self._renew()
        return function(*args)

    def _renew(self):
        """Load the rate that is in force, if it was switched or all cells are of it now; under the lock."""
        tier = self._tiers[0]
        is_settled = tier.before is not None and self._switches[_SETTLED] == tier.generation
        if is_settled or self._switches[_GENERATION] != tier.generation:
            self._load_rate()

    def _load_rate(self):
        while True:
            edit = self._edits[0]
            generation, settled = self._switches
            table = self._table
            rates = table.rates_of(generation)
            before = None if settled == generation else table.rates_of(generation - 1)
            if edit != self._edits[0] or [generation, settled] != list(self._switches):
                continue
            if rates is None or (before is None and settled != generation):
                raise table.damage
            if self._publish(rates, self._tiers_at(generation, rates, before), edit):
                return

    def _tiers_at(self, generation, rates, before):
        """The tables at the rate of a generation, and at the one `before`, if there are cells of that."""
        tiers = self._tables_at(generation, rates, before)
        for tier in tiers:
            tier.switches = self._switches
        return tiers

    def _tables_at(self, generation, rates, before):
        table, lines = self._table, self._lines
        if self._strict:
            old = None if before is None else tables_of(before, checked_windows(before))[0]
            return [_Logs(rates, table.map, _HEADER, lines, table.epoch, generation, old, table.entries)]
        size = _table_size(lines, 0)
        return [
            _SharedTier(
                rate, table.map, _HEADER + size * at, lines, table.epoch, generation, before and before[at]
            )
            for at, rate in enumerate(rates)
        ]

    def _prepare(self, hashed, now_ns):
        """Load the rate that is in force, and convert the cells of a key that are of the one before; true if
        the rate has been switched. Under the lock.
        """
        tiers = self._tiers
        self._renew()
        for tier in self._tiers:
            if tier.before is not None:
                for start in tier.candidates(hashed):
                    self._settle_line(tier, start, tier.units(now_ns))
        return self._tiers is not tiers

    def _settle_line(self, tier, start, now):
        while not tier.settle(start, now):
            self._table.retake()

    def _settle_cells(self):
        """Convert all cells that are of the generation before, some of them each time the file is locked."""
        generation = self._tiers[0].generation
        for which in range(len(self._tiers)):
            for first in range(0, self._lines, _BLOCK):
                now = self._now_ns()
                if not self._locked(self._renewed, self._settle_block, generation, which, first, now):
                    return
        self._locked(self._renewed, self._settled, generation)

    def _settle_block(self, generation, which, first, now_ns):
        """Convert the cells of some lines; False if that is done, or the rate has been switched again."""
        tier = self._tiers[which]
        if tier.generation != generation or tier.before is None:
            return False
        now = tier.units(now_ns)
        for line in tier.used(first, min(_BLOCK, tier.lines - first)):
            self._settle_line(tier, line * _CELLS, now)
        return True

    def _settled(self, generation):
        if self._switches[_GENERATION] == generation:
            self._switches[_SETTLED] = generation
            self._renew()

    def _switch(self, rates):
        """Let another rate be in force, of this generation plus one; False if a switch is not complete, or if
        a finalizer or signal handler has switched or forked meanwhile, which is looked at before each write.
        """
        edit, is_free = self._edits
        if is_free:
            return False
        now_ns = self._now_ns()
        tiers, table = self._tiers, self._table
        generation = tiers[0].generation
        if self._switches[_SETTLED] != generation:
            return False
        if self._rates == rates:
            return True
        table.check_switch(self._rates, rates)
        table.write(generation + 1, rates, edit)
        tables = tables_of(rates, checked_windows(rates) if self._strict else ())
        for tier, rate in zip(tiers, tables, strict=True):
            tier.prepare(rate, now_ns, table.epoch, edit)
        if self._switches[_GENERATION] != generation or self._edits[0] != edit:
            return False
        self._switches[_GENERATION] = generation + 1
        self._load_rate()
        return True

    def _switch_to(self, rates):
        """Let another rate be in force for all processes."""
        while not self._locked(self._renewed, self._switch, rates):
            self._settle_cells()
        self._settle_cells()
