"""The difference of two documents: every change, where it is, whether it is live, and no secrets."""

import pytest

from headgate.config import diff, read

BASE = {
    "caches": {"pages": {"maxsize": 10, "ttl": "1 min"}, "users": {"maxsize": 5}},
    "limits": {"api": {"rate": "10/s"}, "fleet": {"rate": "1/s", "store": "main"}},
    "levels": {"public": {"ip": "api", "user": "1/s"}},
    "placements": {"shards": {"nodes": {"a": 1}}},
    "stores": {"main": {"url": "redis://:${PASSWORD:-hunter2}@10.0.0.1"}},
    "http": {"limit": "public", "keys": {"ip": "client", "user": "user"}},
}


def changes(overlay, env=(), old_env=()):
    old, new = read(BASE, env=dict(old_env)), read(BASE, overlay, env=dict(env))
    found = diff(old, new)
    assert bool(found) is (old != new)
    return [(change.place, change.old, change.new, change.live) for change in found]


def test_no_change():
    assert changes({}) == []
    assert changes({"caches": {"pages": {"ttl": 60, "maxsize": 1e1}}}) == []
    assert changes({"limits": {"api": {"rate": "10 per s"}}}) == []
    assert changes({"caches": {"pages": {"policy": "lru"}}, "version": 1, "x-a": 1}) == []


@pytest.mark.parametrize(("overlay", "expected"), [
    ({"caches": {"pages": {"maxsize": 20}}}, ("caches.pages.maxsize", "10", "20", True)),
    ({"caches": {"pages": {"ttl": None}}}, ("caches.pages.ttl", "1 min", "", False)),
    ({"caches": {"pages": {"tti": 5}}}, ("caches.pages.tti", "", "5", False)),
    ({"caches": {"pages": {"policy": "tinylfu"}}}, ("caches.pages.policy", "", "tinylfu", False)),
    ({"caches": {"users": None}}, ("caches.users", '{"maxsize": 5}', "", True)),
    ({"caches": {"more": {"maxsize": 1}}}, ("caches.more", "", '{"maxsize": 1}', True)),
    ({"limits": {"api": {"rate": "20/s"}}}, ("limits.api.rate", "10/s", "20/s", True)),
    ({"limits": {"fleet": {"store": None}}}, ("limits.fleet.kind", "redis", "keyed", False)),
    ({"levels": {"public": {"user": "2/s"}}}, ("levels.public.user", "1/s", "2/s", True)),
    ({"levels": {"public": {"user": "api"}}}, ("levels.public.user", "1/s", "api", False)),
    ({"levels": {"public": {"team": "2/s"}}}, ("levels.public.team", "", "2/s", False)),
    ({"placements": {"shards": {"nodes": {"b": 2}}}},
     ("placements.shards.nodes", '{"a": 1}', '{"a": 1, "b": 2}', True)),
    ({"http": {"dry_run": True}}, ("http.dry_run", "", "true", True)),
    ({"stores": {"main": {"timeout": 1}}}, ("stores.main.timeout", "", "1", False)),
])
def test_one_change(overlay, expected):
    assert changes(overlay) == [expected]


def test_several_changes_are_in_the_order_of_the_sections():
    overlay = {"http": None, "caches": {"users": None, "pages": {"maxsize": 1, "ttl": 2}}}
    assert [place for place, *_ in changes(overlay)] == [
        "caches.pages.maxsize", "caches.pages.ttl", "caches.users", "http.limit", "http.keys"]


def test_another_secret_is_a_change_that_is_not_shown():
    url = "redis://:***@10.0.0.1"
    assert changes({}, env={"PASSWORD": "swordfish"}, old_env={"PASSWORD": "hunter2"}) == [
        ("stores.main.url", url, url, False)]


def test_passwords_of_nodes_are_not_shown():
    nodes = {"nodes": {"http://ann:hunter2@10.0.0.1": 2}}
    assert changes({"placements": {"shards": nodes}}) == [
        ("placements.shards.nodes", '{"a": 1}', '{"a": 1, "http://ann:***@10.0.0.1": 2}', True)]
    assert "hunter2" not in str(read({"placements": {"shards": nodes}}).shown("placements", "shards"))
