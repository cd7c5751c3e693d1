"""The protocol of the cells, model-checked: the compiled limiter's own code in every interleaving of two and
three processes, with a kill at every step. `judge` checks what must hold in every outcome.

The table has two lines. The key that matters, KEY, looks into the second one last, and finds the first one
full of whole bursts; so it competes with the others for the cells of the second.
"""

import re
from dataclasses import dataclass
from unittest import mock

import pytest
from interleavings import KILLED, SWITCHES, built, in_turn

from headgate import splitmix64
from headgate.limit._rate import checked_rates
from headgate.limit._tables import scale_of
from headgate.limit._units import units_at

MINUTE, HOUR = 60 * 10**9, 3600 * 10**9
CELLS, CONTROL, LINES, TIME_BITS = 8, 8, 2, 40
TIER = CONTROL + LINES * CELLS
BURST = 9
RATE = f"{BURST}/h"
STRIDE = 35  # with two lines, a circle of 2**36 units as large tables have it

AHEAD = "found->gap > t->ceiling || hg_behind(t, now)"
CLAMPED = "hg_cell(hg_tag(t, key), now + t->ceiling)"
CLAMP = f"(found.gap > t->ceiling && hg_cas(found.cell, found.word, {CLAMPED}), 0)"
CLAMPED_AT_ONCE = CLAMP.replace("found.", "found->").replace("hg_tag(t, key)", "found->word >> HG_TIME_BITS")
LOWER = "hg_cas(found->cell, found->word, hg_cell(found->word >> HG_TIME_BITS, time))"
MARK = "hg_cas(t->mark, swept, all ? now : swept + (due << t->stride))"
CHARGE = "hg_cas(found->cell, found->word, word)"


def late(*times):
    """Times in 2**34 units each, of which there are 9 * 2**28 an hour."""
    return tuple(HOUR * 2**34 * time // (9 * 2**28) for time in times)


def written_over(swap):
    """The same swap, but of whatever value the word has now."""
    return re.sub(r"hg_cas\((\S+), [^,]+", r"hg_cas(\1, hg_load(\1)", swap)


@pytest.fixture(scope="session")
def checker(tmp_path_factory):
    tree = tmp_path_factory.mktemp("protocol")
    return built(tree, "keyed", [mutant[:2] for mutant in MUTANTS.values()])


class Table:
    """A limiter, on whose table KEY owes `own` at the time 0, and the others in its second line owe `owed`.

    The first line is full of bursts that were taken `now`, or empty if that is None.
    """

    def __init__(self, checker, rate=RATE, own=0, owed=(), now=0, stride=32, **options):
        self.checker = checker
        self.rates = checked_rates(rate, None)
        with mock.patch.object(checker.module, "stride_of", lambda _: stride):
            self.limiter, self.memory = checker.open_limiter(
                rate, max_keys=LINES * CELLS // 2, size=TIER * len(self.rates), **options
            )
        self.key = self.keys(0, 1)[0]
        self.others = self.keys(1, 1)
        self.burst = min(rate.burst for rate in self.rates)
        self.own = own
        first = [] if now is None else [(key, self.burst) for key in self.keys(0, 0)[:CELLS]]
        charges = [*first, (self.key, own), *zip(self.others, owed, strict=False)]
        self.memory = checker.charged(self.memory, charges, 0)
        if now:
            self.memory = checker.charged(self.memory, first, now)

    def keys(self, *lines):
        """Keys that look into these lines, in that order."""
        hashes = [(number, self.limiter._hash(number)) for number in range(1000)]
        return [number for number, hashed in hashes if (hashed >> 31 & 1, splitmix64(hashed) >> 63) == lines]

    def take(self, cost, other=None):
        """A process that makes one request, for KEY or another: what KEY got, and at which time."""
        key = self.key if other is None else self.others[other]

        def take(limiter):
            allowed = limiter.allow(key, cost)
            return [(self.checker.read, cost)] if allowed and other is None else []
        return take

    def refund(self, cost, other=None):
        key = self.key if other is None else self.others[other]

        def refund(limiter):
            limiter.refund(key, cost)
            return [(self.checker.read, -cost)] if other is None else []
        return refund

    def cells(self, memory, tier):
        """The tags and times of all keys."""
        words = memoryview(memory).cast("Q")[SWITCHES + TIER * tier :][CONTROL:TIER]
        return [(word >> TIME_BITS, word % 2**TIME_BITS) for word in words if word >> TIME_BITS & 1]

    def is_sound(self, memory, tier):
        tags = [tag for tag, _ in self.cells(memory, tier)]
        return len(set(tags)) == len(tags)

    def debt(self, memory, tier, now):
        """What KEY owes at a tier, in tokens."""
        bits, multiplier, shift, _ = scale_of(self.rates[tier])
        tag = (self.limiter._hash(self.key) >> 42 or 1) << 2 | 1
        times = [time for owner, time in self.cells(memory, tier) if owner == tag]
        return sum(max(0, time - units_at(now, multiplier, shift)) for time in times) / 2**bits


@dataclass
class Scenario:
    """What processes do on a table.

    KEY gets from `least` to `most` tokens, with what is left for it in the end, and a kill loses `cost` at
    most. Where time goes on, the rate says what it gets; the end is `rest` after the last time. If KEY is
    `idle`, it gets its burst then.
    """

    table: Table
    programs: list
    times: tuple = (0,)
    cost: int = 0
    least: int = BURST
    most: int = BURST
    rest: int = 0
    idle: bool = False

    def judge(self, kills):
        table, end = self.table, self.times[-1] + self.rest
        for results, memory in table.checker.outcomes(self.programs, table.memory, self.times, kills):
            left, drained = table.checker.drained(memory, table.key, end)
            assert left == table.burst or not self.idle, "an idle key owes something"
            grants = [(0, table.own)] if 0 in self.times else []
            grants += [grant for result in results if result != KILLED for grant in result]
            lost = self.cost * results.count(KILLED)
            for tier, rate in enumerate(table.rates):
                self.judge_tier(rate, [*grants, (end, left)])
                assert table.is_sound(memory, tier), "a key has two cells"
            if len(self.times) == 1:
                total = sum(cost for _, cost in grants)
                assert self.least - lost <= total + left <= self.most
                debts = [table.debt(memory, tier, end) for tier in range(len(table.rates))]
                assert self.least < self.most or total <= min(debts) <= max(debts) <= total + lost
            last = end + 10**9 * max(rate.period for rate in table.rates)
            left, _ = table.checker.drained(drained, table.key, last)
            assert left == table.burst, "a debt outlives its time"

    def judge_tier(self, rate, grants):
        times = [*self.times, self.times[-1] + self.rest]
        for start in times:
            for until in times:
                within = sum(cost for at, cost in grants if start <= at <= until)
                most = rate.burst + rate.limit * (until - start) // (rate.period * 10**9)
                assert until < start or within <= most, "more was allowed than the rate"


def inserting(checker):
    table = Table(checker)
    return Scenario(table, [table.take(4)] * 3, cost=4)


def updating(checker):
    table = Table(checker, own=1)
    return Scenario(table, [table.take(4)] * 3, cost=4)


def refunding(checker):
    table = Table(checker, own=1)
    return Scenario(table, [table.take(4), in_turn(table.take(4), table.refund(4))], cost=4)


def reclaiming(checker):
    table = Table(checker, owed=[4] * 8, now=HOUR)
    return Scenario(table, [table.take(4)] * 3, times=(HOUR,), cost=4)


def reclaiming_own(checker):
    table = Table(checker, own=4, owed=[4] * 7, now=HOUR)
    return Scenario(table, [table.take(4)] * 3, times=(HOUR,), cost=4)


def dying(checker):
    """The debts of the others end while the key is inserted."""
    death = HOUR * 4 // BURST
    table = Table(checker, owed=[4, 9, 9, 9, 9, 9, 9, 9])
    return Scenario(table, [table.take(5)] * 2, times=(death - 1, death + 1), cost=5)


def evicting(checker):
    """The debt of 4 is taken over, but for the one token that the first request is allowed."""
    table = Table(checker, owed=[4, 6, 6, 6, 6, 6, 6, 6])
    return Scenario(table, [table.take(1)] * 2, cost=1, least=5, most=6)


def refusing(checker):
    table = Table(checker, owed=[4] * 7, on_full="deny")
    return Scenario(table, [table.take(4)] * 3, cost=4)


def choosing_two_cells(checker):
    """After a refund amid the insertions another key owes the least."""
    table = Table(checker, owed=[4, 5, 6, 6, 6, 6, 6, 6])
    programs = [table.take(2), in_turn(table.refund(5, other=1), table.take(9))]
    return Scenario(table, programs, cost=9, least=0)


def choosing_two_cells_in_reverse(checker):
    table = Table(checker, owed=[5, 4, 6, 6, 6, 6, 6, 6])
    programs = [table.take(2), in_turn(table.refund(5, other=0), table.take(9))]
    return Scenario(table, programs, cost=9, least=0)


def choosing_two_cells_of_three(checker):
    table = Table(checker, owed=[4, 5, 6, 6, 6, 6, 6, 6])
    return Scenario(table, [table.take(5), table.take(5), table.refund(5, other=1)], cost=5, least=0)


def inserting_twice(checker):
    """What one has begun another withdraws, and a third begins again in the same cell."""
    table = Table(checker, owed=[5, 4, 6, 6, 6, 6, 6, 6])
    programs = [table.take(5), in_turn(table.refund(5, other=0), table.take(5)), table.take(5)]
    return Scenario(table, programs, cost=5, least=0)


def evicting_beside_a_charge(checker):
    """The key that is evicted is charged too, and may evict the other in its turn: a token for each time."""
    table = Table(checker, owed=[4, 6, 6, 6, 6, 6, 6, 6])
    return Scenario(table, [table.take(1), table.take(1), table.take(1, other=0)], cost=1, least=2, most=8)


def charging_tiers(checker):
    """The second tier allows one of them; the other gets back what the first tier took."""
    table = Table(checker, rate="9/h; 5/day")
    return Scenario(table, [table.take(3)] * 2, cost=3, least=5, most=5)


def giving_back_late(checker):
    """A request that the second tier denies undoes its charge at the first when that is long over."""
    table = Table(checker, rate="3/h; 4/day")
    return Scenario(table, [table.take(3)] * 2, times=(0, HOUR))


def giving_back_what_others_took(checker):
    """The same, but others have been charged since the clock was read."""
    table = Table(checker, rate="7/h; 5/min", own=1, now=None)
    programs = [table.take(3), in_turn(table.take(3), table.take(5))]
    return Scenario(table, programs, times=(0, HOUR), rest=MINUTE)


def reading_the_clock_early(checker):
    """Others write hours after the clock was read."""
    table = Table(checker)
    programs = [table.take(9), in_turn(table.take(9), table.take(9))]
    return Scenario(table, programs, times=(0, 2 * HOUR, 5 * HOUR))


def stepping_back(checker):
    table = Table(checker)
    return Scenario(table, [table.take(9), table.take(9)], times=(2 * HOUR, 0))


def stepping_far_back(checker):
    table = Table(checker, own=9, now=None)
    return Scenario(table, [table.take(9), table.take(9)], times=(200 * HOUR, 0))


def sweeping(checker):
    """After two hundred idle hours all times are set anew."""
    table = Table(checker, own=9, now=None)
    return Scenario(table, [table.take(5)] * 2, times=(200 * HOUR,), cost=5)


def sweeping_late(checker):
    table = Table(checker, own=9, now=None)
    return Scenario(table, [table.take(5)] * 2, times=(60 * HOUR, 200 * HOUR), cost=5)


def idling(checker):
    """KEY is idle while others make requests, and is swept when the times have wrapped halfway around."""
    table = Table(checker, own=9, now=None, stride=STRIDE)
    programs = [table.take(1, other=0), table.take(1, other=1)]
    return Scenario(table, programs, times=late(10, 11), rest=late(33)[0], idle=True)


def idling_for_long(checker):
    """The same, but no key is idle as long as it takes for all lines to be swept."""
    table = Table(checker, own=9, now=None, stride=STRIDE)
    programs = [in_turn(*[table.take(1, other=0)] * 3)]
    return Scenario(table, programs, times=late(8, 16, 24), rest=late(9)[0], idle=True)


SCENARIOS = [
    inserting, updating, refunding, reclaiming, reclaiming_own, dying, evicting, evicting_beside_a_charge,
    refusing, choosing_two_cells, choosing_two_cells_in_reverse, choosing_two_cells_of_three, charging_tiers,
    giving_back_late, giving_back_what_others_took, reading_the_clock_early, stepping_back, stepping_far_back,
    sweeping, sweeping_late, idling, idling_for_long,
]

# What a mutant has in place of an expression of cells.h, and the scenario that shows it.
MUTANTS = {
    "an insertion looks at no other cell": ("hg_is_unique(t, key, found->cell)", "1", choosing_two_cells),
    "a pending cell elsewhere is ignored": ("word & HG_COMMITTED || !later || !hg_withdraw(t, cell, word)",
                                            "word & HG_COMMITTED", choosing_two_cells),
    "a second insertion writes the same word": (
        "hg_cell(t->parity, pending + 1)", "hg_cell(t->parity, pending)", inserting_twice),
    "a pending cell is found": ("hg_cell(hg_tag(t, key), now + (uint64_t)gap) & ~HG_COMMITTED",
                               "hg_cell(hg_tag(t, key), now + (uint64_t)gap)", choosing_two_cells),
    "a charge is written over another": (CHARGE, written_over(CHARGE), updating),
    "a charge is tried until it fits": (CHARGE, "hg_insist(found->cell, found->word, word)", updating),
    "a key that evicts owes its own cost only": ("found.kind == HG_VICTIM && found.gap > owed", "0",
                                                 evicting),
    "a refund is written over another": (LOWER, written_over(LOWER), refunding),
    "what was taken is kept": ("!hg_lower(&found, back)", "0", charging_tiers),
    "the clock is not read after the word": ("found.word == charge->seen", "1",
                                             giving_back_what_others_took),
    "what was refilled since is refunded too": ("charge->cost - (int64_t)(now - charge->now)", "charge->cost",
                                                giving_back_late),
    "a time too far ahead is clamped at once": (AHEAD, CLAMPED_AT_ONCE, reading_the_clock_early),
    "a time too far ahead is left": (AHEAD, "0", stepping_back),
    "what was not seen is clamped": ("found.word == seen", CLAMP, reading_the_clock_early),
    "a sweep meanwhile goes unnoticed": ("hg_load(t->mark) == swept", "1", sweeping),
    "after a long idle time only due lines are swept": ("lag >= HG_IDLE", "lag >= HG_IDLE << 2", idling),
    "a time in the distant past is left": ("hg_gap(word, now) < -HG_LONG_PAST",
                                           "hg_gap(word, now) < -(HG_LONG_PAST << 2)", idling_for_long),
    "a faster sweep counts as one of all lines": (MARK, f"{MARK} || 1", sweeping_late),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_protocol(checker, scenario):
    scenario(checker).judge(kills=1)


def test_three_insertions_beside_a_refund(checker):
    """The largest scenario, so without kills."""
    inserting_twice(checker).judge(kills=0)


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_does_is_seen(checker, name):
    scenario = MUTANTS[name][2]
    with checker.mutant(list(MUTANTS).index(name) + 1), pytest.raises(AssertionError):
        scenario(checker).judge(kills=1)
