"""Documents of configuration for tests: one that names everything, and damaged ones."""

FULL = """\
# yaml-language-server: $schema=headgate.schema.json
version: 1
x-timeouts: &soon 250 ms
caches:
  sessions: {policy: lru, maxsize: 10000, ttl: 15 min, tti: 60, jitter: 0.1, seed: 7}
  pages: {policy: tinylfu, maxsize: 64 MiB, weigh: bytes}
near:
  users: {store: main, prefixes: ["user:", "team:"], ttl: 60, max_stale: 2, heartbeat: *soon, maxsize: 1000}
limits:
  api: {rate: 10/s; 100/min, max_keys: 1e5, path: /dev/shm/api.limit, mode: "0600", on_full: deny}
  local: {rate: "100/s, burst 200", strict: false}
  networks: {kind: address, rate: 5/s, v4: {32: 1, 24: 4}, v6: [64, 48]}
  fleet: {rate: 1000/min, store: main, lease: 10, lease_ttl: 1 s, prefix: fleet}
levels:
  public:
    ip: api
    user: 100/min; 1000/h
    shadow: user
    deny: {ip: [192.0.2.0/24]}
    exempt: {ip: 10.0.0.0/8}
  everywhere: {store: main, ip: 10/s, prefix: "{everywhere}"}
buckets:
  login: {capacity: 5, refill_rate: 0.5, on_mismatch: adopt, path: /dev/shm/login}
throttles:
  orders: {k: 2, window: 2 min}
placements:
  shards: {kind: ring, scheme: libmemcached, nodes: {a: 1, b: 2}, replicas: 100}
  backends: {scheme: haproxy, nodes: [1, 2, 3]}
  weighted: {kind: rendezvous, nodes: [a, b], seed: 5}
  table: {kind: maglev, nodes: {a: 1, b: 0}, size: 251}
  loads: {kind: bounded, placement: shards, c: 1.5}
balancers:
  orders:
    kind: peak_ewma
    servers: ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]
    draining: "http://10.0.0.2:8080"
    slow_start: 30 s
    max_failures: never
    success_rate: 0.5
    ejection_time: 1 min
    max_ejected: 0.3
    panic_threshold: 0
    seed: 1
  users:
    kind: key_hash
    placement: maglev
    servers: {a: 1, b: 2.5}
    hotkeys: users
    hot_replicas: 3
    hot_share: 0.02
  clients: {kind: address_hash, scheme: nginx, servers: {a: 1, b: 2}}
retry_budgets:
  orders: {share: 0.1, per_second: 5, window: 10 s}
concurrency:
  workers:
    algorithm: aimd
    limit: 30
    min_limit: 2
    max_limit: 200
    max_latency: 500 ms
    priorities: {user: 1, batch: 0.5}
    path: /dev/shm/workers
objectives:
  checkout:
    target: 99.9
    window: 30 d
    latency: 250 ms
    min_events: 10
    path: /var/lib/checkout.slo
    rules: [{burn: 14.4, long: 1 h, short: 5 min, severity: page}]
hotkeys:
  users: {k: 100, half_life: 5 min}
http_caches:
  upstream: {maxsize: 16 MiB, shared: false, default_ttl: 0, tag_headers: cache-tag, policy: s3fifo}
stores:
  main:
    url: ${REDIS_URL:-redis://127.0.0.1:6379/0}
    on_error: local
    fallback: local
    timeout: *soon
    package: redis
  elected: {kind: sentinel, url: "redis://mymaster/0", sentinels: ["10.0.0.1:26379", "10.0.0.2:26379"]}
  shared: {kind: cluster, url: "redis://:${SECRET:-none}@10.0.0.1", on_error: deny}
http:
  limit: public
  keys: {ip: client, user: header x-user}
  trusted: [10.0.0.0/8, unix]
  v6: 56
  cost: 1
  exempt: [/healthz, /static/*]
  headers: none
  dry_run: false
  shed: workers
  priority: header x-priority
  shed_exempt: /metrics
  retry_after: 2
  websockets: true
  cache: {maxsize: 64 MiB, max_object: 1 MiB, stale_if_error: 1 d}
  cache_exempt: []
"""
"""Every section, every field of most, and every kind of object."""


def damaged(tree, random):
    """A copy of a tree in which something is replaced, removed, renamed or put elsewhere."""
    tree = _copy(tree)
    for _ in range(random.randint(1, 3)):
        holder, key = random.choice(list(_places(tree)))
        _DAMAGES[random.randrange(len(_DAMAGES))](tree, holder, key, random)
    return tree


def damaged_text(text, random):
    """A text in which a few characters are removed, doubled, changed or moved."""
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(text)), random.choice((1, 1, 1, 2, 10, 200))
        piece = text[at:at + length]
        text = text[:at] + random.choice(("", piece * 2, random.choice(_CHARACTERS))) + text[at + length:]
        if random.random() < 0.2:
            to = random.randrange(len(text) + 1)
            text = text[:to] + piece + text[to:]
    return text


_CHARACTERS = [
    *"{}[]:,#&*!|>'\"%@`-?~ \t\n\r0129aZ_$\\/.\0\x1b\u2028é☃😀",
    "${", "}", "$$", "&a ", "*a", "<<: ", "!!int ", "---\n", "...\n", "- ", "? ",
]
_JUNK = [
    None, True, False, 0, -1, 1, 10**30, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", " ", "\n",
    "x", "10/s", "api", "main", "5 min", "64 MiB", "-1 B", "9" * 5000, "${X}", "${Y:-}", "$",
    "$$", "${file:/}", "${file:/dev/null}", "${file:\0}", "header", "header \xff", "client x", "redis://:p@h",
    "\x00", "é", "://", "1e999 s", "10/s;" * 9, "0/s", "nan/s", "0x10", [], {}, [None], [[]], [{}], {"": 1},
    {"a": None}, {"x": {"y": 1}}, ["a", "a"], [1, 2], {"1": 2},
]


def _places(tree):
    """Every place in a tree: what holds it, and its key or number there."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _replace(tree, holder, key, random):
    holder[key] = random.choice(_JUNK)


def _remove(tree, holder, key, random):
    del holder[key]


def _rename(tree, holder, key, random):
    if isinstance(holder, dict):
        names = [*"aZ_$", "x-y", "version", "$schema", "include", f"{key}s", str(key)[1:], *holder]
        holder[random.choice(names)] = holder.pop(key)


def _move(tree, holder, key, random):
    there, place = random.choice(list(_places(tree)))
    there[place] = _copy(holder[key])


_DAMAGES = (_replace, _remove, _rename, _move)


def _copy(tree):
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree
