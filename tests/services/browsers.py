"""A headless Chromium, driven by its DevTools protocol."""

import asyncio
import base64
import json
import subprocess
import time
from contextlib import suppress

import aiohttp
from servers import program
from watchdog import PATIENCE

SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-extensions",
            "--disable-sync", "--hide-scrollbars", "--mute-audio", "--remote-debugging-port=0")


class Browser:
    """A process of Chromium with a profile of its own in `folder`."""

    def __init__(self, folder):
        self._folder = folder

    async def __aenter__(self):
        command = [program("chromium"), *SWITCHES, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._session = aiohttp.ClientSession()
        try:
            self._url = await self._address()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _address(self):
        path, deadline = self._folder / "DevToolsActivePort", time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"Chromium ended with {self._process.returncode}"
            with suppress(FileNotFoundError, ValueError):
                port, _ = path.read_text().splitlines()
                return f"http://127.0.0.1:{port}"
            await asyncio.sleep(0.02)
        raise TimeoutError("Chromium does not listen")

    async def __aexit__(self, *failure):
        await self._session.close()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)

    async def page(self):
        async with self._session.put(f"{self._url}/json/new?about:blank") as response:
            target = await response.json(content_type=None)
        return Page(self._session, target["webSocketDebuggerUrl"])


class Page:
    """A tab: what it requested, and what it said was wrong."""

    def __init__(self, session, url):
        self._session, self._url = session, url
        self._number, self._replies = 0, {}
        self.requests, self.faults = [], []

    async def __aenter__(self):
        self._socket = await self._session.ws_connect(self._url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        return self

    async def __aexit__(self, *failure):
        await self.send("Page.close")
        self._reader.cancel()
        await self._socket.close()

    async def _read(self):
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._replies.pop(found["id"]).set_result(found)
            else:
                self._note(found["method"], found["params"])

    def _note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.faults.append(params["entry"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.faults.append(params)

    async def send(self, method, **params):
        self._number += 1
        future = self._replies[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE):
            reply = await future
        assert "error" not in reply, (method, reply)
        return reply["result"]

    async def shape(self, width, height, scheme):
        """The size of the window, and whether it is light or dark."""
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=1, mobile=width < 600)
        await self.send("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def run(self, script):
        """The value of an expression, awaited if it is a promise."""
        reply = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def until(self, script):
        """Returns once an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not await self.run(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            await asyncio.sleep(0.02)

    async def press(self, key, text=""):
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        params = {"key": key, "windowsVirtualKeyCode": codes[key], "text": text}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **params)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=codes[key])

    async def picture(self):
        """The whole page as PNG."""
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])
