"""Every order of what two clients and a server do: misses, announcements, writes, expiry, cut connections.

Rules that are broken on purpose show that the exploration finds what it must.
"""

import pytest
from near_model import INF, Rules, Stale, explore
from twins import Twin, twin_names

from headgate.near import NearSource

HEARTBEAT = [("ping", "a"), ("handle ping", "a"), ("cycle",), ("read", "a")]
FRESH = [("connect", "a"), *HEARTBEAT, *HEARTBEAT]
KEPT = [*FRESH, ("miss", "a"), ("handle fetch", "a"), ("read reply", "a")]
UNHEARD = [*KEPT, ("cut", "a"), ("lost", "a"), ("write", "b"), ("handle write", "b")]
SCENARIOS = {  # the start, how often steps that follow from no other may be taken, and more when exhaustive
    "late announcements": (KEPT, {"ping a": 2, "write b": 1, "tick": 2}, {"ping a": INF, "tick": INF}),
    "a miss overtaken": (FRESH, {"miss a": 2, "write b": 2}, {"ping a": 1, "tick": 2}),
    "own and foreign writes": (KEPT, {"miss a": 1, "write a": 1, "write b": 1}, {"miss a": INF, "ping a": 1}),
    "a cut connection": (
        KEPT, {"connect a": 1, "cut a": 1, "miss a": 1, "ping a": 1, "write b": 1}, {"miss a": 2, "tick": 2}),
    "another server": (
        FRESH, {"miss a": 2, "write b": 1, "handle fetch elsewhere a": 1}, {"ping a": 2, "tick": 1}),
    "two caches": (KEPT, {"connect b": 1, "miss b": 1, "write a": 1}, {"miss a": 1, "write b": 1}),
    "time": ([], {"connect a": 1, "miss a": 1, "ping a": 2, "tick": 1}, {"ping a": INF, "tick": INF}),
}


def explored(twin, rules, name, exhaustive=False):
    start, left, more = SCENARIOS[name]
    return explore(twin, rules, left | more if exhaustive else left, start)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_order_of_steps_shows_a_stale_value(twin, name, exhaustive):
    assert explored(twin, Rules(), name, exhaustive) > 100


class OneHeartbeatIsEnough(NearSource):
    """Trusts the reply to a heartbeat for changes up to that heartbeat."""

    __slots__ = ()

    def heartbeat_answered(self):
        self._last = self._sent
        super().heartbeat_answered()


class KeepsItsEpoch(NearSource):
    """Serves after a reconnection what it had before."""

    __slots__ = ()

    def lost(self):
        pass

    def connected(self, run_id):
        self._sent = self._last = None
        if self.epoch is None:
            super().connected(run_id)


class TokensAtTheReply(Rules):
    """Forgets what was dropped while a fetch was under way."""

    def store(self, client, version, run_id):
        client.table.end(client.entry)
        client.entry = client.table.begin("user:1", client.source.epoch)
        return super().store(client, version, run_id)


class AnyServer(Rules):
    """Stores what any server sends."""

    def store(self, client, version, run_id):
        epoch = client.entry.epoch
        return super().store(client, version, epoch and epoch.run_id)


class NoDropAfterTheReply(Rules):
    """Trusts that the announcement of a write comes before its reply."""

    def drop_after(self, client):
        pass


def with_source(source):
    return type(source.__name__, (Rules,), {"source": source})


@pytest.mark.parametrize(("rules", "start", "left"), [
    (with_source(OneHeartbeatIsEnough), KEPT, {"ping a": 1, "write b": 1, "tick": 2}),
    (with_source(KeepsItsEpoch), UNHEARD, {"connect a": 1, "ping a": 2, "tick": 2}),
    (TokensAtTheReply, FRESH, {"miss a": 1, "write a": 1}),
    (AnyServer, FRESH, {"miss a": 1, "handle fetch elsewhere a": 1, "write a": 1}),
    (NoDropAfterTheReply, KEPT, {"miss a": 1, "write a": 1}),
], ids=lambda given: getattr(given, "__name__", None))
def test_broken_rules_are_found_out(rules, start, left):
    with pytest.raises(Stale, match="version"):
        explore(Twin(twin_names()[0]), rules(), left, start)
