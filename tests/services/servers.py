"""Real servers on loopback, started and stopped by the tests."""

import shutil
import socket
import subprocess
import time

import pytest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    """Returns once something listens at `port`."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError(f"{process.args[0]} does not listen at port {port}")


class Server:
    """A program that listens at a port of its own; it can die and come back."""

    def __init__(self, make_command):
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self._command = make_command(self.port)
        self._process = None

    def start(self):
        self._process = subprocess.Popen(self._command)
        wait_for(self.port, self._process)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *failure):
        self.kill()


def memcached():
    if shutil.which("memcached") is None:
        pytest.skip("memcached is not installed on this machine")
    return Server(lambda port: ["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"])
