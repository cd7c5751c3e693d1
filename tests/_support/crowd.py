"""Processes that share a limiter, in a program of its own that may fork: ``crowd.py NAME ARGUMENTS``.

It prints what they were allowed, in words that the tests read.
"""

import mmap
import os
import random
import signal
import sys
import threading
import time
from bisect import bisect_left
from functools import partial
from pathlib import Path

from headgate.cli.twins import twin_module
from headgate.limit import Rate, _files

MAX_KEYS = 400_000
WORKERS = 4


_files.urandom = bytes
"""Keys are hashed alike in every run: of ten thousand two share a tag, and a debt, in one of thousands."""


def counters(count):
    """Words that this process and its children see."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")


def limiter(twin, path, rate, **options):
    return twin_module(twin, "keyed").RateLimiter(rate, path=path, **options)


def forked(work):
    """The pid of a child that does `work` and goes without a trace."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def standing():
    return 0


def of_a_key(twin, path, burst):
    return partial(limiter(twin, path, f"{burst}/h", max_keys=100, clock=standing).allow, "ann")


def of_a_log(twin, path, burst):
    return partial(limiter(twin, path, f"{burst}/h", max_keys=4, strict=True, clock=standing).allow, "ann")


def of_a_bucket(twin, path, burst):
    return twin_module(twin, "bucket").TokenBucket(int(burst), 1, path=path, clock=standing).consume


def together(make, twin, path, burst, decisions):
    """Four processes of two threads request the same; the clock does not advance."""
    counts = counters(2 * WORKERS)

    def ask(slot):
        allow = make(twin, path, burst)
        allowed = 0
        for _ in range(int(decisions) // len(counts)):
            if allow():
                allowed += 1
        counts[slot] = allowed

    def work(slots):
        threads = [threading.Thread(target=ask, args=(slot,)) for slot in slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = [forked(lambda at=at: work((2 * at, 2 * at + 1))) for at in range(WORKERS)]
    for child in children:
        os.waitpid(child, 0)
    print(*counts)


def timed(idea, twin, path, rate, burst, seconds):
    """Four processes ask for as much as they can while the clock runs: admitted, and the most that may be."""
    counts = counters(WORKERS)

    def make():
        if idea == "bucket":
            return twin_module(twin, "bucket").TokenBucket(int(burst), int(rate), path=path).consume
        return partial(limiter(twin, path, f"{rate}/s, burst {burst}", max_keys=100).allow, "ann")

    def ask(slot, end):
        allow = make()
        while True:
            for _ in range(100):
                if allow():
                    counts[slot] += 1
            if time.monotonic_ns() >= end:
                break

    make()  # what is imported late is imported now, so that the children are quick
    start = time.monotonic_ns()
    end = start + round(float(seconds) * 1e9)
    for child in [forked(lambda slot=slot: ask(slot, end)) for slot in range(WORKERS)]:
        os.waitpid(child, 0)
    elapsed = time.monotonic_ns() - start
    print(sum(counts), int(burst) + elapsed * int(rate) // 10**9 + 1)


class Watch:
    """The clock, and what it was when it was last read."""

    now = 0

    def __call__(self):
        self.now = time.monotonic_ns()
        return self.now


def windows(twin, path, limit, period_ms, wanted):
    """Four processes fill windows of a strict limit, so many of them: the most in any."""
    enough = int(limit) * int(wanted)
    counts, admitted = counters(WORKERS), counters(WORKERS * enough)

    def ask(slot):
        watch = Watch()
        allow = limiter(twin, path, f"{limit}/{period_ms}ms", max_keys=4, strict=True, clock=watch).allow
        while sum(counts) < enough:
            if allow("ann"):
                admitted[slot * enough + counts[slot]] = watch.now
                counts[slot] += 1

    for child in [forked(lambda slot=slot: ask(slot)) for slot in range(WORKERS)]:
        os.waitpid(child, 0)
    times = sorted(filter(None, admitted))
    period = int(period_ms) * 10**6
    print(max(bisect_left(times, first + period) - at for at, first in enumerate(times)))


def rested(twin, path, rounds):
    """After hours of silence four processes ask at once, and all sweep the table: what each round admits."""
    counts = counters(WORKERS * int(rounds))
    begun, done = counters(1), counters(WORKERS)

    def ask(slot):
        allow = limiter(twin, path, "20/s", max_keys=MAX_KEYS, clock=lambda: begun[0] * 7200 * 10**9).allow
        for round_ in range(int(rounds)):
            done[slot] = round_ + 1
            while begun[0] <= round_:
                time.sleep(0)
            counts[slot * int(rounds) + round_] = sum(allow("ann") for _ in range(20))

    children = [forked(lambda slot=slot: ask(slot)) for slot in range(WORKERS)]
    for round_ in range(1, int(rounds) + 1):
        while min(done) < round_:
            time.sleep(0)
        begun[0] = round_
    for child in children:
        os.waitpid(child, 0)
    print(*[sum(counts[round_ :: int(rounds)]) for round_ in range(int(rounds))])


def killed(twin, path, rate, kills, max_keys="400000", strict=""):
    """Four processes take all that there is of key after key, while they are killed and replaced at random.

    They count what they took after they took it, so a kill makes the count at most one too low.
    """
    most_keys = int(max_keys) // 2
    counts = counters(WORKERS * most_keys)
    progress = counters(WORKERS)
    options = {"max_keys": int(max_keys), "strict": bool(strict)}

    def drain(slot, keys):
        allow = limiter(twin, path, rate, **options).allow
        for key in keys:
            while allow(key):
                counts[slot * most_keys + key] += 1
            progress[slot] = key

    def work(slot):
        drain(slot, range(max(progress), most_keys))
        signal.pause()

    def start(slot):
        return forked(lambda: work(slot))

    def kill(slot):
        os.kill(children[slot], signal.SIGKILL)
        os.waitpid(children[slot], 0)

    limiter(twin, None, rate, **options)  # what is imported late is imported now: the children are quick
    chance = random.Random(7)
    children = [start(slot) for slot in range(WORKERS)]
    deaths = WORKERS
    while deaths < int(kills) or max(progress) < 2:
        time.sleep(chance.random() / 200)
        slot = chance.randrange(WORKERS)
        kill(slot)
        children[slot] = start(slot)
        deaths += 1
    for slot in range(WORKERS):
        kill(slot)
    keys = max(progress) + 1
    drain(0, range(keys))
    totals = [sum(counts[slot * most_keys + key] for slot in range(WORKERS)) for key in range(keys)]
    survivor = limiter(twin, path, rate, **options)
    survivor._check()
    burst = min(tier.burst for tier in survivor.rates)
    afterwards = sum(survivor.allow("new") for _ in range(2 * burst))
    print(deaths, keys, max(totals), keys * burst - sum(totals), survivor.evictions, afterwards)


def switched(twin, path, switches, strict):
    """Four processes use a key up while others set its rate, one after another; some of each are killed.

    Prints how many requests were allowed, how many the rates of the time allow, and the kills.
    """
    chance, strict = random.Random(3), strict == "1"
    rates = [(50, 0.1), (20, 0.1), (20, 0.05), (100, 0.2)]
    options = {"max_keys": 8, "strict": strict, "on_mismatch": "adopt"}
    limiters = [limiter(twin, path, [Rate(*rates[0])], **options) for _ in range(WORKERS)]
    counts = counters(WORKERS)
    kills, integral, pace = 0, 0.0, 500

    def work(slot):
        signal.alarm(60)
        while True:
            if limiters[slot].allow("ann"):
                counts[slot] += 1
            else:
                time.sleep(0.001)

    def switch(turn):
        signal.alarm(60)
        limiter(twin, path, [Rate(*rates[0])], **options).reconfigure([Rate(*rates[turn % len(rates)])])

    workers = [forked(partial(work, slot)) for slot in range(WORKERS)]
    before = time.monotonic()
    for turn in range(int(switches)):
        child = forked(partial(switch, turn))
        if turn % 3 == 0:
            time.sleep(chance.random() / 100)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += status == signal.SIGKILL
        limit, period = rates[turn % len(rates)]
        now, new = time.monotonic(), limit / period
        integral += (now - before) * max(pace, new)
        before, pace = now, max(pace, new) if status else new
        if turn % 10 == 0:
            os.kill(workers[turn // 10 % WORKERS], signal.SIGKILL)
            os.waitpid(workers[turn // 10 % WORKERS], 0)
            workers[turn // 10 % WORKERS] = forked(partial(work, turn // 10 % WORKERS))
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    integral += (time.monotonic() - before) * pace
    limiters[0].reconfigure([Rate(*rates[0])])
    limiters[0]._check()
    print(sum(counts), max(limit for limit, _ in rates) * (2 if strict else 1) + integral, kills)


SWITCHING = {"_files", "_generations", "_switching", "_table", "_log"}


def killed_at_lines(twin, folder, stride):
    """Processes that set a rate are killed at one line after another, each `stride` lines later; the rate,
    what a key has then, and what it has when the rate was set once more.
    """
    def child(path, line):
        other = limiter(twin, path, "10/h", max_keys=100, clock=standing)
        left = line

        def trace(frame, *_):
            nonlocal left
            if Path(frame.f_code.co_filename).stem not in SWITCHING:
                return None
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        other.reconfigure("20/h")

    line, alive = 1, False
    while not alive:
        path = f"{folder}/{line}"
        one = limiter(twin, path, "10/h", max_keys=100, clock=standing)
        one.allow("ann", 8)
        alive = os.waitpid(forked(partial(child, path, line)), 0)[1] == 0
        rate, remaining = one.rates[0].limit, one.peek("ann").remaining
        one.reconfigure("40/h")
        one._check()
        print(rate, remaining, one.peek("ann").remaining)
        os.remove(path)
        line += int(stride) * (1 if rate == 10 else 9)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    programs = {
        "key": partial(together, of_a_key),
        "log": partial(together, of_a_log),
        "bucket": partial(together, of_a_bucket),
        "windows": windows,
        "timed-key": partial(timed, "keyed"),
        "timed-bucket": partial(timed, "bucket"),
        "rested": rested,
        "killed": killed,
        "switched": switched,
        "killed-at-lines": killed_at_lines,
    }
    programs[name](*arguments)
