"""Caches of several processes that see each other's purges, and what a purge overtakes."""

import os
import subprocess
import sys

import pytest

from headgate.httpcache import HTTPCache, Request
from headgate.httpcache._purges import RING

pytest.importorskip("fcntl")
HEADERS = [(b"cache-control", b"max-age=60"), (b"cache-tag", b"a,b")]
PURGE = """
import sys
from headgate.httpcache import HTTPCache
cache = HTTPCache(path=sys.argv[1])
print(cache.purge(**eval(sys.argv[2])))
"""


def request(method="GET", path=b"/"):
    return Request(method, "http", path, [(b"host", b"example.com")])


def fill(cache, path=b"/"):
    """A response that may be stored now."""
    lookup = cache.lookup(request(path=path))
    return cache.admit(lookup, request(path=path), 200, HEADERS, cache.now())


def kind(cache, path=b"/"):
    return cache.lookup(request(path=path)).kind


@pytest.fixture
def path(tmp_path):
    return tmp_path / "purges"


@pytest.fixture
def caches(path):
    caches = [HTTPCache(path=path) for _ in range(3)]
    for cache in caches:
        assert fill(cache).store(b"Hello") is not None
    return caches


def purge_elsewhere(path, **options):
    command = [sys.executable, "-c", PURGE, str(path), repr(options)]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("options", [
    {"url": "http://example.com/"}, {"url": "/"}, {"prefix": "http://example.com/"}, {"tag": "b"}])
def test_a_purge_reaches_all(caches, options):
    assert caches[0].purge(**options) == 1
    assert [kind(cache) for cache in caches] == ["miss"] * 3


def test_a_soft_purge_reaches_all(caches):
    caches[0].purge("/", stale=True)
    assert [kind(cache) for cache in caches] == ["revalidate"] * 3


def test_a_purge_of_another_process_wins_over_a_fill(path, caches):
    admission, other = fill(caches[0], b"/a"), fill(caches[1], b"/b")
    purge_elsewhere(path, url="/a")
    assert admission.store(b"Hello") is None and other.store(b"Hello") is not None
    assert kind(caches[0], b"/a") == "miss" and kind(caches[1], b"/b") == "hit"


def test_a_purge_of_another_process_wins_over_a_revalidation(path, caches):
    caches[0].purge("/", stale=True)
    lookup = caches[0].lookup(request())
    purge_elsewhere(path, tag="a")
    validated = caches[0].validated(lookup, request(), [(b"cache-control", b"max-age=60")], caches[0].now())
    assert validated.body == b"Hello" and kind(caches[0]) == "miss"


def test_an_unsafe_request_invalidates_in_all(caches):
    caches[1].invalidate(request("POST"), 204, [])
    assert [kind(cache) for cache in caches] == ["miss"] * 3


def test_an_overflow_of_the_log_purges_everything(caches):
    assert fill(caches[1], b"/kept").store(b"Hello") is not None
    for _ in range(RING // 60_000 + 1):
        caches[0].purge(tag="x" * 60_000)
    assert kind(caches[0]) == "hit"
    assert [kind(cache, path) for cache in caches[1:] for path in (b"/", b"/kept")] == ["miss"] * 4
    assert fill(caches[1]).store(b"Hello") is not None and kind(caches[1]) == "hit"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_processes_that_are_forked_see_each_other(caches):
    parent_reads, child_writes = os.pipe()
    child = os.fork()
    if not child:
        caches[0].purge("/")
        os.write(child_writes, kind(caches[0]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(parent_reads, 10) == b"miss"
    os.close(parent_reads)
    os.close(child_writes)
    assert [kind(cache) for cache in caches] == ["miss"] * 3


def test_caches_without_a_path_are_on_their_own():
    caches = [HTTPCache(), HTTPCache()]
    for cache in caches:
        fill(cache).store(b"Hello")
    caches[0].purge("/")
    assert [kind(cache) for cache in caches] == ["miss", "hit"]
