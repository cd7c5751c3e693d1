"""A redis-server on loopback for benchmarks."""

import socket
import subprocess
import time
from contextlib import contextmanager

import pytest


@contextmanager
def redis_server(program):
    """The port of a server that ends with the block; benchmarks are skipped if there is no `program`."""
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([program, "--port", str(port), "--save", "", "--loglevel", "warning"])
    try:
        for _ in range(1000):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait()
