"""Gate.apply: what changes live, what is refused, and that a document that is refused changes nothing."""

import sys
import threading
from contextlib import contextmanager

import pytest
from clocks import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import headgate.config
from headgate import HeadgateError
from headgate.config import ConfigError, Document
from headgate.config._snapshot import Made

HTTP_CACHE = {"http": {"cache": {"maxsize": "1 MiB"}}}


def with_maxsize(maxsize, **more):
    return {"caches": {"a": {"maxsize": maxsize, **more}}}


# ---- what changes live ----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["lru", "fifo", "lfu", "sieve", "s3fifo", "tinylfu", "random"])
def test_caches_are_resized_with_their_entries(load, policy):
    gate = load(with_maxsize(9, policy=policy))
    cache = gate.caches["a"]
    cache.update({key: key for key in range(9)})
    changes = gate.apply(with_maxsize(99, policy=policy))
    assert str(changes) == "caches.a.maxsize: 9 -> 99"
    assert gate.caches["a"] is cache and cache.maxsize == 99 and set(cache) == set(range(9))
    gate.apply(with_maxsize(4, policy=policy))
    assert len(cache) <= 4 == cache.maxsize
    cache._check()


def test_a_cache_resized_by_hand_stays(load):
    gate = load({**with_maxsize(9), "hotkeys": {"h": {"k": 1}}})
    gate.caches["a"].resize(5)
    assert str(gate.apply(with_maxsize(9))) == "hotkeys.h: removed"
    assert gate.caches["a"].maxsize == 5
    assert not gate.apply(with_maxsize(9)) and str(gate.apply(with_maxsize(9))) == "no changes"


@pytest.mark.parametrize("fields", [{}, {"kind": "address"}, {"strict": True}])
def test_debts_outlive_another_rate(load, clock, fields):
    fields = {**fields, "max_keys": 100}
    gate = load({"limits": {"api": {"rate": "4/h", **fields}}}, clock=clock)
    api = gate.limits["api"]
    assert [api.allow("192.0.2.1") for _ in range(5)] == [True] * 4 + [False]
    gate.apply({"limits": {"api": {"rate": "6/h", **fields}}})
    assert gate.limits["api"] is api
    assert [api.allow("192.0.2.1") for _ in range(3)] == [True, True, False]
    gate.apply({"limits": {"api": {"rate": "1/s; 9/h", **fields}}})
    assert len(api.rates) == 2
    api._check()


def test_a_burst_is_changed_with_its_rate(load, clock):
    gate = load({"limits": {"api": {"rate": "10/s"}}}, clock=clock)
    gate.apply({"limits": {"api": {"rate": "10/s", "burst": 3}}})
    assert gate.limits["api"].rates[0].burst == 3


def test_levels(load, clock):
    def document(user, **more):
        return {"limits": {"api": {"rate": "5/h"}},
                "levels": {"public": {"ip": "api", "user": user, **more}}}

    gate = load(document("2/h"), clock=clock)
    public = gate.levels["public"]
    assert [public.allow(user="ann") for _ in range(3)] == [True, True, False]
    changes = gate.apply(document("3/h", deny={"ip": "10.0.0.0/8"}, exempt={"user": "bob"}))
    assert {change.place for change in changes} == {
        "levels.public.user", "levels.public.deny", "levels.public.exempt"}
    assert [public.allow(user="ann") for _ in range(2)] == [True, False]
    assert not public.allow(ip="10.0.0.1") and all(public.allow(user="bob") for _ in range(9))
    gate.apply(document("3/h", shadow=["user"]))
    assert public.allow(user="ann") and public.allow(ip="10.0.0.1")
    gate.apply(document("3/h"))
    assert not public.allow(user="ann")
    assert [public.allow(user="bob") for _ in range(4)] == [True] * 3 + [False]
    assert gate.levels["public"] is public and public._levels["ip"] is gate.limits["api"]


def test_those_who_wait_for_a_limit_of_a_level_are_woken(load):
    gate = load({"limits": {"api": {"rate": "1/h"}}, "levels": {"public": {"ip": "api"}}})
    public = gate.levels["public"]
    assert public.allow(ip="::1")
    waiting = threading.Thread(target=public.acquire, kwargs={"ip": "::1"})
    waiting.start()
    gate.apply({"limits": {"api": {"rate": "1000/s"}}, "levels": {"public": {"ip": "api"}}})
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.parametrize("fields", [
    {"kind": "ring"}, {"scheme": "nginx"}, {"kind": "rendezvous"}, {"kind": "maglev", "size": 31},
])
def test_nodes_are_replaced(load, twin, fields):
    gate = load({"placements": {"p": {"nodes": ["a", "b"], **fields}}})
    placement = gate.placements["p"]
    gate.apply({"placements": {"p": {"nodes": {"b": 2, "c": 1}, **fields}}})
    assert placement is gate.placements["p"] and placement.weights == {"b": 2, "c": 1}
    other = load({"placements": {"p": {"nodes": {"b": 2, "c": 1}, **fields}}}).placements["p"]
    assert placement.get_many(range(99)) == other.get_many(range(99))


def test_nodes_of_haproxy_are_numbers(load):
    gate = load({"placements": {"p": {"nodes": [1, 2], "scheme": "haproxy"}}})
    gate.apply({"placements": {"p": {"nodes": [2, 3], "scheme": "haproxy"}}})
    assert gate.placements["p"].nodes == (2, 3)


@pytest.mark.parametrize("kind", [
    "round_robin", "weighted_round_robin", "random", "power_of_two", "least_loaded", "peak_ewma", "key_hash",
    "address_hash",
])
def test_servers_come_go_and_drain(load, clock, kind):
    def document(servers, **more):
        return {"balancers": {"b": {"kind": kind, "servers": servers, "seed": 1, **more}}}

    gate = load(document({"a": 1, "b": 1}), clock=clock)
    balancer = gate.balancers["b"]
    pick = balancer.pick("10.0.0.1", exclude=["b"])
    gate.apply(document({"a": 2, "c": 1, "d": 1}, draining=["c"], max_failures=1))
    assert gate.balancers["b"] is balancer and set(balancer.servers) == {"a", "c", "d"}
    records = {record.server: record for record in balancer.records}
    assert records["a"].in_flight == 1 and records["a"].weight == 2 and records["c"].health == "draining"
    pick.done(ok=False)
    assert {record.server: record.health for record in balancer.records}["a"] == "ejected"
    gate.apply(document({"c": 1, "d": 1}, max_failures=1))
    assert {record.health for record in balancer.records} == {"healthy"}
    balancer._check()


def test_hot_keys_of_a_balancer(load, clock):
    def document(k=10, **more):
        ring = {"kind": "key_hash", "servers": [*"abcd"], "hotkeys": "urls", **more}
        return {"balancers": {"b": ring}, "hotkeys": {"urls": {"k": k}, "others": {"k": 5}}}

    gate = load(document(), clock=clock)
    balancer = gate.balancers["b"]
    assert balancer.hotkeys is gate.hotkeys["urls"]
    balancer.hotkeys.add("/", 1000)
    assert len({balancer.get_server("/") for _ in range(60)}) == 2
    assert gate.apply(document(hot_replicas=3)) and gate.balancers["b"] is balancer
    assert len({balancer.get_server("/") for _ in range(99)}) == 3
    balancer.hotkeys.add("other", 9000)
    assert gate.apply(document(hot_replicas=3, hot_share=0.2))
    assert len({balancer.get_server("/") for _ in range(60)}) == 1
    for wrong in document(hotkeys="others"), document(hotkeys=None), document(k=20):
        with pytest.raises(ConfigError, match="cannot change while it is in use"):
            gate.apply(wrong)
    assert balancer.hotkeys is gate.hotkeys["urls"]


SERVER_ORDERS = (["a", "b"], ["b", "a"], ["c", "b", "a"], ["a", "d", "c"], ["d", "a"], ["a", "b", "d"])


@pytest.mark.parametrize(
    "kind", ["power_of_two", "weighted_round_robin", "peak_ewma", "key_hash", "address_hash"])
def test_servers_are_in_the_order_of_the_document(load, kind):
    def document(servers):
        return {"balancers": {"b": {"kind": kind, "servers": servers}}}

    gate = load(document(SERVER_ORDERS[0]))
    balancer = gate.balancers["b"]
    for servers in SERVER_ORDERS[1:]:
        changes = gate.apply(document(servers))
        assert [change.place for change in changes] == ["balancers.b.servers"]
        assert balancer.servers == tuple(servers)
        balancer._check()
        assert not gate.apply(document(servers))


def test_addresses_have_the_servers_of_nginx_after_a_change_of_their_order(load):
    def document(servers):
        return {"balancers": {"b": {"kind": "address_hash", "scheme": "nginx", "servers": servers}}}

    gate, addresses = load(document(SERVER_ORDERS[0])), [f"10.0.{number}.1" for number in range(50)]
    for servers in SERVER_ORDERS[1:]:
        gate.apply(document(servers))
        other = load(document(servers))
        assert (list(map(gate.balancers["b"].get_server, addresses))
                == list(map(other.balancers["b"].get_server, addresses)))


def test_servers_changed_by_hand_come_last_in_order(load):
    def document(*servers):
        return {"balancers": {"b": {"servers": list(servers)}}}

    gate = load(document("a", "b", "c"))
    balancer = gate.balancers["b"]
    balancer.add_server("hand")
    balancer.remove_server("b")
    picked = balancer.pick()
    gate.apply(document("d", "c", "b", "a"))
    assert balancer.servers == ("d", "c", "a", "hand")
    assert sum(record.in_flight for record in balancer.records) == 1
    picked.done()
    assert sum(record.in_flight for record in balancer.records) == 0


def test_servers_changed_by_hand_are_left_alone(load):
    def document(*servers, **more):
        return {"balancers": {"b": {"servers": list(servers), **more}}}

    gate = load(document("a", "b", "c"))
    balancer = gate.balancers["b"]
    balancer.drain_server("a")
    balancer.add_server("x")
    balancer.add_server("d", 5)
    balancer.remove_server("b")
    balancer.remove_server("c")
    gate.apply(document("a", "d", "b", slow_start=1, draining="b"))
    assert {(record.server, record.health, record.weight) for record in balancer.records} == {
        ("a", "draining", 1), ("x", "healthy", 1), ("d", "healthy", 1)}


def test_caches_of_responses(load):
    gate = load({**HTTP_CACHE, "http_caches": {"client": {"maxsize": 1000}}})
    cache, client = gate.http.cache, gate.http_caches["client"]
    changed = {"http": {"cache": {"maxsize": "2 MiB", "default_ttl": 5}}}
    gate.apply({**changed, "http_caches": {"client": {"wait": 1}}})
    assert gate.http.cache is cache and cache.maxsize == 2**21 and client.wait == 1
    gate.apply({"http": {"cache": {"policy": "lru"}}, "http_caches": {"client": {}}})
    assert gate.http.cache is not cache and client.wait == 5
    gate.apply({"http": {"cache": "client"}, "http_caches": {"client": {}}})
    assert gate.http.cache is client


def test_mappings_are_of_one_document(load):
    gate = load(with_maxsize(9))
    before = gate.caches
    gate.apply({"caches": {"b": {"maxsize": 9}}})
    assert list(before) == ["a"] and list(gate.caches) == ["b"]
    before["a"]["x"] = 1
    assert before["a"]["x"] == 1, "what was removed goes on for those who hold it"
    with pytest.raises(TypeError):
        gate.caches["c"] = before["a"]


def test_what_to_apply(load, tmp_path):
    gate = load(with_maxsize("${SIZE}"), env={"SIZE": "5"})
    path = tmp_path / "gate.json"
    path.write_text('{"caches": {"a": {"maxsize": "${SIZE}"}}}')
    assert not gate.apply(path)
    assert gate.apply(path, with_maxsize(6)) and gate.caches["a"].maxsize == 6
    assert gate.apply(path, env={"SIZE": "7"}) and gate.caches["a"].maxsize == 7
    assert gate.apply(headgate.config.read(with_maxsize(8))) and isinstance(gate.document, Document)
    assert gate.reload() and gate.caches["a"].maxsize == 5


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after", "place", "hint"), [
    (with_maxsize(9), with_maxsize(9, policy="lfu"), "$.caches.a.policy", "a2"),
    (with_maxsize(9), with_maxsize(9, ttl=5), "$.caches.a.ttl", "a2"),
    ({"caches": {"a1": {"maxsize": 5}, "a2": {"maxsize": 5}}},
     {"caches": {"a1": {"maxsize": 5, "ttl": 1}, "a2": {"maxsize": 5}}}, "$.caches.a1.ttl", "a3"),
    ({"limits": {"api": {"rate": "1/s"}}}, {"limits": {"api": {"rate": "1/s", "kind": "address"}}},
     "$.limits.api.kind", "api2"),
    ({"limits": {"api": {"rate": "1/s"}}, "stores": {"s": {"url": "redis://10.0.0.1"}}},
     {"limits": {"api": {"rate": "1/s", "store": "s"}}, "stores": {"s": {"url": "redis://10.0.0.1"}}},
     "$.limits.api.kind", "api2"),
    ({"levels": {"p": {"ip": "1/s"}}}, {"levels": {"p": {"ip": "1/s", "user": "1/s"}}},
     "$.levels.p.user", "p2"),
    ({"levels": {"p": {"ip": "1/s", "user": "1/s"}}}, {"levels": {"p": {"user": "2/s"}}},
     "$.levels.p.ip", "p2"),
    ({"hotkeys": {"h": {"k": 5}}}, {"hotkeys": {"h": {"k": 6}}}, "$.hotkeys.h.k", "h2"),
    ({"concurrency": {"w": {}}}, {"concurrency": {"w": {"limit": 5}}}, "$.concurrency.w.limit", "w2"),
])
def test_another_object_needs_another_name(load, before, after, place, hint):
    gate = load({**before, "placements": {"p": {"nodes": ["a"]}}})
    document = gate.document
    with pytest.raises(ConfigError) as caught:
        gate.apply({**after, "placements": {"p": {"nodes": ["b"]}}})
    assert [problem.place for problem in caught.value.errors] == [place]
    assert caught.value.errors[0].message == "cannot change while it is in use"
    assert caught.value.errors[0].hint.endswith(f"give it a new name, such as {hint}")
    assert gate.document is document and gate.placements["p"].nodes == ("a",)


def test_all_refusals_at_once(load):
    def document(rate, **more):
        return {**with_maxsize(9, **more), "limits": {"api": {"rate": rate, "strict": True, "max_keys": 9}}}

    gate = load(document("10/min"))
    with pytest.raises(ConfigError) as caught:
        gate.apply(document("1.5/min", policy="lfu"))
    assert {problem.place for problem in caught.value.errors} == {"$.caches.a.policy", "$.limits.api.rate"}


def test_changes_that_cannot_be_made_are_found_before(load):
    def document(weight, maxsize):
        fields = {"kind": "address_hash", "scheme": "nginx", "servers": {"a": weight}}
        return {"balancers": {"b": fields}, **with_maxsize(maxsize)}

    gate = load(document(1, 9))
    with pytest.raises(ConfigError, match=r"^\$\.balancers\.b: weight must be whole in nginx's scheme"):
        gate.apply(document(1.5, 5))
    assert gate.caches["a"].maxsize == 9 and gate.balancers["b"].records[0].weight == 1


def test_rates_go_back_if_one_fails(load, clock, monkeypatch):
    def document(rate):
        limits = {name: {"rate": rate, "max_keys": 100} for name in "abc"}
        return {"limits": limits, **with_maxsize(len(rate))}

    gate = load(document("5/h"), clock=clock)
    limits = dict(gate.limits)
    assert all(limit.allow("ann", 3) for limit in limits.values())
    from headgate.config._applying import Switch

    do, done = Switch.do, []

    def failing(switch):
        done.append(switch)
        if len(done) == 3:
            raise HeadgateError("path is locked by a process that is stopped, got '/dev/shm/c'")
        do(switch)

    monkeypatch.setattr(Switch, "do", failing)
    with pytest.raises(HeadgateError, match=r"^path is locked"):
        gate.apply(document("50/h"))
    monkeypatch.undo()
    assert [limit.peek("ann").remaining for limit in limits.values()] == [2, 2, 2]
    assert gate.caches["a"].maxsize == 3
    assert gate.apply(document("50/h")) and gate.caches["a"].maxsize == 4


def test_rates_go_back_to_those_that_were_in_force(load, monkeypatch, tmp_path):
    """Another process has applied the next document, with 7/h, before this one fails to."""
    def document(rate):
        limits = {name: {"rate": rate, "max_keys": 100, "path": f"{tmp_path}/{name}"} for name in "abc"}
        limits["c"] |= {"kind": "address", "v4": {"24": 3}}
        return {"limits": {**limits, "d": {"rate": rate, "max_keys": 100}},
                "levels": {"public": {"ip": "a", "user": rate}}}

    gate, other = load(document("5/h")), load(document("5/h"))
    other.apply(document("7/h"))
    gate.limits["d"].reconfigure("8/h")
    gate.levels["public"].reconfigure(user="9/h")
    from headgate.config._applying import Switch

    do, done = Switch.do, []

    def failing(switch):
        done.append(switch)
        do(switch)
        if len(done) == 5:
            raise HeadgateError("path is locked by a process that is stopped, got 'c'")

    monkeypatch.setattr(Switch, "do", failing)
    with pytest.raises(HeadgateError, match=r"^path is locked"):
        gate.apply(document("7/h"))
    assert [limit.rates[0].limit for limit in gate.limits.values()] == [7, 7, 7, 8]
    assert [limit.rates[0].limit for limit in other.limits.values()] == [7, 7, 7, 7]
    assert gate.levels["public"].rates["user"][0].limit == 9


def test_a_limit_that_fails_half_way_goes_back_whole(load, clock, monkeypatch):
    def document(rate):
        return {"limits": {"a": {"kind": "address", "rate": rate, "v4": {"32": 1, "24": 2}, "max_keys": 100}}}

    gate = load(document("5/h"), clock=clock)
    limiter = gate.limits["a"]
    assert limiter.allow("192.0.2.1", 3)
    second = [*limiter._limiters.values()][1]
    reconfigure, calls = limiter.reconfigure, []

    class Half:
        """The limiter, of whose files the second one is locked at first."""

        _changed_rates, rates = limiter._changed_rates, limiter.rates

        def reconfigure(self, rates):
            calls.append(rates)
            if len(calls) == 1:
                next(iter(limiter._limiters.values())).reconfigure(rates)
                raise HeadgateError("path is locked by a process that is stopped, got 'a.x2'")
            reconfigure(rates)

    made = {("limits", "a"): Made(Half())}
    monkeypatch.setattr(gate._snapshot, "made", made)
    with pytest.raises(HeadgateError, match=r"^path is locked"):
        gate.apply(document("50/h"))
    assert limiter.peek("192.0.2.1").remaining == 2 and second.rates[0].limit == 10


@pytest.mark.parametrize(("path", "reported"), [("a", []), ("b", ["path is locked, got 'b'"])])
def test_only_another_failure_is_reported_when_a_limit_goes_back(load, monkeypatch, path, reported):
    gate = load({"limits": {"a": {"rate": "5/h", "max_keys": 9}}})
    files = iter(("a", path))

    class Locked:
        _changed_rates, rates = gate.limits["a"]._changed_rates, gate.limits["a"].rates

        def reconfigure(self, rates):
            raise HeadgateError(f"path is locked, got {next(files)!r}")

    monkeypatch.setattr(gate._snapshot, "made", {("limits", "a"): Made(Locked())})
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: found.append(str(event.exc_value)))
    with pytest.raises(HeadgateError, match=r"^path is locked, got 'a'$"):
        gate.apply({"limits": {"a": {"rate": "6/h", "max_keys": 9}}})
    assert found == reported


def test_applies_are_one_after_the_other(load):
    gate = load(with_maxsize(9))
    errors = []

    def change(sizes):
        try:
            for size in sizes:
                gate.apply(with_maxsize(size))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(range(at, 60, 4),)) for at in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert gate.caches["a"].maxsize == gate.document.sections["caches"]["a"]["maxsize"]


# ---- random documents against a model -------------------------------------------------------


NAMES = st.sampled_from(["a", "b", "c"])


def objects(fields):
    return st.dictionaries(NAMES, fields, max_size=3)


DOCUMENTS = st.fixed_dictionaries({
    "caches": objects(st.fixed_dictionaries({
        "maxsize": st.integers(1, 6), "policy": st.sampled_from(["lru"] * 5 + ["fifo"])})),
    "limits": objects(st.fixed_dictionaries({
        "rate": st.integers(1, 9).map("{}/h".format), "max_keys": st.just(100)})),
    "placements": objects(st.fixed_dictionaries({"nodes": st.sets(NAMES, min_size=1).map(sorted)})),
    "balancers": objects(st.fixed_dictionaries({
        "servers": st.dictionaries(NAMES, st.integers(1, 3), min_size=1, max_size=3),
        "slow_start": st.integers(0, 1)})),
    "http": st.fixed_dictionaries({"retry_after": st.integers(0, 1)}),
})
SECTIONS = ("caches", "limits", "placements", "balancers")


class Applies(RuleBasedStateMachine):
    """Objects, what they hold and what they owe are as the documents that were applied say."""

    @initialize(document=DOCUMENTS)
    def start(self, document):
        self.gate = headgate.config.load(document, clock=FakeClock())
        self.document = document
        self.held = self.objects()
        self.entries = {name: [] for name in document["caches"]}
        self.owed = dict.fromkeys(document["limits"], 0)
        self.followed = self.gate.follow(lambda http: http.retry_after)

    def objects(self):
        return {(section, name): found for section in SECTIONS
                for name, found in getattr(self.gate, section).items()}

    def is_refused(self, document):
        """Whether a cache that is kept has another policy."""
        before = self.document["caches"]
        return any(name in before and before[name]["policy"] != fields["policy"]
                   for name, fields in document["caches"].items())

    @rule(document=DOCUMENTS)
    def apply(self, document):
        if self.is_refused(document):
            with pytest.raises(ConfigError):
                self.gate.apply(document)
            return
        assert bool(self.gate.apply(document)) == (document != self.document)
        self.take(document)

    def take(self, document):
        kept = {key: found for key, found in self.held.items() if key[1] in document[key[0]]}
        self.held = self.objects()
        assert kept.items() <= self.held.items()
        self.entries = {
            name: self.entries.get(name, [])[-fields["maxsize"]:]
            for name, fields in document["caches"].items()}
        self.owed = {
            name: min(self.owed.get(name, 0), 32 * int(fields["rate"][0]))
            for name, fields in document["limits"].items()}
        self.document = document

    @rule(document=DOCUMENTS, broken=st.sampled_from([*SECTIONS, "switch", "follow"]))
    def fail(self, document, broken):
        """A fault in what is prepared changes nothing; if it is not met, the document is applied."""
        with fault(broken):
            try:
                self.gate.apply(document)
            except (ConfigError, OSError):
                return
        self.take(document)

    @rule(name=NAMES, key=st.integers(0, 9))
    def put(self, name, key):
        if name in self.entries:
            self.gate.caches[name][key] = key
            entries = [each for each in self.entries[name] if each != key] + [key]
            if self.document["caches"][name]["policy"] == "fifo" and key in self.entries[name]:
                entries = self.entries[name]
            self.entries[name] = entries[-self.document["caches"][name]["maxsize"]:]

    @rule(name=NAMES)
    def charge(self, name):
        if name in self.owed:
            limit = int(self.document["limits"][name]["rate"][0])
            allowed = self.gate.limits[name].allow("ann")
            assert allowed == (self.owed[name] + 1 <= limit)
            self.owed[name] += allowed

    @invariant()
    def agrees(self):
        gate, document = self.gate, self.document
        assert self.objects() == self.held
        assert self.followed.current == gate.http.retry_after == document["http"]["retry_after"]
        for name, fields in document["caches"].items():
            assert gate.caches[name].maxsize == fields["maxsize"]
            assert sorted(gate.caches[name]) == sorted(self.entries[name])
        for name, fields in document["limits"].items():
            assert str(gate.limits[name].rates[0]) == fields["rate"]
        for name, fields in document["placements"].items():
            assert set(gate.placements[name].nodes) == set(fields["nodes"])
        for name, fields in document["balancers"].items():
            weights = {record.server: record.weight for record in gate.balancers[name].records}
            assert weights == fields["servers"]
            gate.balancers[name]._check()


@contextmanager
def fault(broken):
    """The second object of a section that is made fails, or a rate, or what follows the section http."""
    def failing(original, after):
        calls = []

        def call(*args):
            calls.append(args)
            if len(calls) > after:
                raise OSError("no space")
            return original(*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        if broken == "switch":
            from headgate.config._applying import Switch

            patch.setattr(Switch, "do", failing(Switch.do, 1))
        elif broken == "follow":
            from headgate.config._building import Http

            patch.setattr("headgate.config._building.Http", failing(Http, 0))
        else:
            from headgate.config._building import _MAKERS

            patch.setitem(_MAKERS, broken, failing(_MAKERS[broken], 1))
        yield


def test_random_documents(load, exhaustive):
    steps, examples = (40, 500) if exhaustive else (12, 25)
    run_state_machine_as_test(Applies, settings=settings(stateful_step_count=steps, max_examples=examples))


# ---- limits in files -------------------------------------------------------------------------


def shared(path, rate, **more):
    return {"limits": {"api": {"rate": rate, "max_keys": 100, "path": str(path), **more}}}


@pytest.mark.parametrize("fields", [{}, {"kind": "address", "v4": {"32": 1, "24": 2}}])
def test_the_document_wins_over_the_rate_of_a_file(load, tmp_path, fields):
    first, second = [load(shared(tmp_path / "api", "4/h", **fields)) for _ in range(2)]
    limits = first.limits["api"], second.limits["api"]
    assert limits[0].allow("192.0.2.1", 3) and round(limits[1].peek("192.0.2.1").remaining) == 1
    first.apply(shared(tmp_path / "api", "6/h", **fields))
    assert [round(limit.peek("192.0.2.1").remaining) for limit in limits] == [3, 3], "in all processes"
    assert second.apply(shared(tmp_path / "api", "6/h", **fields)), "which is nothing to do for the file"
    third = load(shared(tmp_path / "api", "9/h", **fields)).limits["api"]
    assert [round(limit.peek("192.0.2.1").remaining) for limit in (*limits, third)] == [6, 6, 6]


def test_another_number_of_tiers_needs_another_file(load, tmp_path):
    gate = load(shared(tmp_path / "api", "4/h"))
    with pytest.raises(ConfigError, match=r"\$\.limits\.api"):
        gate.apply(shared(tmp_path / "api", "4/h; 9/d"))
    with pytest.raises(ConfigError, match=r"\$\.limits\.api"):
        load(shared(tmp_path / "api", "4/h; 9/d"))
