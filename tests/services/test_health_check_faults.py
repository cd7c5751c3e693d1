"""Health checks of real servers on loopback that fail in different ways, and recover."""

import asyncio

import pytest
from servers import Origin
from watchdog import PATIENCE

from headgate import PowerOfTwo

pytest.importorskip("aiohttp")


async def _until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", [500, 404, "silent", "slow"])
def test_a_server_goes_down_and_comes_back(fault):
    from headgate.adapters.aiohttp import HealthChecks

    events = []

    async def main(good, bad):
        balancer = PowerOfTwo([good.url, bad.url])

        def health():
            return balancer.records[1].health

        async with HealthChecks(balancer, path="/health", every=0.01, timeout=0.3, fall=2,
                                on_event=events.append):
            bad.mode = fault
            await _until(lambda: health() == "down")
            bad.release.set()
            bad.mode = 200
            await _until(lambda: health() == "healthy")
        return len(asyncio.all_tasks())

    with Origin() as good, Origin() as bad:
        assert asyncio.run(main(good, bad)) == 1
        assert [event.kind for event in events if event.server == bad.url][:2] == ["down", "up"]
        assert {(method, path) for method, path, _, _ in bad.requests} == {("GET", "/health")}


def test_a_server_that_is_gone_goes_down():
    from headgate.adapters.aiohttp import HealthChecks

    async def main(good, bad):
        balancer = PowerOfTwo([good.url, bad.url])
        async with HealthChecks(balancer, every=0.01, fall=2, timeout=PATIENCE) as checks:
            await _until(lambda: [row.up for row in checks.records] == [True, True])
            await asyncio.to_thread(bad.kill)
            await _until(lambda: balancer.records[1].health == "down")
            assert {balancer.get_server() for _ in range(50)} == {good.url}
            balancer.remove_server(bad.url)
            await _until(lambda: len(checks.records) == 1)

    with Origin() as good, Origin() as bad:
        asyncio.run(main(good, bad))
