"""The whole edge on loopback for half a minute, two of its processes killed under load, and what that costs.

    python examples/edge/demo.py                  # or: make edge
    python examples/edge/demo.py --compare        # beside nginx, Varnish and the pure twin, one cache each

Needs nginx and redis-server, for --compare varnishd. Ends by itself, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import yaml

from headgate import nines

HERE = Path(__file__).parent
CLASSES = 200
SMALLEST, LARGEST = 1_000, 1_000_000
HOST = "127.0.0.1"

ORIGIN = """
daemon off; pid {folder}/origin{port}.pid; worker_processes 1; error_log {folder}/origin{port}.err;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/origin{port}.log; default_type text/plain; {temporary} sendfile on;
    server {{
        listen 127.0.0.1:{port} backlog=1024; keepalive_requests 1000000;
        location ~ ^/page/\\d+/(\\d+)$ {{
            alias {folder}/class$1; add_header Cache-Control max-age=60; add_header Cache-Tag class-$1;
        }}
        location = /health {{ access_log off; return 204; }}
        location /orders {{ return 201 "ordered\\n"; }}
    }}
}}
"""
CACHE = """
daemon off; pid {folder}/cache.pid; worker_processes 1; error_log {folder}/cache.err;
events {{ worker_connections 4096; }}
http {{
    access_log off; {temporary}
    proxy_cache_path {folder}/cache keys_zone=pages:16m max_size=64m;
    upstream origins {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024; keepalive_requests 1000000;
        location / {{
            proxy_pass http://origins; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_cache pages; proxy_cache_lock on; proxy_cache_methods GET HEAD;
        }}
    }}
}}
"""
VCL = """
vcl 4.1;
import directors;
backend one {{ .host = "127.0.0.1"; .port = "{one}"; }}
backend two {{ .host = "127.0.0.1"; .port = "{two}"; }}
sub vcl_init {{ new origins = directors.round_robin(); origins.add_backend(one); origins.add_backend(two); }}
sub vcl_recv {{ set req.backend_hint = origins.backend(); }}
"""


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Process:
    """A program with the processes that it starts, which listens at a port."""

    def __init__(self, name: str, port: int, *command: str, **environment: str) -> None:
        self.name, self.port = name, port
        log = subprocess.DEVNULL if name != "edge" else None
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, start_new_session=True, stdout=log, stderr=log
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            time.sleep(0.02)
        self.kill()
        raise SystemExit(f"{self.name} does not listen at port {self.port}")

    def cpu(self) -> float:
        """The seconds of all its processes."""
        seconds = 0.0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._process.pid:
                    seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return seconds

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Site:
    """Origins, Redis, and whatever is put in front of them; all in one folder, which goes with it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
        self.files = self._write_files()
        self.redis = self.start(
            "redis-server",
            free_port(),
            "redis-server",
            "--save",
            "",
            "--bind",
            HOST,
            "--dir",
            str(self.folder),
            "--port",
        )
        self.origins = [self._origin() for _ in range(2)]

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start(self, name: str, port: int, *command: str, **environment: str) -> Process:
        """A program that ends with the site. Its port is its last argument."""
        if shutil.which(command[0]) is None:
            raise SystemExit(f"{command[0]} is needed: apt install nginx-light redis-server varnish")
        process = Process(name, port, *command, str(port), **environment)
        self._stack.callback(process.kill)
        return process

    def _write_files(self) -> list[str]:
        """Bodies of log-normal sizes, at even quantiles; bytes that compress badly, as images."""
        draw, files = random.Random(1), []
        sizes = sorted(
            int(min(max(draw.lognormvariate(9.2, 1.3), SMALLEST), LARGEST)) for _ in range(CLASSES)
        )
        for number, size in enumerate(sizes):
            path = self.folder / f"class{number}"
            path.write_bytes(draw.randbytes(size))
            files.append(str(path))
        (self.folder / "classes.json").write_text(json.dumps(files))
        os.chmod(self.folder, 0o755)
        return files

    def nginx(self, template: str, name: str, **values: Any) -> Process:
        """An nginx with a configuration."""
        port = free_port()
        temporary = " ".join(
            f"{kind}_temp_path {self.folder}/{kind}{port};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = self.folder / f"{name}{port}.conf"
        path.write_text(template.format(folder=self.folder, port=port, temporary=temporary, **values))
        process = Process(name, port, "nginx", "-c", str(path), "-e", f"{self.folder}/nginx.err")
        self._stack.callback(process.kill)
        return process

    def _origin(self) -> Process:
        return self.nginx(ORIGIN, "origin")

    def edge(
        self, pop: str, *options: str, made: dict[str, Any] | None = None, **environment: str
    ) -> Process:
        """A point of presence, or a parent, with a document of its own or that of the example."""
        path = self.folder / f"{pop}.yaml"
        path.write_text(yaml.safe_dump(self._document() if made is None else made))
        command = [
            sys.executable,
            str(HERE / "edge.py"),
            "--config",
            str(path),
            "--pop",
            pop,
            "--no-log",
            *options,
        ]
        return self.start(pop, free_port(), *command, "--port", EDGE_RUN=str(self.folder), **environment)

    def _document(self) -> dict[str, Any]:
        made = yaml.safe_load((HERE / "edge.yaml").read_text())
        made["balancers"]["origins"]["servers"] = [f"http://{HOST}:{origin.port}" for origin in self.origins]
        made["stores"]["redis"]["url"] = f"redis://{HOST}:{self.redis.port}/0"
        made["levels"]["public"]["ip"] = "60/s; 3000/min"
        return made

    def varnish(self, vcl: Path) -> Process:
        """A Varnish with a configuration."""
        port = free_port()
        process = Process(
            "varnish",
            port,
            "varnishd",
            "-F",
            "-a",
            f"{HOST}:{port}",
            "-f",
            str(vcl),
            "-n",
            str(self.folder / f"varnish{port}"),
            "-s",
            "malloc,64m",
        )
        self._stack.callback(process.kill)
        return process

    def fetched(self) -> tuple[Counter[int], int]:
        """The requests that each origin has served, and the bytes of both."""
        requests: Counter[int] = Counter()
        total = 0
        for origin in self.origins:
            with suppress(FileNotFoundError), open(self.folder / f"origin{origin.port}.log") as log:
                for line in log:
                    requests[origin.port] += 1
                    total += int(line.split('"')[2].split()[1])
        return requests, total

    def browse(self, *urls: str, **options: float) -> dict[str, Any]:
        """The figures of a load."""
        command = [
            sys.executable,
            str(HERE / "browse.py"),
            "--file",
            str(self.folder / "classes.json"),
            *urls,
        ]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def show(seconds: float, path: str | None, keep: bool) -> None:
    """The run of `make edge`."""
    with Site() as site:
        parent = site.edge("parent", "--shield")
        options = "--parent", f"http://{HOST}:{parent.port}"
        points = [site.edge(pop, *options) for pop in ("paris", "tokyo")]
        urls = [f"http://{HOST}:{point.port}" for point in points]
        print(f"The page: {urls[0]}/.edge/dashboard/", flush=True)
        if keep:
            input("Enter starts the load. ")
        kills = [
            (seconds / 3, "an origin", site.origins[0]),
            (seconds * 2 / 3, "a point of presence", points[1]),
        ]
        timers = [threading.Timer(at, victim.kill) for at, _, victim in kills]
        for timer in timers:
            timer.start()
        found = site.browse(*urls, seconds=seconds, browsers=40, greedy=2, pause=0.1)
        for timer in timers:
            timer.join()
        found["purges_behind"] = json.loads(
            urllib.request.urlopen(f"{urls[0]}/.edge/health", timeout=10).read()
        )["purges_behind"]
        requests, fetched = site.fetched()
        report(found, requests, fetched, [(at, name) for at, name, _ in kills])
        if path is not None:
            Path(path).write_text(json.dumps(found, indent=1))


def report(
    found: dict[str, Any], requests: Counter[int], fetched: int, kills: list[tuple[float, str]]
) -> None:
    """What a run has shown."""
    pages = sum(found["places"].values())
    served = found["requests"] - found["statuses"].get("429", 0)
    shown = nines(1 - max(1, found["failed"]) / served)
    hops = {place: found["places"].get(place, 0) for place in ("pop", "parent", "origin")}
    beyond = pages - hops["pop"]
    lines = [
        (
            "requests",
            f"{found['requests']:,}, {found['requests'] / found['seconds']:.0f} a second",
        ),
        ("p50, p99", f"{found['p50_ms']} ms, {found['p99_ms']} ms"),
        ("hits at the points", f"{hops['pop'] / pages:.1%} of pages"),
        ("hits at the parent", f"{hops['parent'] / max(1, beyond):.1%} of what the points lacked"),
        ("denied by limits", f"{found['statuses'].get('429', 0):,}"),
        (
            "bytes",
            f"{found['bytes'] / 1e6:,.0f} MB served, {fetched / 1e6:,.0f} MB from origins: "
            f"{1 - fetched / max(1, found['bytes']):.1%} saved",
        ),
        ("balance of origins", " : ".join(f"{count:,}" for count in requests.values())),
        ("wrong bodies", f"{found['wrong_bodies']}"),
        (
            "availability",
            f"{found['failed']} of {served:,} failed, {found['failed_posts']} of these POST: "
            f"{'' if found['failed'] else '>= '}{shown:.1f} nines",
        ),
    ]
    for at, name in kills:
        part = found["per_second"][max(0, int(at) - 2) : int(at) + 3]  # the load begins a little later
        lines.append(
            (
                f"kill of {name}",
                f"{sum(each['failed'] for each in part)} failed, "
                f"{sum(each['retried'] for each in part)} retried by clients, "
                f"p99 of a second at most {max(each['p99_ms'] for each in part)} ms",
            )
        )
    for name, text in lines:
        print(f"{name:32}{text}")


def compare(requests: int, rounds: int) -> None:
    """One cache each in front of the same origins, by the same requests in the same order."""
    results: dict[str, list[dict[str, Any]]] = {}
    with Site() as site:
        one, two = (origin.port for origin in site.origins)
        vcl = site.folder / "cache.vcl"
        vcl.write_text(VCL.format(one=one, two=two))
        makers = {
            "headgate, compiled": lambda: site.edge("compiled", "--shield", HEADGATE_PURE="0"),
            "headgate, pure": lambda: site.edge("pure", "--shield", HEADGATE_PURE="1"),
            "nginx": lambda: site.nginx(CACHE, "cache", one=one, two=two),
            "Varnish": lambda: site.varnish(vcl),
        }
        for turn in range(rounds):
            for name, make in makers.items():
                process = make()
                url = f"http://{HOST}:{process.port}"
                options = {"seconds": 300, "requests": requests, "browsers": 16, "pause": 0.0}
                site.browse(url, **options, seed=turn)
                cpu, before = process.cpu(), sum(site.fetched()[0].values())
                found = site.browse(url, **options, seed=turn + 100)
                found["cpu_us"] = 1e6 * (process.cpu() - cpu) / found["requests"]
                found["fetched"] = sum(site.fetched()[0].values()) - before
                process.kill()
                results.setdefault(name, []).append(found)
    print(
        "| cache | requests/s | p50 | p99 | CPU a request | hits | failed |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    for name, runs in results.items():
        best = min(runs, key=lambda run: run["cpu_us"])
        print(
            f"| {name} | {best['requests'] / best['seconds']:,.0f} | {best['p50_ms']:.1f} ms | "
            f"{best['p99_ms']:.1f} ms | {best['cpu_us']:,.0f} us | "
            f"{1 - best['fetched'] / best['requests']:.0%} | "
            f"{sum(run['failed'] + run['wrong_bodies'] for run in runs)} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--requests", type=int, default=10_000, help="of each cache that is compared")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--keep", action="store_true", help="wait before the load, for a look at the page")
    chosen = parser.parse_args()
    if chosen.compare:
        compare(chosen.requests, chosen.rounds)
    else:
        show(chosen.seconds, chosen.json, chosen.keep)
