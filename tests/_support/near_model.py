"""A server, two clients with near tables, and every order in which their steps can happen.

The server handles commands one by one in cycles, as Redis does: at the end of a cycle the replies on a
tracking connection can be read, and after them the announcements of what was written in the cycle. A client
reads one message at a time. Time goes on by ticks. Each value is written once, so a read tells which write it
saw. States differ in what decides the future, and each is reached by replaying a path on new objects.
"""

from collections import deque

from headgate import LRUCache
from headgate.near import NearSource

KEY = "user:1"
MAX_STALE = 2
TTL = 3
NEVER = 10**9
INF = 10**6
LIMITED = ("tick", "miss", "write", "ping", "connect", "cut", "handle fetch elsewhere")


class Stale(AssertionError):
    """A client read what it must not."""


class Server:
    """One key, its writes, and what it has sent."""

    def __init__(self):
        self.version = 0
        self.ends = {0: NEVER}  # version -> the time at which it was replaced
        self.announced = {}  # client -> announcements of this cycle
        self.outgoing = {}  # client -> replies of this cycle
        self.run_id = "1"

    def write(self, now):
        self.ends[self.version] = now
        self.version += 1
        self.ends[self.version] = NEVER
        for queue in self.announced.values():
            queue.append([KEY])
        return self.version


class Client:
    """A near table, a tracking connection, and a connection for commands."""

    def __init__(self, world, twin, name):
        self.name, self.cache = name, LRUCache(1)
        self.table = twin.near.NearTable(
            self.cache, prefixes=["user:"], ttl=TTL / 1e9, max_stale=MAX_STALE / 1e9, clock=lambda: world.now)
        self.source = world.rules.source(self.table)
        self.connected = self.cut = False
        self.incoming = []  # what the tracking connection has yet to read
        self.ping = False  # a heartbeat that the server has not handled
        self.entry = self.fetch = self.reply = None
        self.write = self.written = None
        self.own = 0  # the last version that this client wrote, and has a reply of
        self.began = None  # when the last fetch began
        self.stored = None  # when that of the entry in the cache began

    def key(self, server, now):
        """What decides the future of this client; times count from now, and no further than they matter."""
        def version_key(version):
            age = max(-1, min(now - server.ends[version], MAX_STALE))
            return age, version < self.own, self.written is not None and version < self.written

        kept, entry, epoch, source = self.cache.peek(KEY), self.entry, self.source.epoch, self.source
        return (
            self.connected, self.cut, *map(str, self.incoming), self.ping, self.fetch, self.write,
            self.reply and (version_key(self.reply[0]), self.reply[1]),
            entry and (entry.is_alive, min(now - self.began, TTL)),
            source._sent is not None and min(now - source._sent, MAX_STALE),
            source._last is not None and min(now - source._last, MAX_STALE),
            epoch and max(epoch.fresh_until - now, 0),
            kept and (version_key(kept.value), kept.is_alive, min(now - self.stored, TTL)),
            kept and kept.epoch is epoch)


class World:
    """Everything, at one moment. `left` says how often each kind of step may still be taken."""

    def __init__(self, twin, rules, start, left):
        self.now, self.rules, self.left = 0, rules, {}
        self.server = Server()
        self.clients = {}
        for name in "ab":
            self.clients[name] = Client(self, twin, name)
        for step in start:
            self.take(step)
        self.left = dict(left)

    def key(self):
        """What decides the future."""
        server = self.server
        return (str(server.announced), str(server.outgoing), *self.left.values(),
                *[client.key(server, self.now) for client in self.clients.values()])

    def steps(self):
        """The names of the steps that can be taken."""
        found = [("tick",)]
        server = self.server
        if any(server.announced.values()) or any(server.outgoing.values()):
            found.append(("cycle",))
        for name, client in self.clients.items():
            if client.fetch == "sent":
                found += [("handle fetch", name), ("handle fetch elsewhere", name)]
            if client.fetch == "handled":
                found.append(("read reply", name))
            elif client.fetch is None:
                found.append(("miss", name))
            if client.write == "sent":
                found.append(("handle write", name))
            elif client.write == "handled":
                found.append(("read written", name))
            else:
                found.append(("write", name))
            if client.ping:
                found.append(("handle ping", name))
            if client.incoming:
                found.append(("read", name))
            elif client.cut:
                found.append(("lost", name))
            if not client.connected:
                found.append(("connect", name))
            elif not client.cut:
                found.append(("cut", name))
                if not client.ping and self.rules.may_ping(client):
                    found.append(("ping", name))
        return [step for step in found if self.left.get(" ".join(step), step[0] not in LIMITED)]

    def take(self, step):
        kind, *names = step
        limit = " ".join(step)
        if self.left.get(limit, INF) < INF:
            self.left[limit] -= 1
        getattr(self, "_" + kind.replace(" ", "_"))(*[self.clients[name] for name in names])

    def judge(self):
        """What each client would read now; raises Stale if it must not."""
        for client in self.clients.values():
            client.table._check()
            version = client.table.peek(KEY)
            if version is None:
                continue
            if client.stored + TTL <= self.now:
                raise Stale(f"version {version}, fetched at {client.stored}, read at {self.now}")
            if self.server.ends[version] <= self.now - MAX_STALE:
                raise Stale(f"version {version} ended at {self.server.ends[version]}, read at {self.now}")
            if version < client.own:
                raise Stale(f"version {version} is older than {client.own}, which this client wrote")

    # ---- time and the server ----------------------------------------------------------------

    def _tick(self):
        self.now += 1

    def _cycle(self):
        server = self.server
        for name, client in self.clients.items():
            if name in server.announced:
                client.incoming += server.outgoing[name] + server.announced[name]
                server.outgoing[name], server.announced[name] = [], []

    def _handle_fetch(self, client):
        client.fetch, client.reply = "handled", (self.server.version, self.server.run_id)

    def _handle_fetch_elsewhere(self, client):
        """A replica that lags behind for ever."""
        client.fetch, client.reply = "handled", (0, "of a replica")

    def _handle_write(self, client):
        client.write, client.written = "handled", self.server.write(self.now)

    def _handle_ping(self, client):
        client.ping = False
        self.server.outgoing[client.name].append("pong")

    # ---- a client's tracking connection -----------------------------------------------------

    def _connect(self, client):
        client.connected = True
        self.server.announced[client.name], self.server.outgoing[client.name] = [], []
        client.source.connected(self.server.run_id)

    def _ping(self, client):
        client.ping = True
        client.source.heartbeat_sent()

    def _read(self, client):
        message = client.incoming.pop(0)
        if message == "pong":
            client.source.heartbeat_answered()
        else:
            client.source.invalidated(message)

    def _cut(self, client):
        """The server's end is gone; the client has yet to notice."""
        client.cut, client.ping = True, False
        del self.server.announced[client.name], self.server.outgoing[client.name]

    def _lost(self, client):
        client.connected = client.cut = False
        client.source.lost()

    # ---- a client's calls -------------------------------------------------------------------

    def _miss(self, client):
        client.entry = client.table.begin(KEY, client.source.epoch)
        client.fetch, client.began = "sent", self.now

    def _read_reply(self, client):
        if self.rules.store(client, *client.reply):
            client.stored = client.began
        client.table.end(client.entry)
        client.entry = client.fetch = client.reply = None

    def _write(self, client):
        client.write = "sent"
        client.table.drop(KEY)

    def _read_written(self, client):
        client.write, client.own = None, max(client.own, client.written)
        self.rules.drop_after(client)


class Rules:
    """The protocol as it is; tests break it."""

    source = NearSource

    def may_ping(self, client):
        return client.source._sent is None

    def store(self, client, version, run_id):
        return client.table.store(client.entry, version, run_id)

    def drop_after(self, client):
        client.table.drop(KEY)


def explore(twin, rules, left, start):
    """Takes every step in every state after `start`; returns how many states there are."""
    known, pending = set(), deque([()])
    while pending:
        path = pending.popleft()
        world = World(twin, rules, start, left)
        try:
            for step in path:
                world.take(step)
            world.judge()
        except Stale as error:
            raise Stale(f"{error} after {', '.join(map(' '.join, path))}") from None
        key = world.key()
        if key not in known:
            known.add(key)
            pending += [(*path, step) for step in world.steps()]
    return len(known)
