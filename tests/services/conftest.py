"""Each HTTP client that has an adapter, and servers for it."""

import os
from contextlib import ExitStack
from functools import partial
from itertools import count

import pytest
from clients import CLIENTS
from redis_clusters import Cluster
from redis_servers import HOSTS, RedisServer, with_ports
from servers import Origin


@pytest.fixture(scope="session", autouse=True)
def servers_are_wanted():
    """These tests take a minute and a half, so only where they are asked for: in CI, and by developers."""
    if not os.environ.get("HEADGATE_SERVERS"):
        pytest.skip("HEADGATE_SERVERS is neither required nor available")


@pytest.fixture(params=CLIENTS)
def http(request):
    return CLIENTS[request.param]()


@pytest.fixture
def origins():
    with ExitStack() as stack:
        yield [stack.enter_context(Origin()) for _ in range(3)]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A Redis server that all tests share, each with keys of its own. It listens at three addresses."""
    folder = tmp_path_factory.mktemp("redis")
    server, kept = with_ports(partial(RedisServer, folder, hosts=("127.0.0.1", *HOSTS)),
                              lambda port: [(host, port) for host in HOSTS])
    with server:
        yield server
    for port in kept:
        port.release()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory):
    """A cluster that tests share, none of which may kill its servers."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def failing_cluster(tmp_path_factory):
    """A cluster of which one test may kill the second master, and one the third."""
    with Cluster(tmp_path_factory.mktemp("failing")) as cluster:
        yield cluster


_prefixes = count()


@pytest.fixture
def prefix():
    """The name of a limit that no other test has."""
    return f"test-{next(_prefixes)}"
