"""Real servers on loopback, started and stopped by the tests.

They run where HEADGATE_SERVERS is set. A test whose server is missing is skipped, or fails where it is
``required``.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from watchdog import PATIENCE

import headgate

PACKAGES = Path(headgate.__file__).parents[1]
"""Where servers find the headgate that is tested, from the source tree or installed."""


def environment():
    """The environment of programs that import headgate."""
    path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def program(name):
    """The path of a program, which may have been installed beside Python."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)])
    found = shutil.which(name, path=path)
    if found is None:
        _missing(name)
    return found


def package(name):
    """Requires a package of Python that servers import."""
    if find_spec(name) is None:
        _missing(name)


def _missing(name):
    report = pytest.fail if os.environ.get("HEADGATE_SERVERS") == "required" else pytest.skip
    report(f"{name} is not installed on this machine")


class Port:
    """A port that is given to no other program before it is released, whether or not a server listens there.

    It stays bound: beside such a socket Linux lets another listen if both have SO_REUSEADDR, as servers do.
    """

    def __init__(self, host="127.0.0.1", number=0):
        self._keeper = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._keeper.bind((host, number))
        self.number = self._keeper.getsockname()[1]
        if sys.platform != "linux":
            self.release()

    def release(self):
        self._keeper.close()


_kept = []


def free_port():
    """A port that is never released."""
    _kept.append(Port())
    return _kept[-1].number


def wait_for(port, process):
    """Returns once something listens at `port`."""
    deadline = time.monotonic() + PATIENCE
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
    """A program that listens at a port of its own; it can die and come back.

    One that does not listen in time is killed.
    """

    def __init__(self, make_command):
        self._port = Port()
        self.port = self._port.number
        self.name = f"127.0.0.1:{self.port}"
        self._command = make_command(self.port)
        self._process = None

    def start(self):
        self._process = self._spawn()
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _spawn(self):
        found = environment()
        found.pop("LD_PRELOAD", None)
        return subprocess.Popen(self._command, env=found)

    def _wait(self):
        wait_for(self.port, self._process)

    @property
    def is_alive(self):
        return self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait()

    def release(self):
        """Give up the port."""
        self._port.release()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *failure):
        self.kill()
        self.release()


class Workers(Server):
    """A server with worker processes, which end with it."""

    def _spawn(self):
        return subprocess.Popen(self._command, start_new_session=True, env=environment())

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def memcached():
    command = [program("memcached"), "-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p"]
    return Server(lambda port: [*command, str(port)])


def configured(name, arguments, folder, configure):
    """A program that reads what `configure` returns for its port from a file in `folder`."""
    command, path = [program(name), *arguments], folder / f"{name}.conf"

    def make_command(port):
        path.write_text(configure(port))
        return [*command, str(path)]

    return Server(make_command)


class Origin:
    """An HTTP server that responds with its own URL and the status `mode`, or breaks as `mode` says.

    ``"silent"`` closes the connection without a response, ``"cut"`` before the end of the body; ``"slow"``
    waits for the event `release`, ``"slow body"`` with the headers sent. ``"digest"`` requires
    authentication with a nonce of its own. `authorizations` lists that header of each request.
    """

    def __init__(self, host="127.0.0.1"):
        self.mode = 200
        self.release = threading.Event()
        self.requests = []
        self.authorizations = []
        self._connections = []
        self._port = Port(host)
        server = _Server6 if ":" in host else ThreadingHTTPServer
        self._server = server((host, self._port.number), partial(_Handler, self))
        self._server.daemon_threads = True
        self.nonce = f"nonce of {self._port.number}"
        self.netloc = f"[{host}]:{self._port.number}" if ":" in host else f"{host}:{self._port.number}"
        self.url = f"http://{self.netloc}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        return self

    def kill(self):
        """Close all connections and refuse new ones."""
        if self._thread.is_alive():
            self.release.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *failure):
        self.kill()
        self._port.release()


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def __init__(self, origin, *arguments):
        self._origin = origin
        super().__init__(*arguments)

    def setup(self):
        super().setup()
        self._origin._connections.append(self.connection)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self):
        origin, mode = self._origin, self._origin.mode
        origin.requests.append((self.command, self.path, self.headers["Host"], self._body()))
        authorization = self.headers["Authorization"]
        origin.authorizations.append(authorization)
        if mode == "digest":
            mode = 200 if f'nonce="{origin.nonce}"' in (authorization or "") else 401
        self.close_connection |= mode in ("silent", "cut")
        if mode == "silent":
            return
        if mode == "slow":
            origin.release.wait(PATIENCE)
        self.send_response(mode if isinstance(mode, int) else 200)
        self.send_header("Content-Length", str(len(origin.url) + (mode == "cut")))
        if mode == 302:
            self.send_header("Location", "/elsewhere")
        if mode == 401:
            self.send_header("WWW-Authenticate", f'Digest realm="here", nonce="{origin.nonce}", qop="auth"')
        self.end_headers()
        if mode == "slow body":
            self.wfile.flush()
            origin.release.wait(PATIENCE)
        self.wfile.write(origin.url.encode())

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *arguments):
        """Say nothing."""
