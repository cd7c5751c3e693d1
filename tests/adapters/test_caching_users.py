"""CachingTransport of a program that acts for several users."""

import httpx

from headgate.adapters.httpx import CachingTransport
from headgate.httpcache import HTTPCache


def test_what_came_with_credentials_is_for_those_only():
    def origin(request):
        user = request.headers.get("authorization", "nobody")
        return httpx.Response(200, headers={"cache-control": "private, max-age=60"}, text=user)

    transport = CachingTransport(HTTPCache(shared=False), httpx.MockTransport(origin))
    with httpx.Client(transport=transport) as client:
        for outcome in ("fwd", "hit"):
            for token in ("alice", "bob"):
                response = client.get("http://example.com/me", headers={"authorization": token})
                assert response.text == token
                assert outcome in response.headers["cache-status"]
        assert client.get("http://example.com/me").text == "nobody"
        assert client.get("http://example.com/me", headers={"authorization": "alice"}).text == "alice"


def test_public_responses_are_for_all_credentials():
    def origin(request):
        return httpx.Response(200, headers={"cache-control": "public, max-age=60"}, text="all")

    transport = CachingTransport(HTTPCache(shared=False), httpx.MockTransport(origin))
    with httpx.Client(transport=transport) as client:
        for token in ("alice", "bob"):
            assert client.get("http://example.com/", headers={"authorization": token}).text == "all"
    assert transport.cache.stats().hits == 1


def test_a_login_that_fails_first_is_not_stored():
    def origin(request):
        if "authorization" not in request.headers:
            return httpx.Response(401, headers={"www-authenticate": "Basic", "cache-control": "max-age=0"})
        return httpx.Response(200, headers={"cache-control": "max-age=60"}, text="in")

    transport = CachingTransport(HTTPCache(shared=False), httpx.MockTransport(origin))
    with httpx.Client(transport=transport, follow_redirects=True) as client:
        assert client.get("http://example.com/").status_code == 401
        assert [client.get("http://example.com/", auth=("a", "b")).text for _ in range(2)] == ["in", "in"]
        assert transport.cache.stats().hits == 1


def test_redirects_hooks_and_cookies_see_stored_responses_as_others():
    seen = []

    def origin(request):
        if request.url.path == "/old":
            return httpx.Response(301, headers={"location": "/new", "cache-control": "max-age=60"})
        fields = {"cache-control": "max-age=60", "set-cookie": "a=b"}
        return httpx.Response(200, headers=fields, text="new")

    transport = CachingTransport(HTTPCache(shared=False), httpx.MockTransport(origin))
    hooks = {"response": [lambda response: seen.append(response.headers["cache-status"][:13])]}
    with httpx.Client(transport=transport, follow_redirects=True, event_hooks=hooks) as client:
        for _ in range(2):
            assert client.get("http://example.com/old").text == "new"
        assert client.cookies["a"] == "b"
    assert seen == ["headgate; fwd", "headgate; fwd", "headgate; hit", "headgate; hit"]
