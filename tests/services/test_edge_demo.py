"""The example as a whole: its demonstration runs, its document is valid."""

import asyncio
import json
import subprocess
import sys

from edge_example import EXAMPLE
from routes import Settings
from servers import environment, program
from watchdog import PATIENCE

from headgate.config import load


def test_the_demonstration_loses_no_request_and_no_byte(tmp_path):
    program("nginx")
    command = [sys.executable, EXAMPLE / "demo.py", "--seconds", "4", "--json", tmp_path / "figures"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
                           env=environment())
    assert shown.returncode == 0, shown.stderr
    found = json.loads((tmp_path / "figures").read_text())
    assert found["wrong_bodies"] == 0 and found["failed"] == found["failed_posts"], found
    assert found["requests"] > 50 and found["places"]["pop"] > 0
    for name in ("hits at the points", "kill of an origin", "kill of a point of presence", "availability"):
        assert f"\n{name}" in shown.stdout


def test_the_document_is_valid(tmp_path):
    env = {"EDGE_RUN": str(tmp_path), "EDGE_POP": "paris"}
    for token in ({"EDGE_TOKEN": "own"}, {}):
        gate = load(EXAMPLE / "edge.yaml", env=env | token, extensions={"x-edge": Settings.parse})
        settings = gate.extensions["x-edge"]
        assert settings.purges["store"] in gate.stores and settings.token == token.get("EDGE_TOKEN", "")
    assert {path.name for path in tmp_path.iterdir()} == {"edge-paris.inflight", "edge-paris.objective"}
    assert settings.region("127.0.2.9") == "south" and settings.region("192.0.2.1") == "elsewhere"


def test_an_edge_of_its_own_can_be_started_and_stopped(tmp_path):
    """Without a server: nothing is left behind."""
    from edge import Edge

    path = tmp_path / "edge.yaml"
    path.write_text("x-edge: {routes: []}\nhttp: {cache: {maxsize: 1 MiB}}")

    async def main():
        before = len(asyncio.all_tasks())
        edge = Edge(str(path), log=None)
        await edge.start()
        await edge.stop()
        return len(asyncio.all_tasks()) - before

    assert asyncio.run(main()) == 0
