"""An ASGI application behind the limit of the document HEADGATE_TEST_CONFIG, which is watched as
HEADGATE_TEST_HOW says. What happens is appended to HEADGATE_TEST_LOG: process, time, kind and detail.
"""

import os
import time
from pathlib import Path

from headgate.adapters.asgi import from_gate
from headgate.config import load

LOG = os.open(os.environ["HEADGATE_TEST_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note(kind, detail=""):
    os.write(LOG, f"{os.getpid()}\t{time.monotonic()}\t{kind}\t{detail}\n".encode())


def on_change(changes):
    is_same = gate.limits["api"] is held
    note("changed" if is_same else "replaced", "; ".join(map(str, held.rates)))


def on_error(error):
    note("refused", str(error).splitlines()[0])


async def pid(scope, receive, send):
    if scope["type"] == "http":
        body = str(os.getpid()).encode()
        fields = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})


gate = load(Path(os.environ["HEADGATE_TEST_CONFIG"]))
held = gate.limits["api"]
app = from_gate(pid, gate)
gate.watch(every=float(os.environ["HEADGATE_TEST_EVERY"]), how=os.environ["HEADGATE_TEST_HOW"],
           on_change=on_change, on_error=on_error)
