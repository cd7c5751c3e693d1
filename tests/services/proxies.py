"""What the tests of proxies share: origins, fresh keys, and the origin that served each."""

import secrets
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import quote

from servers import free_port
from watchdog import PATIENCE

REQUESTS = 1000
WEIGHTS = [1, 2, 1, 3, 1, 5]


def fresh_keys():
    """Words and percent-encoded text, as written in a URL."""
    words = [secrets.token_urlsafe(1 + secrets.randbelow(40)) for _ in range(REQUESTS // 2)]
    return words + [quote(f"grüße {secrets.token_hex(4)}/{number}") for number in range(REQUESTS // 2)]


def origins_of(port, fleet, keys, clients=None):
    """The origin that serves each key, for each of `clients`."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        names = []
        for key, client in zip(keys, clients or ["192.0.2.1"] * len(keys), strict=True):
            headers = {"X-Fleet": fleet, "X-Key": key, "X-Client": client}
            connection.request("GET", f"/{key}?key={key}", headers=headers)
            response = connection.getresponse()
            names.append(response.read().decode())
            assert response.status == 200, names[-1]
    return names


def new_origins():
    """Names of servers that the proxy runs itself, to their weights."""
    return {f"127.0.0.1:{free_port()}": weight for weight in WEIGHTS}
