"""Extractors over request views."""

import sqlite3

import pytest
from asgi_driver import scope_of

from headgate.adapters.asgi import ASGIRequest
from headgate.adapters.keys import client, const, cookie, header, identity, method, path, route, user


def request(peer="127.0.0.1", forwarded=(), name="X-Forwarded-For", **more):
    lines = [forwarded] if isinstance(forwarded, str) else forwarded
    return ASGIRequest(scope_of(headers=[(name, line) for line in lines], client=peer and (peer, 5), **more))


class TestClient:
    @pytest.mark.parametrize(("peer", "expected"), [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8::1%eth0", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
        ("", "unix"),
        (None, "unix"),
    ])
    def test_the_peer_by_its_network(self, peer, expected):
        assert client()(request(peer)) == expected
        assert client()(request(peer, "9.9.9.9")) == expected

    def test_lengths_of_prefixes(self):
        assert client(v4=24)(request("192.0.2.1")) == "192.0.2.0/24"
        assert client(v6=48)(request("2001:db8:1:2::1")) == "2001:db8:1::/48"
        assert client(v6=128)(request("2001:db8:1:2::1")) == "2001:db8:1:2::1"

    @pytest.mark.parametrize(("trusted", "expected"), [
        ("127.0.0.1", "1.2.3.4"),
        (["127.0.0.1"], "1.2.3.4"),
        (["10.0.0.1", "127.0.0.0/24"], "1.2.3.4"),
        (["127.0.0.1", "1.2.3.4"], "1.2.3.4"),  # a client on the proxy's own host
        (["192.168.0.1"], "127.0.0.1"),
        (["192.168.0.0/16"], "127.0.0.1"),
        (["2001:db8::/32"], "127.0.0.1"),
        (1, "1.2.3.4"),
        (0, "127.0.0.1"),
    ])
    def test_only_what_trusted_proxies_wrote_counts(self, trusted, expected):
        assert client(trusted)(request("127.0.0.1", "1.2.3.4")) == expected

    @pytest.mark.parametrize(("trusted", "expected"), [
        (["127.0.0.1", "10.0.2.1", "192.168.0.2"], "1.2.3.4"),
        (["10.0.2.1", "192.168.0.2", "127.0.0.1"], "1.2.3.4"),
        (["192.168.0.2", "127.0.0.1"], "10.0.2.1"),
        (["127.0.0.1", "10.0.0.0/8", "192.168.0.2"], "1.2.3.4"),
        (3, "1.2.3.4"),
        (2, "10.0.2.1"),
    ])
    @pytest.mark.parametrize("forwarded", [
        "1.2.3.4, 10.0.2.1, 192.168.0.2",
        ["1.2.3.4", "10.0.2.1", "192.168.0.2"],
        ["9.9.9.9, 1.2.3.4", "10.0.2.1 ,192.168.0.2"],
        "1.2.3.4:1234, 10.0.2.1:80, 192.168.0.2:9000",
    ])
    def test_several_proxies(self, trusted, forwarded, expected):
        forwarded = forwarded if trusted != 3 else "8.8.8.8, 1.2.3.4, 10.0.2.1, 192.168.0.2"
        assert client(trusted)(request("127.0.0.1", forwarded)) == expected

    @pytest.mark.parametrize(("forwarded", "expected"), [
        ("", "127.0.0.1"),
        (" , ", "127.0.0.1"),
        (" , 10.0.0.1", "10.0.0.1"),  # the proxy that wrote an entry that is none
        ("9.9.9.9 , , , 10.0.0.1", "10.0.0.1"),
        (", , 9.9.9.9", "9.9.9.9"),
        ("9.9.9.9, unknown, 10.0.0.1", "10.0.0.1"),
        ("1.2.3.4, \xf0\xfd\xfd\xfd, unix:, 10.0.0.1", "10.0.0.1"),
        ("[2001:db8::1]:443, 10.0.0.1", "2001:db8::/64"),
        ("[2001:db8::1], 10.0.0.1", "2001:db8::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("9" * 9000, "127.0.0.1"),
        ("1.2.3.4, " * 2000 + "5.6.7.8", "5.6.7.8"),
    ])
    def test_malformed_entries(self, forwarded, expected):
        assert client(["127.0.0.1", "10.0.0.0/8"])(request("127.0.0.1", forwarded)) == expected

    def test_forwarded(self):
        extract = client(["127.0.0.1", "10.0.0.0/8"], header="Forwarded")
        lines = ['for=9.9.9.9, For="[2001:db8::1]:443";proto=https', "by=10.0.0.1;for=10.0.0.2"]
        assert extract(request("127.0.0.1", lines, "Forwarded")) == "2001:db8::/64"
        assert extract(request("127.0.0.1", "for=_hidden", "Forwarded")) == "127.0.0.1"
        assert extract(request("127.0.0.1", "1.2.3.4", "X-Forwarded-For")) == "127.0.0.1"

    def test_a_unix_socket(self):
        assert client(["unix"])(request(None, "1.2.3.4")) == "1.2.3.4"
        assert client(["127.0.0.1"])(request(None, "1.2.3.4")) == "unix"

    @pytest.mark.parametrize(("arguments", "error"), [
        ({"trusted": ["proxy"]}, ValueError), ({"trusted": -1}, ValueError), ({"trusted": 1.5}, TypeError),
        ({"v4": 33}, ValueError), ({"v6": "64"}, TypeError), ({"header": None}, TypeError),
    ])
    def test_arguments_are_checked(self, arguments, error):
        with pytest.raises(error, match=next(iter(arguments))):
            client(**arguments)


def test_headers():
    extract = header("X-Team")
    assert extract(request(forwarded=["red", "blue"], name="x-team")) == "red"
    assert extract(request()) is None


@pytest.mark.parametrize(("lines", "expected"), [
    (["sid=1"], "1"), (['a=b; sid="1" ;c=d'], "1"), (["a=b", "sid=1"], "1"), (["SID=1"], None),
    (["sid"], None), (["sid="], ""), (["sid=1; sid=2"], "2"), (["sid=a=b"], "a=b"), ([], None),
    (["\xff;=;;; sid=1"], "1"),
])
def test_cookies(lines, expected):
    assert cookie("sid")(request(forwarded=lines, name="cookie")) == expected


@pytest.mark.parametrize("extractor", [header, cookie])
@pytest.mark.parametrize(("name", "error"), [(b"x", TypeError), ("", ValueError), ("é", ValueError)])
def test_names_are_checked(extractor, name, error):
    with pytest.raises(error, match="name must be"):
        extractor(name)


def test_what_a_request_is_made_of():
    view = ASGIRequest(scope_of("/é", method="PUT", query_string=b"a=%20"))
    assert (path()(view), method()(view), route()(view), user()(view)) == ("/é", "PUT", None, None)
    assert (view.query, view.scheme, view.host) == ("a=%20", "http", "")
    assert path()(ASGIRequest({"path": "/\udcff"})) == "/?"
    assert const("all")(view) == "all"
    with pytest.raises(TypeError, match="value must be a str, got 1"):
        const(1)


class User:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Anonymous(User):
    @property
    def identity(self):
        raise NotImplementedError


@pytest.mark.parametrize(("found", "expected"), [
    (None, None), ("ann", "ann"), (User(is_authenticated=False, pk=7), None),
    (User(is_authenticated=True, pk=7, username="ann"), "7"), (User(identity="a1"), "a1"),
    (Anonymous(is_authenticated=True, username="ann"), "ann"), (User(pk=None), None),
    (User(pk=None, id=7), "7"), (7, "7"), ({"id": 7, "name": "Ann"}, "7"), ({"username": "ann"}, "ann"),
])
def test_users(found, expected):
    assert identity(found) == expected


def test_a_user_that_is_a_row():
    database = sqlite3.connect(":memory:")
    try:
        database.row_factory = sqlite3.Row
        assert identity(database.execute("SELECT 'Ann' AS name, 7 AS id").fetchone()) == "7"
    finally:
        database.close()


@pytest.mark.parametrize("found", [object(), User(), User(email="ann@example.com"), {}, {"email": "a"}, (7,)])
def test_users_whom_nothing_identifies(found):
    with pytest.raises(TypeError, match="user must have one of pk, identity, username, id, display_name"):
        identity(found)
