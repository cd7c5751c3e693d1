"""The reverse proxy as the whole application of a server."""

import json
import socket
from http.client import HTTPConnection, HTTPException

import aiohttp
import pytest
from edge_site import SiteOrigin, content
from servers import Workers, program
from watchdog import PATIENCE, in_a_loop, until

COMMANDS = {
    "uvicorn": "uvicorn proxy_app:app --no-date-header --no-server-header --no-proxy-headers "
               "--log-level critical --port",
    "granian": "granian proxy_app:app --interface asgi --no-log --port",
}


@pytest.fixture(scope="module")
def origin():
    with SiteOrigin() as origin:
        yield origin


@pytest.fixture(params=COMMANDS, scope="module")
def server(request, origin):
    name, *arguments = COMMANDS[request.param].split()
    command = [program(name), *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADGATE_TEST_ORIGIN", origin.url)
        patch.setenv("PYTHONPATH", str(request.path.parent))
        with Workers(lambda port: [*command, str(port)]) as server:
            yield server


def fetch(port, path, method="GET", body=None, **fields):
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, {"Host": "site.test"} | fields)
        response = connection.getresponse()
        return response.status, response.headers.items(), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/file/0", "/file/5000000", "/chunked", "/status/404", "/status/204"])
def test_responses_are_those_of_the_origin(server, origin, path, method):
    direct, found = fetch(origin.port, path, method), fetch(server.port, path, method)
    assert (found[0], found[2]) == (direct[0], direct[2])
    changed = {"via", "date", "connection", "transfer-encoding"}
    kept = [sorted((name.lower(), value) for name, value in fields if name.lower() not in changed)
            for fields in (direct[1], found[1])]
    assert kept[0] == kept[1] and dict(found[1])["via"] == "1.1 paris"
    assert [name.lower() for name, _ in found[1]].count("date") == 1


@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_requests_arrive(server, is_chunked):
    body = content("up", 3_000_000)
    parts = iter([body[:100], body[100:]]) if is_chunked else body
    assert fetch(server.port, "/echo", "POST", parts)[2] == body


@pytest.mark.parametrize("path", ["/cut", "/cut/chunked"])
def test_a_body_that_is_cut_is_never_whole(server, path):
    with pytest.raises(HTTPException):
        fetch(server.port, path)


def test_failures_are_responses(server):
    status, _, body = fetch(server.port, "/slow/30")
    assert status == json.loads(body)["status"] == 504
    assert fetch(server.port, "/version", **{"CDN-Loop": "paris"})[0] == 508
    assert fetch(server.port, "/a/%2e%2e/b")[0] == 400


def test_a_client_that_leaves_ends_the_request_at_the_origin(server, origin):
    path = f"/endless/{server.port}"
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert path not in origin.ended
    client.close()
    until(lambda: path in origin.ended)


def test_websockets_pass(server):
    if "uvicorn" in str(server._command):  # which speaks WebSocket with an optional package
        assert fetch(server.port, "/version")[0] == 200
        return

    async def main():
        async with aiohttp.ClientSession() as session, session.ws_connect(
                f"http://127.0.0.1:{server.port}/ws", protocols=("chat",)) as chat:
            assert chat.protocol == "chat"
            await chat.send_str("headgate")
            assert await chat.receive_str() == "etagdaeh"

    in_a_loop(main())
