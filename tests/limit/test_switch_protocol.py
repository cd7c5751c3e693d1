"""The switch of a rate that processes share, model-checked like the cells (test_ratelimit_protocol.py): in
every interleaving of its steps with those of a process that decides, which may be stopped throughout, and
with a kill at every step. Where the rate is switched twice, the two take turns a few times only.

A kill leaves the switch undone, or to be completed by whoever switches next; in the end that is always tried.
What KEY owes is kept in tokens, so in the end it has what the last rate leaves of its burst.
"""

from dataclasses import dataclass

import pytest
from interleavings import KILLED, SWITCHES, built, in_turn

from headgate import splitmix64
from headgate.limit._rate import checked_rates

HOUR = 3600 * 10**9
CONTROL, TIME_BITS = 8, 40
GENERATION, SETTLED = 0, 1


@pytest.fixture(scope="session")
def checker(tmp_path_factory):
    tree = tmp_path_factory.mktemp("switch")
    return built(tree, "keyed", [mutant[:2] for mutant in MUTANTS.values()], cells=1)


class Table:
    """A limiter of `lines` with one cell each, in which KEY owes `own` at the time 0, and another key `owed`
    in the second line; few, since a switch converts them all.

    It is to be switched from the first of `rates` to the second, and so on.
    """

    def __init__(self, checker, *rates, own=0, owed=0, lines=2, strict=False, **options):
        self.checker = checker
        self.rates = [checked_rates(rate, None) for rate in rates]
        self.tiers = len(self.rates[0])
        entries = max(rate.limit for tiers in self.rates for rate in tiers) if strict else 0
        self.lines = lines
        self.size = CONTROL + lines * (1 + entries)
        self.limiter, self.memory = checker.open_limiter(
            *rates, max_keys=4 * lines, strict=strict, entries=entries,
            size=self.size * (1 if strict else self.tiers), **options,
        )
        self.key, self.other = self.in_lines(0, 1), self.in_lines(1, 1)
        charges = [(self.key, own)] * (own > 0) + [(self.other, owed)] * (owed > 0)
        self.memory = checker.charged(self.memory, charges, 0)
        self.own = own

    def in_lines(self, *lines):
        """A key that looks into these lines, in that order."""
        hashes = ((number, self.limiter._hash(number)) for number in range(1000))
        return next(key for key, hashed in hashes if (hashed >> 31 & 1, splitmix64(hashed) >> 63) == lines)

    def take(self, cost):
        """A process that makes one request for KEY: what it got, and at which time."""
        def take(limiter):
            return [(self.checker.read, cost)] if limiter.allow(self.key, cost) else []
        return take

    def refund(self, cost):
        def refund(limiter):
            limiter.refund(self.key, cost)
            return [(self.checker.read, -cost)]
        return refund

    def switch(self, *generations):
        """A process that sets the rates of these generations, one after another."""
        def switch(limiter):
            for generation in generations or range(1, len(self.rates)):
                limiter.reconfigure(self.rates[generation])
            return []
        return switch

    def complete(self, memory, now):
        """The memory after another process has set the last rate, and the generation that is in force."""
        words = memoryview(memory).cast("Q")
        in_force = words[GENERATION]

        def complete(limiter):
            limiter.reconfigure(self.rates[in_force])
            limiter._check()
        after = self.checker.run(complete, memory, now)[1]
        self.check_cells(after, in_force)
        return after, in_force

    def check_cells(self, memory, generation):
        """All cells are of the generation, and KEY is in one of each table at most."""
        words = memoryview(memory).cast("Q")
        assert words[GENERATION] == words[SETTLED] == generation
        for start in range(SWITCHES, len(words), self.size):
            cells = words[start + CONTROL : start + CONTROL + self.lines]
            tags = [word >> TIME_BITS for word in cells]
            assert all(tag >> 1 & 1 == generation & 1 for tag in tags), "a cell was not converted"
            committed = [tag for tag in tags if tag & 1]
            assert len(set(committed)) == len(committed), "a key has two cells"


@dataclass
class Scenario:
    """What processes do on a table.

    With a single time KEY owes in the end what it got, whichever the rate, and a kill loses `cost` at most;
    but it may have taken over the debt of a key that it evicted.
    Where time goes on, no interval has more than the larger burst and the higher rate allow.
    """

    table: Table
    programs: list
    times: tuple = (0,)
    cost: int = 0
    most: int | None = None
    takes_over: bool = False

    def judge(self, kills):
        table, end = self.table, self.times[-1]
        seen, judged = set(), set()
        outcomes = table.checker.outcomes(self.programs, table.memory, self.times, kills, self.most)
        for results, memory in outcomes:
            outcome = tuple(map(str, results)), memory
            if outcome in judged:
                continue
            judged.add(outcome)
            after, generation = table.complete(memory, end)
            left, drained = table.checker.drained(after, table.key, end)
            grants = [(0, table.own)] if table.own and 0 in self.times else []
            grants += [grant for result in results if result != KILLED for grant in result]
            lost = self.cost * results.count(KILLED)
            rates = table.rates[generation]
            seen.add(generation)
            if len(self.times) == 1 and not self.takes_over:
                self.judge_debt(sum(cost for _, cost in grants), rates, left, lost)
            self.judge_intervals([*grants, (end, left)])
            last = end + 10**9 * max(rate.period for rate in rates)
            left, _ = table.checker.drained(drained, table.key, last)
            assert left == min(rate.burst for rate in rates), "a debt outlives its time"
        assert seen == set(range(len(table.rates)) if kills else [len(table.rates) - 1])

    def judge_debt(self, owed, rates, left, lost):
        burst = min(rate.burst for rate in rates)
        assert max(0, burst - owed - lost) <= left <= max(0, burst - owed), "a debt was not kept"

    def judge_intervals(self, grants):
        for tier in range(self.table.tiers):
            rates = [tiers[tier] for tiers in self.table.rates]
            burst, pace = max(rate.burst for rate in rates), max(rate.limit / rate.period for rate in rates)
            for start in self.times:
                for until in self.times:
                    within = sum(cost for at, cost in grants if start <= at <= until)
                    most = burst + pace * (until - start) / 10**9
                    assert until < start or within <= most, "more was allowed than the rates"


def inserting(checker):
    table = Table(checker, "9/h", "9/day")
    return Scenario(table, [table.take(4), table.switch()], cost=4)


def updating(checker):
    """The burst becomes smaller; the units of a token are others."""
    table = Table(checker, "9/h", "5/min", own=2)
    return Scenario(table, [table.take(3), table.switch()], cost=3)


def raising(checker):
    table = Table(checker, "5/h", "20/h", own=4, owed=3)
    return Scenario(table, [table.take(2), table.switch()], cost=2)


def refunding(checker):
    table = Table(checker, "9/h", "20/day", own=5)
    return Scenario(table, [in_turn(table.take(3), table.refund(3)), table.switch()], cost=3)


def evicting_a_dead_key(checker):
    """The cells are in use, but their debts are over when the rate is switched."""
    table = Table(checker, "9/h", "8/day", owed=9)
    return Scenario(table, [table.take(4), table.switch()], times=(2 * HOUR,), cost=4)


def going_on(checker):
    table = Table(checker, "9/h", "18/h", own=9)
    return Scenario(table, [table.take(9), table.switch()], times=(0, HOUR))


def slowing_down(checker):
    table = Table(checker, "18/h", "9/h", own=9)
    return Scenario(table, [table.take(9), table.switch()], times=(0, HOUR))


def there_and_back(checker):
    """A process may be stopped throughout."""
    table = Table(checker, "9/h", "5/min", "9/h", own=2, lines=1)
    return Scenario(table, [table.take(3), table.switch()], cost=3, most=2)


def there_and_further(checker):
    """The cells have the first parity again, but other units."""
    table = Table(checker, "9/h", "9/day", "64/s", own=2, lines=1)
    return Scenario(table, [table.take(3), table.switch()], cost=3, most=2)


def inserting_there_and_further(checker):
    table = Table(checker, "9/h", "9/day", "8/h", lines=1)
    return Scenario(table, [table.take(3), table.switch()], cost=3, most=2)


def undoing(checker):
    """The rate is switched after the first tier was charged, which is undone in other units."""
    table = Table(checker, "9/h; 8/day", "7/min; 7/h", own=1, lines=1)
    return Scenario(table, [table.take(3), table.switch()], cost=3, most=2)


def inserting_twice(checker):
    """Both evict a key: one that in the second line, the other, after a refund, that in the first, which is
    converted first.
    """
    table = Table(checker, "9/h", "9/day", owed=2)
    third = table.in_lines(0, 0)
    table.memory = checker.charged(table.memory, [(third, 3)], 0)

    def refund(limiter):
        limiter.refund(third, 3)
        return []

    programs = [table.take(2), in_turn(refund, table.take(2)), table.switch()]
    return Scenario(table, programs, cost=4, most=2, takes_over=True)


def strictly(checker):
    table = Table(checker, "2/h", "3/h", own=1, strict=True)
    return Scenario(table, [table.take(1), table.switch()], cost=1)


def strictly_there_and_further(checker):
    """The longest window is the same, so only the generation tells the heads apart."""
    table = Table(checker, "3/h", "1/h", "2/h", own=1, strict=True, lines=1)
    return Scenario(table, [table.take(1), table.switch()], cost=1, most=2)


SCENARIOS = [
    inserting, updating, raising, refunding, evicting_a_dead_key, going_on, slowing_down, there_and_back,
    there_and_further, inserting_there_and_further, undoing, inserting_twice, strictly,
    strictly_there_and_further,
]


# What a mutant has in place of an expression of cells.h, and the scenario that shows it.
MUTANTS = {
    "only the parity of the count is compared": (
        "hg_load(t->switches + HG_GENERATION) == t->generation",
        "!((hg_load(t->switches + HG_GENERATION) ^ t->generation) & 1)", there_and_further),
    "an insertion does not look whether the rate was switched": ("!hg_is_stale(t)", "1", inserting_twice),
    "a cell that was never used is not converted": (
        "(hg_is_current(t, word))", "hg_is_current(t, word) || word == 0", inserting),
    "debts are kept in units": (
        "hg_rescaled(owed, t->before.bits, t->scale.bits, HG_MOST_DEBT)", "owed", updating),
    "a conversion is written over a charge": (
        "hg_cas(line + i, word, hg_converted(t, line + i, word, now))",
        "hg_cas(line + i, hg_load(line + i), hg_converted(t, line + i, word, now))", updating),
    "a decision converts nothing": (
        "hg_load(t->switches + HG_SETTLED) != t->generation", "0", updating),
    "a charge is undone in its own units": (
        "to < from ? units >> (from - to) : hg_rescaled(units, from, to, HG_MOST_DEBT)", "units", undoing),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_protocol(checker, scenario, exhaustive):
    made = scenario(checker)
    if made.most and not exhaustive:
        made.most = 1
    made.judge(kills=int(exhaustive or len(made.programs) == 2))


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_does_is_seen(checker, name):
    scenario = MUTANTS[name][2]
    with checker.mutant(list(MUTANTS).index(name) + 1), pytest.raises(AssertionError):
        scenario(checker).judge(kills=0)
