"""The address of a client: proxies that are trusted, headers that are not, and networks."""

import time
import tracemalloc
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import AddressLimiter, address_prefix, client_address
from headgate.limit._networks import Proxies

PROXIES = ["10.0.0.0/8", "192.168.1.1", "2001:db8:ffff::/48"]
ADDRESSES = st.ip_addresses().map(str)


def asgi(peer, *lines, header="x-forwarded-for"):
    return {
        "type": "http",
        "client": (peer, 4711) if peer else None,
        "headers": [(b"host", b"example"), *((header.encode(), line.encode()) for line in lines)],
    }


def wsgi(peer, *lines, header="x-forwarded-for"):
    environ = {"wsgi.version": (1, 0), "REMOTE_ADDR": peer or ""}
    if lines:
        environ["HTTP_" + header.upper().replace("-", "_")] = ",".join(lines)
    return environ


class Headers(dict):
    """A mapping of headers that may name one several times, as some frameworks have it."""

    def __init__(self, lines):
        super().__init__(lines)
        self._lines = lines

    def items(self):
        return iter(self._lines)


def ask_plain(peer, *lines, trusted=(), header="X-Forwarded-For"):
    request = Headers([("Host", "example"), *((header.title(), line) for line in lines)])
    return client_address(request, trusted, header=header, peer=peer)


def ask_asgi(peer, *lines, trusted=(), header="X-Forwarded-For"):
    return client_address(asgi(peer, *lines, header=header.lower()), trusted, header=header)


def ask_wsgi(peer, *lines, trusted=(), header="X-Forwarded-For"):
    return client_address(wsgi(peer, *lines, header=header), trusted, header=header)


@pytest.fixture(params=[ask_plain, ask_asgi, ask_wsgi])
def ask(request):
    return request.param


# X-Forwarded-For


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9,10.2.3.4", " 192.168.1.1 "], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9, <script>, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9:1234"], "203.0.113.9"),
        ("2001:db8:ffff::1", ["[2001:DB8::0:9]:443"], "2001:db8::9"),
        ("2001:db8:ffff::1", ["2001:db8::9"], "2001:db8::9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("192.168.1.2", ["203.0.113.9"], "192.168.1.2"),
    ],
)
def test_trusted_networks(ask, peer, lines, client):
    assert ask(peer, *lines, trusted=PROXIES) == client


HOPS = [(0, "10.0.0.1"), (1, "4.4.4.4"), (2, "3.3.3.3"), (9, "1.1.1.1")]


@pytest.mark.parametrize(("hops", "client"), HOPS)
def test_a_number_of_proxies(ask, hops, client):
    assert ask("10.0.0.1", "1.1.1.1, 2.2.2.2, 3.3.3.3", "4.4.4.4", trusted=hops) == client


def test_without_trust_headers_are_not_read(ask):
    assert ask("10.0.0.1", "203.0.113.9") == "10.0.0.1"


@given(forged=st.lists(ADDRESSES | st.text("1.:[]\"\\;,= a", max_size=20)), client=ADDRESSES)
def test_what_a_client_claims_changes_nothing(forged, client):
    trusted = "10.0.0.1"
    expected = str(getattr(ip_address(client), "ipv4_mapped", None) or ip_address(client))
    if expected == trusted:
        return
    for header, entry in (("X-Forwarded-For", client), ("Forwarded", f'for="[{client}]"')):
        lines = [", ".join([*forged, entry])]
        for ask in (ask_plain, ask_asgi, ask_wsgi):
            assert ask(trusted, *lines, trusted=trusted, header=header) == expected
            assert ask(trusted, *lines, trusted=1, header=header) == expected


def test_a_plain_mapping_without_a_peer_comes_from_a_trusted_proxy():
    headers = {"x-forwarded-for": "1.1.1.1, 203.0.113.9, 10.0.0.2"}
    assert client_address(headers) == "10.0.0.2"
    assert client_address(headers, PROXIES) == "203.0.113.9"
    assert client_address(headers, 1) == "10.0.0.2"
    assert client_address(headers, 2) == "203.0.113.9"
    assert client_address({}, PROXIES) == "unix"


def test_another_header(ask):
    assert ask("10.0.0.1", "203.0.113.9", trusted=PROXIES, header="CF-Connecting-IP") == "203.0.113.9"


# Forwarded


@pytest.mark.parametrize(
    ("line", "client"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ("for=1.1.1.1, For=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
        ('for="203.0.113.9:99"', "203.0.113.9"),
        ('proto=http; FOR="[2001:db8::9]:4711"', "2001:db8::9"),
        ("for=203.0.113.9, for=unknown", "10.0.0.1"),
        ("for=203.0.113.9, for=_hidden", "10.0.0.1"),
        ("for=203.0.113.9, proto=https", "10.0.0.1"),
        ('for=203.0.113.9;host="a, for=6.6.6.6"', "203.0.113.9"),
        ('for=203.0.113.9;host="a; for=6.6.6.6"', "203.0.113.9"),
        (r'for=203.0.113.9;host="a\", for=6.6.6.6;b=\"c"', "203.0.113.9"),
        (r'for=203.0.113.9;host="a\\", for=10.6.6.6', "203.0.113.9"),
        ('for="1.1.1.1, for=203.0.113.9', "203.0.113.9"),
        ("", "10.0.0.1"),
    ],
)
def test_forwarded(ask, line, client):
    assert ask("10.0.0.1", line, trusted=PROXIES, header="Forwarded") == client


# peers without an address


def test_unix_sockets():
    for ask in (ask_asgi, ask_wsgi):
        assert ask(None, "203.0.113.9") == "unix"
        assert ask(None, "203.0.113.9", trusted=PROXIES) == "unix"
        assert ask(None, "203.0.113.9", trusted=["unix"]) == "203.0.113.9"
        assert ask(None, "203.0.113.9, 10.0.0.2", trusted=["unix", *PROXIES]) == "203.0.113.9"
        assert ask(None, "203.0.113.9", trusted=1) == "203.0.113.9"
    assert client_address({"type": "http", "headers": []}, "unix") == "unix"


HEADERS = {"X-Forwarded-For": "203.0.113.9"}
SMUGGLED = [
    {"wsgi.version": "1", "wsgi.multithread": "1", "REMOTE_ADDR": "6.6.6.6"},
    {"REMOTE_ADDR": "6.6.6.6"},
    {"headers": "x-forwarded-for", "client": "6.6.6.6", "asgi": "3", "type": "http"},
]


@pytest.mark.parametrize("smuggled", SMUGGLED)
def test_no_header_makes_a_scope_or_an_environ_of_a_mapping(smuggled):
    headers = {**smuggled, "HTTP_X_FORWARDED_FOR": "6.6.6.6", **HEADERS}
    assert client_address(headers, PROXIES, peer="10.0.0.1") == "203.0.113.9"


def test_requests_with_few_fields():
    assert client_address({"type": "http", "client": ("203.0.113.9", 1)}) == "203.0.113.9"
    assert client_address({"type": "websocket", "client": None}) == "unix"
    meta = {"wsgi.multithread": True, "REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}
    assert client_address(meta, PROXIES) == "203.0.113.9"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"X-Forwarded-For": b"1.2.3.4"}, "request must map names of headers to str, got .*: b'1"),
        ({"X-Forwarded-For": ["1.2.3.4"]}, r"request must map names of headers to str, got .*: \['1"),
        ({b"x-forwarded-for": b"1.2.3.4"}, "request must map names of headers to str, got b'x"),
        ([("X-Forwarded-For", "1.2.3.4")], "request must be a scope, an environ or a mapping"),
        (None, "request must be a scope, an environ or a mapping of headers, got None"),
        ({"headers": [("x-forwarded-for", "1.2.3.4")]}, "request must have headers of bytes, got 'x-f.*: '1"),
        ({"headers": [(b"x-forwarded-for", "1.2.3.4")]}, "request must have headers of bytes, got b'x.*: '1"),
        ({"headers": [], "client": (b"10.0.0.1", 1)}, "peer must be a str or None, got b'10.0.0.1'"),
    ],
)
def test_what_is_no_request(request_, message):
    with pytest.raises(TypeError, match=message):
        client_address(request_, 1)


@pytest.mark.parametrize("peer", [5, b"10.0.0.1", ("10.0.0.1", 80)])
def test_what_is_no_peer(peer):
    for request in ({}, asgi("10.0.0.1", "203.0.113.9"), wsgi("10.0.0.1", "203.0.113.9")):
        with pytest.raises(TypeError) as caught:
            client_address(request, 1, peer=peer)
        assert str(caught.value) == f"peer must be a str or None, got {peer!r}"


def test_a_header_has_a_name():
    with pytest.raises(TypeError, match="header must be a str, got None"):
        client_address({}, header=None)


def test_names_instead_of_addresses_are_not_trusted(ask):
    assert ask("testclient", "203.0.113.9", trusted=PROXIES) == "testclient"


def test_a_peer_that_is_given_goes_first():
    assert client_address(asgi("10.0.0.1", "203.0.113.9"), peer="192.0.2.1") == "192.0.2.1"
    assert client_address(wsgi("10.0.0.1", "203.0.113.9"), peer="192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("trusted", "error", "message"),
    [
        (["10.0.0.0/33"], ValueError, "trusted must be addresses, networks or 'unix', got '10.0.0.0/33'"),
        (["10.0.0.0/x"], ValueError, "trusted must be addresses, networks or 'unix', got '10.0.0.0/x'"),
        (["proxy"], ValueError, "trusted must be addresses, networks or 'unix', got 'proxy'"),
        ("*", ValueError, r"trusted must be addresses, networks or 'unix', got '\*'"),
        ([3], ValueError, "trusted must be addresses, networks or 'unix', got '3'"),
        (["::ffff:10.0.0.0/8"], ValueError, "trusted must be addresses, networks or 'unix', got '::ff"),
        (-1, ValueError, "trusted must be non-negative, got -1"),
        (True, TypeError, "trusted must be addresses or a number of proxies, got True"),
        (None, TypeError, "trusted must be addresses or a number of proxies, got None"),
    ],
)
def test_wrong_proxies(trusted, error, message):
    with pytest.raises(error, match=message):
        client_address({}, trusted)


def test_proxies_in_one_text(ask):
    assert ask("10.0.0.1", "203.0.113.9, 192.0.2.1", trusted="192.0.2.1, 10.0.0.0/8") == "203.0.113.9"


# junk


JUNK = [
    b",", b"10.0.0.1,", b"a", b":", b"::", b"[", b"]:", b"%", b";", b"=", b'"', b"\\", b'\\"', b'",', b"\xff",
    b"for=", b"for=10.0.0.1,", b'for="10.0.0.1",', b"for=;", b" ", b"\t", b"0", b".", b"1.", b"%00", b"\x00",
]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("junk", JUNK)
def test_junk_costs_little_and_is_ignored(junk, header):
    """A megabyte in much less than the seconds that anything quadratic would take."""
    scope = {"type": "http", "client": ("10.0.0.1", 5)}
    before = time.process_time()
    for tail in (b"", b"x", b", 203.0.113.9", b", for=203.0.113.9"):
        scope["headers"] = [(header.lower().encode(), junk * (2**20 // len(junk)) + tail)]
        assert client_address(scope, PROXIES, header=header) in ("10.0.0.1", "203.0.113.9")
    assert time.process_time() - before < 5


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
@given(value=st.text(st.characters(max_codepoint=255)) | st.text('10.,:;[]%="\\ for'))
def test_no_header_raises(header, value):
    for trusted in (PROXIES, 1, 5, "unix"):
        for peer in ("10.0.0.1", None, "testclient"):
            scope = asgi(peer, header=header.lower())
            scope["headers"].append((header.lower().encode(), value.encode("latin-1")))
            found = client_address(scope, trusted, header=header)
            assert found in (peer, "unix") or ip_address(found)


def test_what_clients_claim_is_kept_for_a_while_only():
    headers = [(b"x-forwarded-for", b"")]
    scope = {"type": "http", "client": ("10.0.0.1", 5), "headers": headers}
    tracemalloc.start()
    try:
        for number in range(10_000):
            headers[0] = (b"x-forwarded-for", b"%d" % number * 10)
            client_address(scope, PROXIES)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            headers[0] = (b"x-forwarded-for", b"%d" % number * 50)
            client_address(scope, PROXIES)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


def test_the_proxies_of_many_requests():
    proxies = Proxies(PROXIES, "Forwarded")
    names = []
    found = proxies.client("10.0.0.1", lambda name: names.append(name) or "for=1.1.1.1, for=203.0.113.9")
    assert (found, names) == ("203.0.113.9", ["Forwarded"])
    assert proxies.client("203.0.113.7", names.append) == "203.0.113.7"
    assert proxies.client(None, names.append) == proxies.client("", names.append) == "unix"
    assert len(names) == 1, "headers of peers that are not trusted are not read"
    assert Proxies(2).client("203.0.113.7", lambda _: None) == "203.0.113.7"
    with pytest.raises(TypeError, match=r"^header must be a str, got None$"):
        Proxies((), None)


# networks


NAT64 = ip_network("64:ff9b::/96")


@given(address=st.ip_addresses(), v4=st.integers(0, 32), v6=st.integers(0, 128))
def test_prefixes_are_those_of_the_standard_library(address, v4, v6):
    plain = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    if plain in NAT64:
        plain = ip_address(int(plain) % 2**32)
    length = v4 if plain.version == 4 else v6
    prefix = address_prefix(str(address), v4, v6)
    assert ip_network(prefix) == ip_network(f"{plain}/{length}", strict=False)
    assert client_address({}, [prefix], peer=str(address)) == client_address({}, peer=str(address))


@pytest.mark.parametrize(
    "trusted",
    ["::ffff:10.0.0.0/104", "::ffff:0:0/96", ip_network("10.0.0.0/8"), ip_address("10.0.0.1"), "10.0.0.1"],
)
def test_networks_written_in_other_ways(trusted):
    assert client_address(HEADERS, [trusted], peer="10.0.0.1") == "203.0.113.9"
    assert client_address(HEADERS, [trusted], peer="::ffff:10.0.0.1") == "203.0.113.9"
    assert client_address(HEADERS, [trusted], peer="::10.0.0.1") == "::10.0.0.1"


@given(network=st.ip_addresses(), address=st.ip_addresses(), length=st.integers(0, 128))
def test_networks_are_those_of_the_standard_library(network, address, length):
    length = min(length, network.max_prefixlen)
    trusted = ip_network(f"{network}/{length}", strict=False)
    if any(getattr(each, "ipv4_mapped", None) for each in (network, address)):
        return
    found = client_address({"X-Forwarded-For": "192.0.2.77"}, [f"{network}/{length}"], peer=str(address))
    assert (found == "192.0.2.77") is (address in trusted or str(address) == "192.0.2.77")


def test_a_unix_socket_is_a_network_of_its_own():
    assert address_prefix(client_address({"type": "http", "client": None}), 18, 48) == "unix"


def test_wrong_lengths():
    with pytest.raises(ValueError, match=r"v4 must be in \[0, 32\], got 40"):
        address_prefix("192.0.2.1", 40)
    with pytest.raises(TypeError, match="v6 must be an int, got '64'"):
        address_prefix("::1", v6="64")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("64:ff9b::1.2.3.4", "1.2.3.4/32"),
        ("64:ff9b::102:304", "1.2.3.4/32"),
        ("2002:102:304::1", "1.2.3.4/32"),
        ("2002:102:304:ffff::", "1.2.3.4/32"),
        ("64:ff9b:1::1.2.3.4", "64:ff9b:1::/64"),
        ("64:ff9b::1:102:304", "64:ff9b::/64"),
        ("2003:102:304::1", "2003:102:304::/64"),
    ],
)
def test_ipv4_that_ipv6_carries(address, network):
    assert address_prefix(address) == network
    limiter = AddressLimiter("1/h")
    assert limiter.allow(address)
    assert limiter.allow("1.2.3.4") is not network.startswith("1.2")


def test_what_an_address_carries_is_no_proof_of_where_it_comes_from():
    """Any client may send an address of 6to4 that carries the address of a proxy."""
    headers = {"X-Forwarded-For": "203.0.113.9, 2002:a00:1::1"}
    assert client_address(headers, trusted=["10.0.0.0/8"]) == "2002:a00:1::1"
