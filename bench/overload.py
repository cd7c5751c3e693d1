"""A service that gets more requests than it can bear, with what people put in front of it.

One uvicorn worker serves 4 requests at a time, 20 ms each: 200 a second. 250 clients and four important ones
send the next request when they have a response, or 200 ms after a 503; they give up after a second. Fifty
more connections are open and idle, as those of browsers and proxies are. ``python bench/overload.py``
"""

import asyncio
import os
import subprocess
import sys
import time
from socket import socket
from statistics import quantiles

from bench_http import semaphored, wait_for

from headgate import ConcurrencyLimiter
from headgate.adapters.asgi import ShedMiddleware
from headgate.adapters.keys import header

SECONDS, PATIENCE, PAUSE = 4, 1.0, 0.2
CLIENTS = {"important": 4, "other": 250}
IDLE = 50
at_once = asyncio.Semaphore(4)


async def service(scope, receive, send):
    if scope["type"] == "http":
        async with at_once:
            await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


semaphore = semaphored(service, 12)
shares = {"important": 1.0, "other": 0.6}
fixed = ShedMiddleware(service, ConcurrencyLimiter(12, algorithm="fixed", priorities=shares),
                       priority=header("x-priority"))
adaptive = ShedMiddleware(service, ConcurrencyLimiter(12, priorities=shares), priority=header("x-priority"))
VARIANTS = {
    "nothing": ["service"],
    "uvicorn --limit-concurrency 12": ["service", "--limit-concurrency", "12"],
    "uvicorn --limit-concurrency 62": ["service", "--limit-concurrency", "62"],
    "a semaphore of 12, no queue": ["semaphore"],
    "ShedMiddleware, fixed 12": ["fixed"],
    "ShedMiddleware, adaptive": ["adaptive"],
}


async def request(port, priority):
    """The status of a response; None if it does not come in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Priority: %s\r\n\r\n" % priority.encode())
        return int((await asyncio.wait_for(reader.readline(), PATIENCE)).split()[1])
    except (OSError, TimeoutError, IndexError):
        return None
    finally:
        writer.close()


async def client(port, priority, end, results):
    while time.perf_counter() < end:
        start = time.perf_counter()
        status = await request(port, priority)
        results.append((status, time.perf_counter() - start))
        if status != 200:
            await asyncio.sleep(PAUSE)


async def load(port):
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
    results = {priority: [] for priority in CLIENTS}
    end = time.perf_counter() + SECONDS
    await asyncio.gather(*(client(port, priority, end, results[priority])
                           for priority, count in CLIENTS.items() for _ in range(count)))
    for _, writer in idle:
        writer.close()
    return results


def measure(name, arguments):
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    application, *options = arguments
    command = [sys.executable, "-m", "uvicorn", f"overload:{application}", "--app-dir", sys.path[0],
               "--log-level", "critical", "--port", str(port), *options]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    try:
        wait_for(port)
        results = asyncio.run(load(port))
    finally:
        process.kill()
        process.wait()
    print(name)
    for priority, outcomes in results.items():
        good = [seconds * 1000 for status, seconds in outcomes if status == 200]
        late = sum(status is None for status, _ in outcomes)
        cuts = quantiles(good, n=100) if len(good) > 1 else [0] * 99
        print(f"    {priority:12} {len(good) / len(outcomes):6.1%} of {len(outcomes):5}, "
              f"{len(good) / SECONDS:4.0f}/s, p50 {cuts[49]:4.0f} ms, p99 {cuts[98]:4.0f} ms, {late} late")


if __name__ == "__main__":
    for name, arguments in VARIANTS.items():
        measure(name, arguments)
