"""The budgets of the limits, in interleaved rounds: ``python bench/budget_limits.py``."""

import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import limits
import throttled

from headgate.cli.bench.interleave import Candidate, Comparison, Loop, always, compare, empty_loop
from headgate.cli.bench.limiter import MEMORY
from headgate.cli.bench.memory import growth
from headgate.cli.bench.workload import user_id

PLENTY = 10**9
RATE = f"{PLENTY}/day"
TIERS = f"{PLENTY}/day; {PLENTY}/12h; {PLENTY}/6h"
FEW = [user_id(number) for number in range(1_000)]
MANY = [user_id(number) for number in range(100_000)]
KEYS = 1_000_000
ALLOW, CONSUME, CALL = "target.allow(key)", "target.consume()", "target(key)"


def limiter(twin, rate=RATE, max_keys=10_000, path=None):
    return import_module(f"headgate.limit.keyed._{twin}").RateLimiter(rate, max_keys=max_keys, path=path)


def bucket(twin, path=None):
    return import_module(f"headgate.limit.bucket._{twin}").TokenBucket(PLENTY, PLENTY, path=path)


def limits_by(strategy):
    hit = strategy(limits.storage.MemoryStorage()).hit
    item = limits.RateLimitItemPerDay(PLENTY)
    return lambda key: hit(item, key)


def throttled_by(algorithm):
    quota = throttled.rate_limiter.per_day(PLENTY, burst=PLENTY)
    store = throttled.store.MemoryStore(options={"MAX_SIZE": len(MANY)})
    return throttled.Throttled(using=algorithm, quota=quota, store=store).limit


def token_bucket():
    peer = import_module("token_bucket")
    return peer.Limiter(PLENTY, PLENTY, peer.MemoryStorage()).consume


def peers():
    found = {
        "throttled-py GCRA": throttled_by("gcra"),
        "limits fixed window": limits_by(limits.strategies.FixedWindowRateLimiter),
        "limits sliding window": limits_by(limits.strategies.SlidingWindowCounterRateLimiter),
    }
    if find_spec("token_bucket"):
        found["token-bucket"] = token_bucket()
    return {name: (CALL, call) for name, call in found.items()}


def report(title, keys, candidates, rounds):
    """Interleave the statements; print the medians, the empty loop subtracted, and ratios to the first."""
    loops = {name: Loop(statement, keys, always(target)) for name, (statement, target) in candidates.items()}
    comparison = Comparison([Candidate(name, "", loop) for name, loop in loops.items()], empty_loop(keys))
    first, *_ = timings = compare(comparison, rounds, seconds=120)
    cells = [f"{timing.name} {timing.median:.1f} ({timing.over(first).median:.3g}x)" for timing in timings]
    print(f"{title}: {', '.join(cells)}", flush=True)


def at_a_few_keys(folder):
    clock = {"time.monotonic_ns": ("target.monotonic_ns()", time)}
    ours = {
        "TokenBucket.consume": (CONSUME, bucket("compiled")),
        "the same by path=": (CONSUME, bucket("compiled", folder / "bucket")),
        "RateLimiter.allow": (ALLOW, limiter("compiled")),
        "by path=": (ALLOW, limiter("compiled", path=folder / "limiter")),
        "three tiers": (ALLOW, limiter("compiled", TIERS)),
        "three tiers by path=": (ALLOW, limiter("compiled", TIERS, path=folder / "tiers")),
    }
    report("1,000 keys", FEW, clock | ours, 400)


def at_many_keys():
    keys = Random(1).sample(MANY, len(MANY))
    ours = {name: (ALLOW, limiter(name, max_keys=len(MANY))) for name in ("compiled", "pure")}
    report("100,000 keys in random order", keys, peers() | ours, 7)


def pure_beside_peers():
    ours = {
        "pure TokenBucket.consume": (CONSUME, bucket("pure")),
        "pure RateLimiter.allow": (ALLOW, limiter("pure")),
    }
    report("the pure twin, 1,000 keys", FEW, ours | peers(), 25)


def bytes_a_key(rate):
    """The growth of a separate process."""
    command = [sys.executable, __file__, rate]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(rate):
    def filled(max_keys, keys):
        target = limiter("compiled", rate, max_keys)
        for key in keys:
            target.allow(key)
        return target

    return growth(filled, KEYS)


def main():
    print(f"CPython {sys.version.split()[0]}; medians in ns, the empty loop subtracted, ratios to the first")
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        at_a_few_keys(Path(folder))
    at_many_keys()
    pure_beside_peers()
    print(f"bytes a key at {KEYS:,}: one tier {bytes_a_key(RATE):.1f}, three {bytes_a_key(TIERS):.1f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(grown(sys.argv[1]))
    else:
        main()
