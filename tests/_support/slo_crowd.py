"""Processes that share an SLO, in a program of its own that may fork: ``slo_crowd.py NAME ARGUMENTS``.

It prints what they counted, in words that the tests read.
"""

import mmap
import os
import random
import signal
import sys
import time

from headgate.cli.twins import twin_module

WORKERS = 4


def counters(count):
    """Words that this process and its children see."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")


def forked(work):
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def shared(twin, path, clock=None):
    return twin_module(twin, "slo").SLO(99, "12 h", path=path, clock=clock)


def together(twin, path, events):
    """Four processes count; time goes on by a slot with every event of any of them."""
    now = counters(1)

    def clock():
        now[0] += 10**8
        return now[0]

    def work(ok):
        slo = shared(twin, path, clock)
        for _ in range(int(events)):
            slo.record(ok)

    for child in [forked(lambda at=at: work(at % 2 == 0)) for at in range(WORKERS)]:
        os.waitpid(child, 0)
    slo = shared(twin, path, clock)
    slo._check()
    print(slo.good, slo.bad, slo.availability())


def killed(twin, path, kills):
    """Four processes count while they are killed and replaced at random, and keep a tally of their own."""
    counts, now = counters(WORKERS), counters(1)

    def clock():
        now[0] += 10**7
        return now[0]

    def work(slot):
        slo = shared(twin, path, clock)
        while True:
            slo.record(False)
            counts[slot] += 1

    def kill(slot):
        os.kill(children[slot], signal.SIGKILL)
        os.waitpid(children[slot], 0)

    chance = random.Random(5)
    children = [forked(lambda at=at: work(at)) for at in range(WORKERS)]
    deaths = WORKERS
    while deaths < int(kills) or min(counts) < 100:
        time.sleep(chance.random() / 200)
        slot = chance.randrange(WORKERS)
        kill(slot)
        children[slot] = forked(lambda at=slot: work(at))
        deaths += 1
    for slot in range(WORKERS):
        kill(slot)
    slo = shared(twin, path, clock)
    slo._check()
    print(deaths, sum(counts), slo.bad, slo.good, slo.availability())


if __name__ == "__main__":
    {"together": together, "killed": killed}[sys.argv[1]](*sys.argv[2:])
