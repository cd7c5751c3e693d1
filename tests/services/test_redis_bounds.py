"""What limits admit beyond their rate when a replica takes over, and when there are two masters."""

import time
from contextlib import ExitStack

import pytest
from faked_time import faked_time
from redis_servers import NEWER, Proxy, RedisServer, server_program
from watchdog import until

from headgate import Rate
from headgate.adapters.redis import RedisRateLimiter

RATE = Rate(50, 1, burst=100)
SECOND, HOUR = 1, 3600


class Pair:
    """A master, a replica that reads it through a proxy and is ahead by `skew` seconds, a limiter of each."""

    def __init__(self, folder, stack, skew):
        homes = [folder / name for name in ("master", "replica")]
        for home in homes:
            home.mkdir()
        path = server_program(NEWER) if skew else None
        self.master = stack.enter_context(RedisServer(homes[0], "--repl-diskless-sync-delay", "0", path=path))
        self._proxy = stack.enter_context(Proxy(self.master.port))
        follow = ["--replicaof", "127.0.0.1", str(self._proxy.port)]
        before = faked_time(folder, f"+{skew}")[0] if skew else ()
        self.replica = stack.enter_context(RedisServer(homes[1], *follow, path=path, before=before))
        stack.callback(self.replica.end)
        client = self.replica.client()
        until(lambda: client.info("replication")["master_link_status"] == "up")
        self.old, self.new = [
            stack.enter_context(RedisRateLimiter(server.client(), RATE, timeout=20))
            for server in (self.master, self.replica)
        ]

    def lag(self):
        """What is written to the master from now on does not reach the replica."""
        client = self.master.client()
        client.set("the last", "write")  # WAIT is for what was written on its own connection, and before
        assert client.wait(1, 20_000) == 1
        self._proxy.delay = lambda: 600

    def promote(self):
        self.replica.client().replicaof("NO", "ONE")


@pytest.fixture
def pair(tmp_path, request):
    with ExitStack() as stack:
        yield Pair(tmp_path, stack, getattr(request, "param", 0))


def taken_for(limiter, seconds):
    """How many requests are allowed within so many seconds."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        count += limiter.allow("ann")
    return count


@pytest.mark.parametrize(("pair", "owed", "lag"), [
    (0, 0, 0.3), (0, 100, 0.3), (0, 60, 0), (SECOND, 100, 0), (HOUR, 0, 0.3)], indirect=["pair"])
def test_a_replica_that_takes_over_admits_what_was_lost_but_no_more_than_a_burst(pair, owed, lag, request):
    """min(burst, what the lost interval admitted + rate * how far its clock is ahead)."""
    skew = request.node.callspec.params["pair"]
    if owed:
        assert pair.old.allow("ann", owed)
    start = time.monotonic()
    remaining = pair.old.peek("ann").remaining
    pair.lag()
    lost = taken_for(pair.old, lag)
    pair.master.kill()
    pair.promote()
    admitted = lost + taken_for(pair.new, 0.1)
    one_server = remaining + RATE.limit * (time.monotonic() - start)
    assert admitted <= one_server + min(RATE.burst, lost + RATE.limit * skew) + 1
    if owed == 0:
        assert admitted >= lost + RATE.burst, "the replica does not know what was lost"


def test_two_masters_admit_the_full_rate_each(pair):
    """Nothing that one of them admits is known to the other."""
    start = time.monotonic()
    assert pair.old.allow("ann", 40)
    pair.lag()
    pair.promote()
    admitted = [0, 0]
    while time.monotonic() < start + 0.5:
        for number, limiter in enumerate((pair.old, pair.new)):
            admitted[number] += limiter.allow("ann")
    elapsed = time.monotonic() - start
    for count in admitted:
        assert 60 <= count <= 60 + 1 + RATE.limit * elapsed
