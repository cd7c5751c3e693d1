"""The protocol of the logs, model-checked: the compiled limiter's own code in every interleaving of two and
three processes, with a kill at every step. `judge` checks what must hold in every outcome.
"""

from dataclasses import dataclass

import pytest
from interleavings import KILLED, built, in_turn

from headgate.limit._rate import Rate, checked_rates
from headgate.limit._tables import checked_windows

HOUR = 3600 * 10**9
CELLS, CONTROL, LINES = 8, 8, 2
KEY = b"ann"


@pytest.fixture(scope="session")
def checker(tmp_path_factory):
    tree = tmp_path_factory.mktemp("strict")
    return built(tree, "keyed", [mutant[:2] for mutant in MUTANTS.values()])


class Table:
    """A strict limiter, in which KEY has taken `own` at the time 0; `others` have taken one each."""

    def __init__(self, checker, rate="2/h", own=0, others=0, **options):
        self.checker = checker
        self.windows = checked_windows(checked_rates(rate, None))
        self.limit = min(limit for limit, _ in self.windows)
        longest = max(limit for limit, _ in self.windows)
        self.limiter, self.memory = checker.open_limiter(
            rate, strict=True, max_keys=LINES * CELLS // 2, entries=longest,
            size=CONTROL + LINES * CELLS * (1 + longest), **options,
        )
        self.own = own
        if own:
            self.memory = checker.charged(self.memory, [(KEY, own)], 0)
        charges = [(number.to_bytes(8, "little"), 1) for number in range(others)]
        self.memory = checker.charged(self.memory, charges, 1)

    def take(self, cost, key=KEY):
        """A process that makes one request: what KEY got, and at which time."""
        def take(limiter):
            allowed = limiter.allow(key, cost)
            return [(self.checker.read, cost)] if allowed and key == KEY else []
        return take

    def give_back(self, cost):
        """A process that takes and gives back."""
        def give_back(limiter):
            if limiter.allow(KEY, cost):
                limiter.refund(KEY, cost)
            return []
        return give_back

    def settle(self, cost, actual):
        """A process that takes `cost`, and uses `actual`, for which there is enough whatever others do."""
        def settle(limiter):
            reservation = limiter.reserve(KEY, cost)
            taken = [(self.checker.read, cost), (self.checker.read, actual - cost)] if reservation else []
            reservation.settle(actual)
            return taken
        return settle


@dataclass
class Scenario:
    """What processes do on a table. No window of KEY has more than its limit, but for `more`.

    With a single time it gets no less either, with what is left in the end, but for `cost` a kill.
    """

    table: Table
    programs: list
    times: tuple = (0,)
    cost: int = 0
    more: int = 0

    def judge(self, kills):
        table, end = self.table, self.times[-1]
        for results, memory in table.checker.outcomes(self.programs, table.memory, self.times, kills):
            left, drained = table.checker.drained(memory, KEY, end)
            grants = [(0, table.own)] if table.own else []
            grants += [grant for result in results if result != KILLED for grant in result]
            for limit, period in table.windows:
                self.judge_window([*grants, (end, left)], limit, period)
            if len(self.times) == 1:
                lost = self.cost * results.count(KILLED)
                assert sum(cost for _, cost in grants) + left >= table.limit - lost
            last = end + max(period for _, period in table.windows)
            left, _ = table.checker.drained(drained, KEY, last)
            assert left == table.limit, "an entry outlives its window"

    def judge_window(self, grants, limit, period):
        for start in self.times:
            within = sum(cost for at, cost in grants if start <= at < start + period)
            assert within <= limit + self.more, "a window has more than its limit"


def inserting(checker):
    table = Table(checker, "1/h")
    return Scenario(table, [table.take(1)] * 3, cost=1)


def inserting_beside_free_cells(checker):
    table = Table(checker)
    return Scenario(table, [table.take(1)] * 2, cost=1)


def updating(checker):
    table = Table(checker, own=1)
    return Scenario(table, [table.take(1)] * 3, cost=1)


def claiming_several(checker):
    """Each claims both slots; one that finds only one releases its claim. A short window is soon searched."""
    table = Table(checker, Rate(2, 8e-9), own=2)
    table.own = 0
    return Scenario(table, [table.take(2)] * 2, times=(8,), cost=2)


def counting_two_windows(checker):
    """The log holds three, the shorter window two."""
    table = Table(checker, "2/h; 3/day", own=1)
    return Scenario(table, [table.take(1)] * 3, cost=1)


def refunding(checker):
    table = Table(checker, own=1)
    return Scenario(table, [table.take(1), table.give_back(1)], cost=1)


def settling(checker):
    """What was too little is charged whole, as the other cannot take the last slot."""
    table = Table(checker, "3/h")
    return Scenario(table, [table.settle(1, 2), table.take(1)], cost=2)


def reclaiming(checker):
    """The logs of others have expired."""
    table = Table(checker, others=16)
    return Scenario(table, [table.take(1)] * 2, times=(2 * HOUR,), cost=1)


def evicting(checker):
    """The first takes over a log with one slot of two free, and is allowed one request in any case."""
    table = Table(checker, others=16)
    return Scenario(table, [table.take(1), table.take(1)], times=(2,), cost=2, more=1)


def taken_over_meanwhile(checker):
    """Another key may take the log while its owner claims a slot in it."""
    table = Table(checker, own=1, others=15)
    return Scenario(table, [table.take(1), table.take(1, key=b"new")], times=(2,), cost=2, more=2)


def refusing(checker):
    table = Table(checker, own=1, others=15, on_full="deny")
    return Scenario(table, [table.take(1), table.take(1), table.take(1, key=b"new")], times=(2,), cost=1)


def leaving(checker):
    """The entries leave the window while others make requests."""
    table = Table(checker, own=2)
    return Scenario(table, [table.take(1)] * 2, times=(HOUR - 1, HOUR), cost=1)


def reading_the_clock_early(checker):
    """Others write hours after the clock was read."""
    table = Table(checker, "1/h")
    programs = [table.take(1), in_turn(table.take(1), table.take(1))]
    return Scenario(table, programs, times=(0, HOUR // 2, HOUR + 1), cost=1)


def clamping_what_was_ahead(checker):
    """A process that reads the clock again clamps what it has seen, not what comes meanwhile."""
    table = Table(checker)
    table.own = 1
    table.memory = checker.charged(table.memory, [(KEY, 1)], 1)
    return Scenario(table, [table.take(1)] * 2, times=(0, HOUR // 2, HOUR + 1), cost=1)


SCENARIOS = [
    inserting, inserting_beside_free_cells, updating, claiming_several, counting_two_windows, refunding,
    settling, reclaiming, evicting, taken_over_meanwhile, refusing, leaving, reading_the_clock_early,
    clamping_what_was_ahead,
]

MUTANTS = {
    "a commit does not move the head": ("found->gap >= owed", "0", counting_two_windows),
    "claims are not released": ("count-- > 0", "0", claiming_several),
    "a slot is claimed though it has changed": ("!hg_cas(times + i, old, value)",
                                               "(hg_cas(times + i, hg_load(times + i), value), 0)", updating),
    "too few slots are taken": ("claimed < charges->cost", "0", claiming_several),
    "a request that does not commit is allowed": ("!hg_write(t, key, &found, charges->now, head)",
                                                  "(hg_write(t, key, &found, charges->now, head), 0)",
                                                  counting_two_windows),
    "what was not seen is clamped": ("time > stamp && time <= seen->span.newest", "time > stamp",
                                     clamping_what_was_ahead),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_protocol(checker, scenario):
    scenario(checker).judge(kills=1)


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_does_is_seen(checker, name):
    scenario = MUTANTS[name][2]
    with checker.mutant(list(MUTANTS).index(name) + 1), pytest.raises(AssertionError):
        scenario(checker).judge(kills=1)
