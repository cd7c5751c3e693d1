"""A load generator on loopback: connections of one request each, so that they reach all workers."""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

from watchdog import PATIENCE

CONCURRENCY = 8
BROKEN = "broken"


def fetch(port, path="/", headers=()):
    """The status and the body of a response, or BROKEN and nothing if the worker died."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Connection": "close", **dict(headers)})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, HTTPException):
        return BROKEN, ""
    finally:
        connection.close()


def statuses(port, count, key, path="/"):
    """How often each status was returned to `count` requests, several at once, that have one key."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        results = pool.map(lambda _: fetch(port, path, {"X-Key": key})[0], range(count))
        return Counter(results)


def workers(port, path="/", *, least=2, known=frozenset()):
    """The ids of the processes that respond: at least so many, and one at least that is not known."""
    found, deadline = set(), time.monotonic() + PATIENCE
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        while len(found) < least or found <= known:
            assert time.monotonic() < deadline, f"only {found} respond"
            results = pool.map(lambda _: fetch(port, path), range(4 * CONCURRENCY))
            found |= {int(body) for status, body in results if status == 200}
    return found


def statuses_while_workers_die(port, count, key, path="/"):
    """As ``statuses``, while two workers are killed, one after the other; and the workers there were."""
    found = workers(port, path)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(statuses, port, count, key, path)
        for victim in sorted(found)[:2]:
            time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)
        return pending.result(), found
