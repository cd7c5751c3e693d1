"""Fields of messages that a proxy passes on, against a naive model and for those who mean harm."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import client_address
from headgate.adapters.proxy import (
    Hop,
    Refusal,
    end_to_end,
    host_of,
    is_plain_path,
    is_unambiguous,
    refusal_of,
    without_connection_options,
)

OF_ONE_CONNECTION = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authentication-info",
    b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"}
FOR_ALL = {b"host", b"content-length", b"cache-control", b"vary", b"via", b"cdn-loop", b"transfer-encoding",
           b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"}
NAMES = [*OF_ONE_CONNECTION, *FOR_ALL, b"cookie", b"x-a", b"x-b", b"x_a", b"x-edge-region",
         b"x-forwarded-port", b"accept-language", b"proxy",
         b"expect"]
VALUES = st.one_of(
    st.sampled_from([b"", b",", b"close", b"X-A", b"x-a, x-b ,, via", b"\t x-b\t,host", b"Cookie;q=1",
                     b"paris", b"1.1 paris", b"192.0.2.7", b"::1, [::1]:80", b"unknown", b"_x, 10.0.0.1:5",
                     b"https"]),
    st.binary(max_size=12).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value)))
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=12)


def joined(fields, name):
    return b", ".join(value for field, value in fields if field == name)


@given(FIELDS)
def test_fields_of_one_connection_are_removed(fields):
    named = {part.strip(b" \t").lower() for name, value in fields if name == b"connection"
             for part in value.split(b",")}
    kept = [field for field in fields if field[0] not in named or field[0] in FOR_ALL]
    assert without_connection_options(fields) == kept
    assert end_to_end(fields) == [field for field in kept if field[0] not in OF_ONE_CONNECTION]


@given(FIELDS, st.sampled_from(
    ["10.0.0.1", "::ffff:10.0.0.1", "192.0.2.1", "fe80::1%eth0", "2001:db8::1", None, "x"]))
def test_a_request_is_passed_on_with_each_field_of_proxies_once(fields, peer):
    hop = Hop("paris", ["10.0.0.0/8", "unix"], internal=["X-Edge-"])
    passed = hop.request_fields(fields, peer, "http", "1.1")
    names = [name for name, _ in passed]
    for name in (b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"cdn-loop"):
        assert names.count(name) == 1
    assert names.count(b"host") <= 1 and names.count(b"cookie") <= 1
    assert not {b"x_a", b"x-edge-region", b"x-forwarded-port", b"proxy", b"expect"} & set(names)
    assert not OF_ONE_CONNECTION & set(names)
    assert hop.is_loop(passed), "the next time"
    given_for, made_for = joined(fields, b"x-forwarded-for"), joined(passed, b"x-forwarded-for")
    if not hop.trusts(peer):
        assert given_for == b"" or made_for == b"unknown" or b"," not in made_for
    assert b",," not in made_for and not made_for.startswith(b",")
    again = Hop("tokyo", ["10.0.0.0/8"]).request_fields(passed, "10.9.9.9", "http", "1.1")
    assert joined(again, b"cdn-loop").endswith(b"paris, tokyo")
    assert joined(again, b"x-forwarded-for") == made_for + b", 10.9.9.9"


@given(FIELDS, st.sampled_from(["10.0.0.1", "192.0.2.1", "2001:db8::1"]))
def test_origins_learn_the_same_client_by_either_field(fields, peer):
    """The client that this hop sees is the one that an origin sees that trusts the hop and its proxies."""
    trusted = ["10.0.0.0/8"]
    passed = Hop("paris", trusted).request_fields(fields, peer, "http", "1.1")
    wanted = client_address({"headers": fields, "client": (peer, 1)}, trusted)
    for header in ("X-Forwarded-For", "Forwarded"):
        scope = {"headers": passed, "client": ("10.1.1.1", 2)}
        assert client_address(scope, trusted, header=header) == wanted


def test_a_client_that_is_not_trusted_says_nothing_of_itself():
    fields = [(b"host", b"a"), (b"forwarded", b"for=6.6.6.6"), (b"x-forwarded-for", b"6.6.6.6"),
              (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"evil"),
              (b"x_forwarded_for", b"6.6.6.6")]
    passed = Hop("paris", ["10.0.0.1"]).request_fields(fields, "192.0.2.1", "http", "2")
    assert passed == [
        (b"host", b"a"), (b"via", b"2 paris"), (b"forwarded", b"for=192.0.2.1;host=a;proto=http"),
        (b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-host", b"a"), (b"x-forwarded-proto", b"http"),
        (b"cdn-loop", b"paris")]


def test_forwarded_is_made_of_the_field_that_is_believed():
    """A trusted proxy that knows X-Forwarded-For alone passes on what its client says in Forwarded."""
    fields = [(b"x-forwarded-for", b"192.0.2.7"), (b"forwarded", b"for=6.6.6.6")]
    passed = Hop("paris", ["10.0.0.1"]).request_fields(fields, "10.0.0.1", "http", "1.1")
    assert joined(passed, b"forwarded") == b"for=192.0.2.7, for=10.0.0.1;proto=http"


@pytest.mark.parametrize("host, written", [
    (b"a.example", b"a.example"), (b"a:80", b'"a:80"'), (b"[::1]", b'"[::1]"'), (b'a"b\\', b'"a\\"b\\\\"')])
def test_the_host_in_forwarded_is_quoted_where_it_is_no_token(host, written):
    passed = Hop("paris").request_fields([(b"host", host)], None, "http", "1.1")
    assert joined(passed, b"forwarded") == b"for=unknown;host=" + written + b";proto=http"


def test_a_proxy_at_a_unix_socket_has_no_address():
    hop, fields = Hop("paris", ["unix"]), [(b"x-forwarded-for", b"192.0.2.7, ,")]
    assert joined(hop.request_fields(fields, None, "http", "1.1"), b"x-forwarded-for") == b"192.0.2.7"
    assert joined(hop.request_fields([], "", "http", "1.1"), b"x-forwarded-for") == b"unknown"


def test_cookies_of_http2_become_one():
    fields = [(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]
    assert joined(Hop("paris").request_fields(fields, None, "http", "2"), b"cookie") == b"a=1; b=2"


@pytest.mark.parametrize("fields, is_loop", [
    ([(b"cdn-loop", b"paris")], True), ([(b"cdn-loop", b"other; a=b"), (b"cdn-loop", b"PARIS ; x")], True),
    ([(b"cdn-loop", b"paris2, not paris")], False), ([(b"via", b"1.1 a, HTTP/1.0 Paris (a proxy)")], True),
    ([(b"via", b"1.1 paris.example")], False), ([(b"via", b"paris")], False), ([(b"via", b",," * 50)], False),
    ([(b"via", b", ".join([b"1.1 a"] * 8))], False), ([(b"via", b"1.1 a")] * 9, True), ([], False),
])
def test_loops(fields, is_loop):
    assert Hop("paris").is_loop(fields) is is_loop


def test_a_response_is_passed_on_with_via():
    fields = [(b"via", b"1.1 a"), (b"connection", b"x-a, cache-control"), (b"x-a", b"1"),
              (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"cache-control", b"no-store"),
              (b"via", b"1.0 b"), (b"x_y", b"z")]
    assert Hop("paris").response_fields(fields, "1.0") == [
        (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"cache-control", b"no-store"), (b"x_y", b"z"),
        (b"via", b"1.1 a, 1.0 b, 1.0 paris")]


@pytest.mark.parametrize("said, peer, scheme", [
    (b"https", "10.0.0.1", "https"), (b"HTTPS", "10.0.0.1", "https"), (b"https", "192.0.2.1", "http"),
    (b"gopher", "10.0.0.1", "http"), (b"https, http", "10.0.0.1", "http"), (b"", "10.0.0.1", "http")])
def test_schemes(said, peer, scheme):
    assert Hop("paris", ["10.0.0.1"]).scheme([(b"x-forwarded-proto", said)], peer, "http") == scheme


HOSTS = {
    b"a": "a", b"A.B-c_d.": "a.b-c_d", b"a.:80": "a", b"a..": "a.", b"a:80": "a", b"[::1]": "[::1]",
    b"[2001:DB8::1]:8443": "[2001:db8::1]",
    b"127.0.0.1:1": "127.0.0.1", b"": None, b"a:": None, b"a:x": None, b"a:123456": None, b"me@a": None,
    b"a/b": None, b"a,b": None, b"a b": None, b"::1": None, b"[::1": None, b"[:::]": None, b"[v1.x]": None,
    b"[1.2.3.4]": None, b"-a": None, b".a": None, b"\xc3\xa4": None, b"a\n": None, b"a%00": None}


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host):
    assert host_of([(b"x", b"y"), (b"host", host)]) == HOSTS[host]
    assert host_of([(b"host", host), (b"host", host)]) is None


@pytest.mark.parametrize("fields, found", [
    ([], True), ([(b"content-length", b"0")], True), ([(b"content-length", b"5")] * 2, False),
    *[([(b"content-length", value)], False)
      for value in (b"", b"+5", b"-1", b"0x5", b"1_0", b"5, 5", b"5 ", b" 5", b"1" * 19, "٣".encode())],
    ([(b"transfer-encoding", b"Chunked")], True),
    *[([(b"transfer-encoding", value)], False)
      for value in (b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked, identity", b"\x0bchunked",
                    b"xchunked")],
    ([(b"transfer-encoding", b"chunked")] * 2, False),
    ([(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], False),
    *[([(b"x", bytes([code]))], code == 9 or (code >= 32 and code != 127)) for code in range(256)],
    *[([(name, b"x")], False) for name in (b"", b"x y", b"x:", b"x\n", b"x\xe4", b"x[]")],
])
def test_what_is_ambiguous(fields, found):
    assert is_unambiguous(fields) is found


@given(st.text(alphabet="/.a;\\%", max_size=12))
def test_a_plain_path_is_its_own_normal_form(path):
    """However a server splits it and whether it drops parameters of segments."""
    def without_dots(text):
        return [part for part in text.split("/") if part not in (".", "..")]

    normal = path.replace("\\", "/")
    forms = [normal, re.sub(r";[^/]*", "", normal)]
    plain = path.startswith("/") and all(without_dots(form) == form.split("/") for form in forms)
    assert is_plain_path(path) == plain


@pytest.mark.parametrize("path", ["", "*", "a", "http://a/", "/\0", "/a\r\nb", "/\x7f"])
def test_paths_that_are_none(path):
    assert not is_plain_path(path)


def test_refusals():
    fields = [(b"host", b"a")]
    assert refusal_of("GET", "/", iter(fields)) is None
    assert refusal_of("GET", "/", []) == Refusal(400, "There must be one Host, and it must be valid.")
    assert refusal_of("OPTIONS", "*", fields).status == refusal_of("GET", "/..", fields).status == 400
    assert refusal_of("GET", "/", [*fields, (b"content-length", b"x")]).status == 400
    assert refusal_of("CONNECT", "/", fields).status == refusal_of("TRACE", "/", fields).status == 501


@pytest.mark.parametrize("arguments, options, error", [
    ((b"a",), {}, r"name must be a str, got b'a'"), (("",), {}, r"name must be a token.*got ''"),
    (("a b",), {}, r"name must be a token.*got 'a b'"), (("a", 5), {}, r"trusted must be an iterable, got 5"),
    (("a", ["x"]), {}, r"trusted must be addresses.*got 'x'"),
    (("a", "10.0.0.1"), {}, r"trusted must be an iterable"),
    (("a",), {"internal": "x-"}, r"internal must be an iterable, got 'x-'"),
    (("a",), {"internal": [""]}, r"internal must be beginnings of names, got ''"),
    (("a",), {"internal": [b"x"]}, r"internal must be beginnings of names, got b'x'"),
    (("a",), {"max_hops": 0}, r"max_hops must be positive, got 0"),
    (("a",), {"max_hops": "1"}, r"max_hops must be an int, got '1'"),
])
def test_errors_of_hops(arguments, options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Hop(*arguments, **options)
