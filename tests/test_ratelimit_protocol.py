"""The protocol of the cells, model-checked: every interleaving of a few processes, with a kill at every step.

The processes below are the loops of cells.h, one `yield` for each access to shared memory, on a line of two
cells. A cell is (tag, time); (None, 0) was never used. A token is ten units.
"""

import pytest

TOKEN = 10
UNUSED = (None, 0)
LINE = 2
KILLED = "killed"


def survey(tier, tag, now):
    """The cell of a key, or else the one that a new key takes."""
    best, least = None, None
    for at in range(LINE):
        word = yield "load", (tier, at)
        if word[0] == tag:
            return (tier, at), word, word[1] - now, True
        gap = word[1] - now if word != UNUSED else -(10**6)
        if least is None or gap < least:
            best, least = ((tier, at), word), gap
    return *best, least, False


def alone(tier, tag, own):
    for at in range(LINE):
        if (tier, at) != own and (yield "load", (tier, at))[0] == tag:
            return False
    return True


def take(tier, tag, now, burst, cost=1):
    while True:
        at, word, gap, own = yield from survey(tier, tag, now)
        debt = max(0, gap) if own else 0
        owed = debt + cost * TOKEN
        if owed > burst * TOKEN:
            return False
        if not own:
            owed = max(owed, gap)
        written = tag, now + owed
        if not (yield "cas", at, word, written):
            continue
        if own or (yield from alone(tier, tag, at)):
            return True
        if not (yield "cas", at, written, ("nobody", written[1])):
            return True


def give(tier, tag, now, cost=1):
    while True:
        at, word, gap, own = yield from survey(tier, tag, now)
        if not own or gap <= 0:
            return None
        if (yield "cas", at, word, (tag, now + gap - min(gap, cost * TOKEN))):
            return None


def take_all(tag, now, bursts):
    """Charge every tier, and give back what was charged if a later one denies."""
    for tier, burst in enumerate(bursts):
        _, _, gap, own = yield from survey(tier, tag, now)
        if own and max(0, gap) + TOKEN > burst * TOKEN:
            return False
    for tier, burst in enumerate(bursts):
        if not (yield from take(tier, tag, now, burst)):
            for earlier in range(tier):
                yield from give(earlier, tag, now)
            return False
    return True


def resume(program, heard):
    """The next access of a process that has heard `heard`, or its result."""
    process = program()
    try:
        access = next(process)
        for answer in heard:
            access = process.send(answer)
    except StopIteration as end:
        return "done", end.value
    return access


def perform(access, memory):
    kind, at, *rest = access
    cells = dict(memory)
    if kind == "load":
        return cells[at], memory
    if cells[at] != rest[0]:
        return False, memory
    cells[at] = rest[1]
    return True, tuple(sorted(cells.items(), key=lambda cell: cell[0]))


def outcomes(programs, memory, kills):
    """The (results, memory) of every interleaving; a result is None as long as a process runs."""
    memory = tuple(sorted(memory.items()))
    start = (memory, ((),) * len(programs), kills)
    pending, seen = [start], {start}
    while pending:
        memory, heard, kills = pending.pop()
        accesses = [KILLED if h == KILLED else resume(p, h) for p, h in zip(programs, heard, strict=True)]
        results = [KILLED if a == KILLED else a[1] if a[0] == "done" else None for a in accesses]
        yield results, dict(memory)
        for number, access in enumerate(accesses):
            if access == KILLED or access[0] == "done":
                continue
            answer, changed = perform(access, memory)
            steps = [(changed, (*heard[number], answer), kills)]
            if kills:
                steps.append((memory, KILLED, kills - 1))
            for changed, now_heard, left in steps:
                state = changed, (*heard[:number], now_heard, *heard[number + 1 :]), left
                if state not in seen:
                    seen.add(state)
                    pending.append(state)


def finished(results):
    return all(result is not None for result in results)


def owed(memory, tier, tag, now):
    return sum(time - now for (at, _), (owner, time) in memory.items() if at == tier and owner == tag) / TOKEN


@pytest.mark.parametrize(
    "line",
    [
        (UNUSED, UNUSED),
        (("x", 3), UNUSED),
        (("x", 11), ("y", 10)),
        (("x", 95), ("y", 93)),
        (("k", 20), ("y", 5)),
        (("x", 5), ("k", 7)),
    ],
)
@pytest.mark.parametrize("clocks", [(10, 10, 10), (10, 12, 9)])
@pytest.mark.parametrize("kills", [0, 1])
def test_requests_of_one_key(line, clocks, kills):
    """New or known, beside dead cells, cells about to die and cells in use: two tokens, three requests.

    A kill loses one token at most; so may a clock that is behind, and who takes over the debt of another.
    """
    memory = {(0, at): word for at, word in enumerate(line)}
    programs = [lambda now=now: take(0, "k", now, 2) for now in clocks]
    before = max(0, owed(memory, 0, "k", 10))
    exact = len(set(clocks)) == 1 and min(time for _, time in line) < 90
    for results, _ in outcomes(programs, memory, kills):
        allowed = results.count(True)
        assert allowed + before <= 2
        if finished(results) and exact:
            assert allowed + before + results.count(KILLED) >= min(2, 3 - results.count(KILLED))


@pytest.mark.parametrize("line", [(("x", 3), UNUSED), (("x", 11), ("y", 12)), (("x", 95), ("y", 93))])
def test_two_new_requests_beside_a_change_of_another_key(line):
    """The other key is charged, or gets a refund: its cell may become the one that a new key wants."""
    memory = {(0, at): word for at, word in enumerate(line)}
    for other in (lambda: take(0, "x", 10, 9), lambda: give(0, "x", 10, 9)):
        programs = [lambda: take(0, "k", 10, 1), lambda: take(0, "k", 11, 1), other]
        for results, _ in outcomes(programs, memory, 1):
            assert results[:2].count(True) <= 1


@pytest.mark.parametrize("kills", [0, 1])
@pytest.mark.parametrize("line", [(UNUSED, UNUSED), (("k", 15), UNUSED)])
def test_tiers_are_charged_together_or_not_at_all(line, kills):
    """The first tier has room for two, the second for one; who is denied leaves the first as it was."""
    memory = {(tier, at): word for tier in (0, 1) for at, word in enumerate(line)}
    before = owed(memory, 0, "k", 10) if line[0] != UNUSED else 0
    programs = [lambda: take_all("k", 10, (3, 1 + before)), lambda: take_all("k", 10, (3, 1 + before))]
    for results, cells in outcomes(programs, memory, kills):
        assert results.count(True) <= 1
        if finished(results) and not kills:
            charged = max(0, owed(cells, 0, "k", 10))
            assert charged == results.count(True) + before
            assert results.count(True) == 1
