"""What requests are balanced by, also those that have nothing to be balanced by."""

import pytest
from asgi_exchanges import Exchange, Socket
from raw_origin import raw_origin
from watchdog import in_a_loop

from headgate import AddressHash, KeyHash
from headgate.adapters import keys
from headgate.adapters.proxy import Hop, ReverseProxy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def _awaited(request):
    return request.header("x-key")


@pytest.mark.parametrize("kind, key, fields", [
    (KeyHash, keys.header("x-key"), []),
    (KeyHash, _awaited, []),
    (AddressHash, keys.header("x-key"), []),
    (AddressHash, keys.header("x-key"), [("x-key", "unknown")]),
    (AddressHash, keys.client(v6=128), [("x-key", "peer without a name")]),
])
def test_requests_without_a_key_go_to_random_servers(kind, key, fields):
    async def main():
        async with raw_origin(OK) as one, raw_origin(OK) as two:
            servers = kind([f"http://127.0.0.1:{origin.port}" for origin in (one, two)])
            async with ReverseProxy(servers, Hop("paris"), key=key) as proxy:
                for method, parts in [("GET", []), ("POST", [b"a"])] * 40:
                    exchange = Exchange(proxy, method=method, parts=parts, headers=fields, client=None)
                    assert (await exchange.response()).status == 200
                assert (await Socket(proxy, headers=fields, client=None).next())["type"] == "websocket.close"
            assert len(one.received) > 8 and len(two.received) > 8

    in_a_loop(main())


@pytest.mark.parametrize("kind, key, values", [
    (KeyHash, _awaited, ["a"]), (AddressHash, _awaited, ["2001:db8::1", "[2001:db8::1]:80"])])
def test_requests_of_one_key_go_to_one_server(kind, key, values):
    async def main():
        async with raw_origin(OK) as one, raw_origin(OK) as two:
            servers = kind([f"http://127.0.0.1:{origin.port}" for origin in (one, two)])
            async with ReverseProxy(servers, Hop("paris"), key=key) as proxy:
                for value in values * 20:
                    assert (await Exchange(proxy, headers=[("x-key", value)]).response()).status == 200
            assert not (one.received and two.received)

    in_a_loop(main())


def test_networks_are_no_addresses():
    """Else only the requests of IPv6 would fail."""
    servers = AddressHash(["http://a"])
    with pytest.raises(TypeError, match=r"key must be client\(v6=128\) for AddressHash.*, got networks by <"):
        ReverseProxy(servers, Hop("paris"), key=keys.client())
    ReverseProxy(servers, Hop("paris"), key=keys.client(v6=128))
    ReverseProxy(KeyHash(["http://a"]), Hop("paris"), key=keys.client())
