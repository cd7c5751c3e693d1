"""The permits that processes share, model-checked: the compiled ledger's own code in every interleaving of
two processes, with a kill at every step.
"""

import pytest
from interleavings import BLIND, KILLED, built, in_turn

SLOTS = 1, 2, 3
COUNT = 2**32 - 1


@pytest.fixture(scope="session")
def checker(tmp_path_factory):
    return built(tmp_path_factory.mktemp("ledger"), "words")


def permits(words):
    return sum(words.load(slot) for slot in SLOTS)


def take(slot, limit=1):
    """A process that takes a permit and holds it."""
    def take(words):
        return [slot] if words.take(slot, limit, []) else []
    return take


def take_and_give(slot, limit=1):
    """A process that takes a permit and gives it back."""
    def take_and_give(words):
        mark = []
        if words.take(slot, limit, mark):
            words.give(slot, mark)
        return []
    return take_and_give


def recount(words):
    """What every process does now and then."""
    words.recount(lambda: permits(words))
    return []


SCENARIOS = {
    "taking": [take(1), take(2)],
    "taking one of two": [take(1, 2), take(2, 2)],
    "giving": [take_and_give(1), take(2)],
    "counting": [take(1), recount],
    "counting what is given": [take_and_give(1), recount],
    "counting in between": [in_turn(take_and_give(1), take(1)), recount],
}


def judge(checker, scenario, kills):
    """Never are more permits given than there are, and none is lost once they are counted anew."""
    programs = SCENARIOS[scenario]
    limit = 2 if "two" in scenario else 1
    memory = checker.open_words(1 + len(SLOTS))
    for results, after in checker.outcomes(programs, memory, kills=kills):
        held = [slot for result in results if result != KILLED for slot in result]
        killed = [slot for slot, result in zip(SLOTS, results, strict=False) if result == KILLED]

        def settle(words, held=held, killed=killed):
            assert len(held) <= words.load(0) & COUNT
            for slot in killed:
                words.swap(slot, 0)
            recount(words)
            return [words.load(0) & COUNT, [slot for slot in SLOTS if words.load(slot)]]

        assert len(held) <= limit
        assert checker.run(settle, after, 0)[0] == [len(held), sorted(held)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_protocol(checker, scenario):
    judge(checker, scenario, kills=1)


@pytest.mark.parametrize("scenario", ["taking", "counting in between"])
def test_a_swap_that_compares_nothing_is_caught(checker, scenario):
    with checker.mutant(BLIND), pytest.raises(AssertionError):
        judge(checker, scenario, 0)
