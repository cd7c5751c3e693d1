"""A cluster of three masters and three replicas, and sentinels, on loopback."""

import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain

import redis
from redis_servers import Proxy, RedisServer, server_program, with_ports
from servers import Server
from watchdog import PATIENCE, until

SLOTS = 16384
MASTERS = 3


def masters(client):
    """The ports of the servers that have slots, as a server of the cluster knows them."""
    ranges = client.execute_command("CLUSTER SLOTS")
    if isinstance(ranges, dict):
        return {part["primary"][1] for part in ranges.values()}
    return {part[2][1] for part in ranges}


def port_of_bus(port):
    """That for the others of the cluster."""
    return [("127.0.0.1", port + 10_000)]


class Cluster:
    """Redis servers of which the first three are masters, and each has a replica."""

    def __init__(self, folder):
        self._stack = ExitStack()
        self._folder = folder
        self.servers = []

    def __enter__(self):
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "500", "--repl-diskless-sync-delay",
                   "0", "--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no"]
        with self._stack:
            for number in range(2 * MASTERS):
                home = self._folder / str(number)
                home.mkdir()
                server, (bus,) = with_ports(partial(RedisServer, home, *options), port_of_bus)
                self._stack.callback(bus.release)
                self.servers.append(self._stack.enter_context(server))
            self._join()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *failure):
        self._stack.__exit__(*failure)

    def _join(self):
        clients = [server.client() for server in self.servers]
        for server in self.servers[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port)
        for number in range(MASTERS):
            first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
            clients[number].execute_command("CLUSTER ADDSLOTS", *range(first, last + 1))
        until(lambda: all(client.cluster("info")["cluster_known_nodes"] == "6" for client in clients))
        self.ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        for number in range(MASTERS):
            self._follow(clients[MASTERS + number], self.ids[number])
        until(lambda: all(self._is_whole(client) for client in clients))

    @staticmethod
    def _follow(client, master):
        """Make a server a replica, once it has heard of its master."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(redis.ResponseError):
                client.execute_command("CLUSTER REPLICATE", master)
                return
            time.sleep(0.01)
        raise TimeoutError("the replica does not hear of its master")

    @staticmethod
    def _is_whole(client):
        return client.cluster("info")["cluster_state"] == "ok" and len(masters(client)) == MASTERS

    def until_whole(self):
        """Wait until no master is dead: a replica has taken over from each that was killed."""
        client = self.servers[0].client()
        alive = {server.port for server in self.servers if server.is_alive}
        until(lambda: masters(client) <= alive)

    def client(self):
        return redis.RedisCluster(port=self.servers[0].port, host="127.0.0.1")

    def owner(self, slot):
        """The number of the master that has a slot at first."""
        return slot * MASTERS // SLOTS


@contextmanager
def behind_proxies(cluster):
    """A client of a cluster that reaches each server through a proxy, and the proxies in the same order."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(server.port)) for server in cluster.servers]
        ports = {server.port: proxy.port for server, proxy in zip(cluster.servers, proxies, strict=True)}
        yield stack.enter_context(redis.RedisCluster(
            host="127.0.0.1", port=proxies[0].port,
            address_remap=lambda address: (address[0], ports.get(address[1], address[1])),
        )), proxies


class Sentinels:
    """A master, a replica and three sentinels that watch them."""

    def __init__(self, folder):
        self._stack = ExitStack()
        self._folder = folder

    def __enter__(self):
        with self._stack:
            homes = [self._folder / name for name in ("master", "replica", "s0", "s1", "s2")]
            for home in homes:
                home.mkdir()
            self.master = self._stack.enter_context(RedisServer(homes[0], "--repl-diskless-sync-delay", "0"))
            follow = ["--replicaof", "127.0.0.1", str(self.master.port)]
            self.replica = self._stack.enter_context(RedisServer(homes[1], *follow))
            client = self.replica.client()
            until(lambda: client.info("replication")["master_link_status"] == "up")
            self.sentinels = [self._stack.enter_context(self._sentinel(*each))
                              for each in zip(homes[2:], (300, 3000, 3000), strict=True)]
            watchers = [redis.Redis(port=sentinel.port) for sentinel in self.sentinels]
            for watcher in watchers:
                self._stack.callback(watcher.close)
                self._hasten(watcher)
            until(lambda: all(map(self._sees_all, watchers)))
            self._stack = self._stack.pop_all()
        return self

    @staticmethod
    def _hasten(client):
        """Let a sentinel do each 100 ms what it does each second or two; those before 7.0 cannot."""
        periods = [(f"{name}-period", 100) for name in ("ask", "info", "ping", "publish")]
        with suppress(redis.ResponseError):
            client.execute_command("SENTINEL", "DEBUG", *chain.from_iterable(periods))

    def _sentinel(self, home, patience):
        """One that starts a failover when the master has been silent for `patience` milliseconds.

        If several start one at once they share the votes, and all wait for seconds.
        """
        path = home / "sentinel.conf"
        path.write_text(
            f"bind 127.0.0.1\ndir {home}\nlogfile {home}/log\n"
            f"sentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds main {patience}\nsentinel failover-timeout main 3000\n"
        )
        return Server(lambda port: [server_program(), str(path), "--sentinel", "--port", str(port)])

    @staticmethod
    def _sees_all(client):
        state = client.sentinel_master("main")
        return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 1

    def __exit__(self, *failure):
        self._stack.__exit__(*failure)
