"""The dashboard in a browser: drawn, live, accessible, and without a request to elsewhere."""

import asyncio
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from browsers import Browser
from servers import PACKAGES, Server, package

import headgate
from headgate.adapters import dashboard

CARDS = ["caches", "limits", "denied", "balancers", "objectives", "concurrency", "hotkeys", "placements",
         "others"]
IDS = "[...document.querySelectorAll('#cards > section')].map((each) => each.id)"
SHOWN = "document.querySelector('#cards section') !== null"
OVERFLOWS = """
    [...document.querySelectorAll("section, table, .total")].filter((node) =>
        node.getBoundingClientRect().right > document.documentElement.clientWidth + 1 ||
        (node.localName === "table" && node.offsetWidth > node.parentElement.clientWidth)).length
"""
DELAYS = """
    new Promise((resolve) => {
        const delays = [];
        new MutationObserver(() => {
            delays.push(Date.now() / 1000 - newest.at);
            if (delays.length === 3) resolve(delays);
        }).observe(document.getElementById("updated"), {childList: true});
    })
"""
AT = "(() => {{ take({{...newest, at: newest.at - {seconds}}}); return past.length; }})()"
LARGE = """
    pause.click();
    newest = {...newest,
        problems: Array.from({length: 150}, (_, at) => ({severity: "warning", text: `problem ${at}`})),
        caches: Array.from({length: 1000}, (_, at) => ({...newest.caches[0], name: `cache-${at}`})),
        balancers: Array.from({length: 102}, (_, at) => ({...newest.balancers[0], name: `balancer-${at}`})),
        denied: [], hotkeys: [], shedding: []};
    newest.balancers[0].weight =
        Object.fromEntries(Array.from({length: 101}, (_, at) => [`server-${at}`, 1]));
    show();
"""
MORE = "[...document.querySelectorAll('.more:not([hidden])')].map((each) => each.textContent)"
AXE = """
    axe.run().then((found) => found.violations.map((each) => [each.id, each.nodes.map((node) => node.html)]))
"""


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def browser(loop, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield loop.run(browser.__aenter__())
    loop.run(browser.__aexit__())


@pytest.fixture(scope="module")
def url(request):
    """A service with traffic, whose keys are shown as they are."""
    folder = Path(__file__).parent
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", f"{PACKAGES}:{folder}")
    patch.setenv("HEADGATE_TEST_MASK", "0")
    package("uvicorn")
    command = [sys.executable, "-m", "uvicorn", "dashboard_app:app", "--log-level", "error", "--port"]
    with Server(lambda port: [*command, str(port)]) as server:
        patch.undo()
        yield f"http://127.0.0.1:{server.port}/ops/headgate/"


@pytest.fixture(scope="module")
def axe():
    package("axe_core_python")
    origin = Path(find_spec("axe_core_python").origin)
    return (origin.parent / "axe.min.js").read_text(encoding="utf-8")


async def opened(page, url, width=1600, scheme="light"):
    await page.shape(width, 900, scheme)
    await page.send("Page.navigate", url=url)
    await page.until(SHOWN)


@pytest.mark.parametrize("width, scheme", [(400, "light"), (400, "dark"), (1600, "light"), (1600, "dark")])
def test_the_page(loop, browser, url, axe, width, scheme):
    async def look():
        async with await browser.page() as page:
            await opened(page, url, width, scheme)
            await page.until("past.length >= 2 && document.querySelectorAll('.chart .curve').length >= 6")
            assert await page.run(IDS) == CARDS
            assert await page.run("document.title") == "headgate"
            assert "</script><script>document.title='owned'" in await page.run("document.body.textContent")
            assert await page.run(OVERFLOWS) == 0
            back = await page.run("getComputedStyle(document.body).backgroundColor")
            assert (back == "rgb(15, 21, 27)") is (scheme == "dark")
            await page.run(f"{axe}; 0")
            assert await page.run(AXE) == []
            assert page.faults == []
            assert {request for request in page.requests if not request.startswith(url)} == set()
            assert f"{url}page.js" in page.requests

    loop.run(look())


def test_it_is_live_within_a_second(loop, browser, url):
    async def look():
        async with await browser.page() as page:
            await opened(page, url)
            await page.until("document.getElementById('state').textContent === 'Live'")
            assert min(await page.run(DELAYS)) < 1

    loop.run(look())


def test_a_clock_that_is_set_back_begins_new_charts(loop, browser, url):
    async def look():
        async with await browser.page() as page:
            await opened(page, url)
            await page.until("past.length >= 2")
            assert await page.run(AT.format(seconds=1)) > 1
            assert await page.run(AT.format(seconds=3600)) == 1
            assert await page.run("past[0].at === newest.at")

    loop.run(look())


@pytest.mark.parametrize("width", [400, 1600])
def test_the_first_hundred_rows_are_shown(loop, browser, url, axe, width):
    async def look():
        async with await browser.page() as page:
            await opened(page, url, width)
            await page.until("past.length >= 2")
            assert await page.run(MORE) == []
            await page.run(f"{LARGE}; 0")
            assert await page.run(MORE) == [
                f"The first 100 of {number}." for number in ("150", "1,000", "102", "101")]
            assert await page.run("document.querySelectorAll('#caches tbody tr').length") == 100
            assert await page.run("document.querySelectorAll('#balancers h3').length") == 100
            assert await page.run("document.querySelectorAll('#attention li').length") == 100
            assert await page.run("document.querySelectorAll('#caches .curve').length") <= 24
            assert await page.run(OVERFLOWS) == 0
            await page.run(f"{axe}; 0")
            assert await page.run(AXE) == []
            await page.run("pause.click()")
            assert await page.run(MORE) == []

    loop.run(look())


@pytest.mark.parametrize("name", ["constructor", "__proto__", "public"])
def test_a_limit_of_any_name_is_in_the_totals(loop, browser, url, name):
    async def look():
        async with await browser.page() as page:
            await opened(page, url)
            await page.until("newest.limits.some((row) => row.requests_per_second)")
            await page.run(f"""
                pause.click();
                newest = {{...newest, limits: [{{
                    name: "{name}", level: "", requests: {{allowed: 9, denied: 9}},
                    requests_per_second: {{allowed: 7, denied: 3}}}}]}};
                show();
            """)
            totals = await page.run("document.getElementById('totals').textContent")
            assert "Allowed7/s" in totals and "Denied3/s" in totals

    loop.run(look())


def test_a_card_without_rows_is_not_shown(loop, browser, url):
    async def look():
        async with await browser.page() as page:
            await opened(page, url)
            height = "document.getElementById('hotkeys').getBoundingClientRect().height"
            await page.until(f"{height} > 0")
            await page.run("pause.click(); newest = {...newest, hotkeys: []}; show()")
            assert await page.run(height) == 0

    loop.run(look())


def test_keyboard(loop, browser, url):
    async def focused(page):
        return await page.run("document.activeElement.className || document.activeElement.id")

    async def look():
        async with await browser.page() as page:
            await opened(page, url)
            await page.press("Tab")
            assert await focused(page) == "skip"
            assert await page.run("document.activeElement.getBoundingClientRect().left") == 0
            await page.press("Tab")
            assert await focused(page) == "pause"
            assert await page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            await page.press(" ", " ")
            await page.until("document.getElementById('state').textContent === 'Paused'")
            assert await page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
            before = await page.run("document.getElementById('cards').textContent")
            seen = await page.run("newest.at")
            await page.until(f"newest.at > {seen}")
            assert await page.run("document.getElementById('cards').textContent") == before
            await page.press("Enter", "\r")
            await page.until("document.getElementById('state').textContent === 'Live'")
            assert await page.run("document.getElementById('cards').textContent") != before

    loop.run(look())


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""


def test_it_polls_where_there_is_no_stream(loop, browser):
    cache = headgate.LRUCache(10)
    app = dashboard.wsgi({"pages": cache}, allow="127.0.0.1", every=0.1)

    def single(environ, start_response):
        return app({**environ, "wsgi.multithread": False}, start_response)

    with make_server("127.0.0.1", 0, single, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        async def look():
            async with await browser.page() as page:
                await opened(page, f"http://127.0.0.1:{server.server_port}/")
                await page.until("document.getElementById('state').textContent === 'Polling'")
                cache.get("absent")
                await page.until("newest.caches[0].misses === 1")

        try:
            loop.run(look())
        finally:
            server.shutdown()
            thread.join()
