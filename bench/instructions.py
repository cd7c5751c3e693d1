"""Instructions per operation of the compiled twin, counted by valgrind's callgrind.

The counts hardly depend on the load of the machine, so regressions show without noise:

    python bench/instructions.py --save before.json
    python bench/instructions.py --against before.json

Each operation runs a few times and many times in a separate interpreter; the difference, less that
of an empty loop, is divided by the number of operations. Instructions of the kernel are not counted.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from headgate.cli.bench.interleave import Loop, always
from headgate.cli.bench.ring import node_names
from headgate.cli.bench.workload import user_id

FEW, MANY = 2, 7
KEYS = [user_id(number) for number in range(1_000)]
MORE_KEYS = [user_id(number) for number in range(4_000)]
EMPTY = "empty loop"
COLLECTED = re.compile(rb"Collected\s*:\s*(\d+)")


def filled_cache(policy="LRUCache"):
    from headgate.cache import _compiled as caches

    cache = getattr(caches, policy)(len(KEYS))
    cache.update(dict.fromkeys(KEYS, "value"))
    return cache


def ring():
    from headgate.placement._compiled import HashRing

    return HashRing(node_names(100), 160)


def replicas():
    """A function of a key and a number of replicas, in three zones."""
    nodes = ring()
    return partial(nodes.get_nodes, zones={node: at % 3 for at, node in enumerate(nodes)})


def balancer(name):
    from headgate.balance import _compiled as balance

    return getattr(balance, name)(node_names(10))


def hot_hash():
    """A balancer whose key "hot" has two replicas."""
    from headgate.balance._compiled import KeyHash
    from headgate.hotkeys._compiled import HotKeys

    counts = HotKeys(100)
    counts.add("hot", 1_000)
    return KeyHash(node_names(10), hotkeys=counts)


def bucket():
    from headgate.limit.bucket._compiled import TokenBucket

    return TokenBucket(1_000_000, 1_000_000_000)


def limiter():
    """A limiter that never denies."""
    from headgate.limit.keyed._compiled import RateLimiter

    return RateLimiter("1000000000/s", max_keys=len(KEYS))


def levels():
    from headgate import RateLimits

    return RateLimits(user=limiter(), address=limiter())


def memoized(wrap, **options):
    """A function decorated by `wrap`, with the results of all keys cached."""
    from headgate.memoize import _compiled as memoize

    function = getattr(memoize, wrap)(maxsize=len(KEYS), **options)(lambda key: key)
    for key in KEYS:
        function(key)
    return function


def cached_method():
    from headgate.memoize._compiled import cached

    class Reader:
        @cached(maxsize=len(KEYS))
        def read(self, key):
            return key

    reader = Reader()
    for key in KEYS:
        reader.read(key)
    return reader


def hashing():
    from headgate.hashing import _compiled as hashing

    return hashing


OPERATIONS = {
    EMPTY: ("pass", KEYS, lambda: None),
    "dict.get": ("target.get(key)", KEYS, lambda: dict.fromkeys(KEYS, "value")),
    "LRUCache.get, hit": ("target.get(key)", KEYS, filled_cache),
    "LRUCache.get, miss": ("target.get(key)", MORE_KEYS[1_000:], filled_cache),
    "LRUCache put, update": ("target[key] = value", KEYS, filled_cache),
    "LRUCache put that evicts": ("target[key] = value", MORE_KEYS, filled_cache),
    "TinyLFUCache.get, hit": ("target.get(key)", KEYS, lambda: filled_cache("TinyLFUCache")),
    "HashRing.get_node, 100 x 160": ("target.get_node(key)", KEYS, ring),
    "HashRing.get_nodes, 3 of 100": ("target.get_nodes(key, 3)", KEYS, ring),
    "HashRing.get_nodes, 3 zones": ("target(key, 3)", KEYS, replicas),
    "RoundRobin.get_server": ("target.get_server()", KEYS, lambda: balancer("RoundRobin")),
    "PowerOfTwo pick and done": ("target.pick().done()", KEYS, lambda: balancer("PowerOfTwo")),
    "KeyHash.get_server": ("target.get_server(key)", KEYS, lambda: balancer("KeyHash")),
    "KeyHash pick and done": ("target.pick(key).done()", KEYS, lambda: balancer("KeyHash")),
    "KeyHash pick, hot key": ("target.pick('hot').done()", KEYS, hot_hash),
    "time.monotonic_ns": ("target.monotonic_ns()", KEYS, lambda: time),
    "TokenBucket.consume": ("target.consume()", KEYS, bucket),
    "RateLimiter.allow": ("target.allow(key)", KEYS, limiter),
    "RateLimits.allow, two levels": ("target.allow(user=key, address=key)", KEYS, levels),
    "RateLimits.reserve, two levels": ("target.reserve(user=key, address=key)", KEYS, levels),
    "lru_cache, hit": ("target(key)", KEYS, lambda: memoized("lru_cache")),
    "cached, hit": ("target(key)", KEYS, lambda: memoized("cached")),
    "cached with a ttl, hit": ("target(key)", KEYS, lambda: memoized("cached", ttl=60)),
    "cached method, hit": ("target.read(key)", KEYS, cached_method),
    "xxh64 of a user id": ("target.xxh64(key)", KEYS, hashing),
}


def run(name, times):
    """Run in the child under valgrind."""
    statement, keys, make = OPERATIONS[name]
    loop = Loop(statement, keys, always(make()))
    for _ in range(times):
        loop()


def total(name, times):
    command = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
        sys.executable, __file__, "--child", name, str(times),
    ]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    output = subprocess.run(command, env=environment, check=True, stderr=subprocess.PIPE).stderr
    return int(COLLECTED.search(output)[1])


def per_operation(name):
    keys = OPERATIONS[name][1]
    return (total(name, MANY) - total(name, FEW)) / (len(keys) * (MANY - FEW))


def count():
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(OPERATIONS, pool.map(per_operation, OPERATIONS), strict=True))
    empty = counts.pop(EMPTY)
    return {name: instructions - empty for name, instructions in counts.items()}


def show(counts, before):
    for name, instructions in counts.items():
        change = f"  {instructions / before[name] - 1:+.1%}" if name in before else ""
        print(f"{name:<30}{instructions:>8.0f}{change}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the counts as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with saved counts")
    parser.add_argument("--tolerance", type=float, default=2.0, metavar="PERCENT", help="rise that fails")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run(args.child[0], int(args.child[1]))
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    before = json.loads(args.against.read_text()) if args.against else {}
    counts = count()
    show(counts, before)
    if args.save:
        args.save.write_text(json.dumps(counts, indent=1) + "\n")
    limit = 1 + args.tolerance / 100
    risen = [name for name in counts if name in before and counts[name] > before[name] * limit]
    return f"risen by more than {args.tolerance:g}%: {', '.join(risen)}" if risen else 0


if __name__ == "__main__":
    sys.exit(main())
