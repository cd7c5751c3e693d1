"""How long after a purge a point of presence is stale: purges streamed over Redis, and polled.

    python examples/edge/staleness.py --every 5 --plot examples/edge/staleness.svg

Each purge is given to one point, and timed at another one. Needs redis-server, and matplotlib for the plot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import time
from collections import defaultdict
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from demo import HERE, HOST, Process, Site, free_port

TOKEN = secrets.token_hex(8)


class Versions:
    """An origin of pages that say how often they were changed."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = defaultdict(int)

    async def start(self) -> str:
        """Its URL."""
        app = web.Application()
        app.router.add_get("/{page}", self._page)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, HOST, port).start()
        return f"http://{HOST}:{port}"

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=str(self.versions[request.path]), headers={"Cache-Control": "max-age=600"})


def points(site: Site, origin: str, poll: float) -> list[Process]:
    """Two points of presence and their parent, streamed if `poll` is 0; the parent is not returned."""
    made = yaml.safe_load((HERE / "edge.yaml").read_text())
    made["balancers"]["origins"]["servers"] = [origin]
    made["stores"]["redis"]["url"] = f"redis://{HOST}:{site.redis.port}/0"
    del made["http"]["limit"], made["http"]["keys"]
    made["x-edge"]["token"] = TOKEN
    if poll:
        made["x-edge"]["purges"] = {}
    parent = site.edge("parent", "--shield", made=made)
    url = f"http://{HOST}:{parent.port}"
    if poll:
        made["x-edge"]["purges"] = {"poll": f"{url}/.edge/purges", "every": poll}
    return [site.edge(pop, "--parent", url, made=made) for pop in ("paris", "tokyo")]


async def measure(origin: Versions, near: str, far: str, count: int, spread: float) -> list[float]:
    """The seconds for which the far point was stale after each purge."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def version(page: str) -> int:
            async with session.get(f"{far}{page}", headers={"Host": "site.test"}) as response:
                return int(await response.text())

        async def one(number: int) -> float:
            page = f"/page-{number}"
            await version(page)
            await asyncio.sleep(random.uniform(0.5, spread))
            origin.versions[page] += 1
            began = time.perf_counter()
            purge, token = {"url": page}, {"Authorization": f"Bearer {TOKEN}"}
            async with session.post(f"{near}/.edge/purges", json=purge, headers=token, raise_for_status=True):
                pass
            while await version(page) != origin.versions[page]:
                await asyncio.sleep(0.002)
            return time.perf_counter() - began

        return sorted(await asyncio.gather(*map(one, range(count))))


async def run(options: argparse.Namespace) -> dict[str, list[float]]:
    """Both ways."""
    origin, found = Versions(), {}
    url = await origin.start()
    for name, poll in (("streamed", 0.0), (f"polled every {options.every:g} s", options.every)):
        with Site() as site:
            made = await asyncio.to_thread(points, site, url, poll)
            near, far = (f"http://{HOST}:{point.port}" for point in made)
            found[name] = await measure(origin, near, far, options.count, options.seconds)
        origin.versions.clear()
    return found


def plot(found: dict[str, list[float]], path: str) -> None:
    """The share of purges that have arrived, by time."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for name, seconds in found.items():
        axes.step(
            [1000 * each for each in seconds],
            [(at + 1) / len(seconds) for at in range(len(seconds))],
            where="post",
            label=name,
        )
    axes.set(
        xscale="log", xlabel="milliseconds after the purge", ylabel="share of purges in effect", ylim=(0, 1)
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def summary(seconds: list[float]) -> dict[str, Any]:
    """Milliseconds."""
    return {"median_ms": round(1000 * seconds[len(seconds) // 2], 1), "most_ms": round(1000 * seconds[-1], 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two polls")
    parser.add_argument("--count", type=int, default=100, help="purges of each kind")
    parser.add_argument("--seconds", type=float, default=20.0, help="over which they are spread")
    parser.add_argument("--plot", metavar="FILE")
    chosen = parser.parse_args()
    results = asyncio.run(run(chosen))
    print(json.dumps({name: summary(seconds) for name, seconds in results.items()}, indent=1))
    if chosen.plot:
        plot(results, chosen.plot)
