"""Recorded header fields, whole and damaged, and random ones, through every decision: nothing raises."""

import random

import pytest
from http_exchange import START, Exchange

RECORDED = {
    "cache-control": [
        "public, max-age=31536000, immutable", "private, no-cache, no-store, max-age=0, must-revalidate",
        "no-cache=\"Set-Cookie\", max-age=600",
        "s-maxage=60, stale-while-revalidate=300, stale-if-error=86400",
        "max-age=0, private, must-revalidate", "no-transform, max-age=\"60\"", "only-if-cached, max-stale",
        "=,=;\"",
    ],
    "cdn-cache-control": ["max-age=600, stale-while-revalidate=60", "private", "max-age=?1;a=(1 2)"],
    "vary": ["Accept-Encoding", "Accept-Encoding, Origin, X-Requested-With", "*", "accept-language,cookie",
    ",,"],
    "range": ["bytes=0-499", "bytes=-500", "bytes=0-0,-1", "bytes=500-600,601-999", "bytes=0-", "items=1-2"],
    "if-range": ["\"abc\"", "W/\"abc\"", "Sun, 06 Nov 1994 08:49:37 GMT"],
    "if-none-match": ["\"737060cd8c284d8af7ad3082f209582d\"", "W/\"0815\", \"x\"", "*", "\"a\"\"b"],
    "if-modified-since": ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "0", "now"],
    "if-match": ["*", "\"a\""],
    "if-unmodified-since": ["Sun Nov  6 08:49:37 1994"],
    "cookie": ["_ga=GA1.2.1234.5678; session=eyJhbGciOiJIUzI1NiJ9..; lang=de", "a=b; ;; =", "{\"json\": 1}"],
    "set-cookie": ["sid=31d4d96e407aad42; Path=/; Secure; HttpOnly", "=; ;",
    "lang=de; Expires=Thu, 01 Jan 1970"],
    "etag": ["\"737060cd8c284d8af7ad3082f209582d\"", "W/\"0815\"", "unquoted", ""],
    "last-modified": ["Sun, 06 Nov 1994 08:49:37 GMT", "-1"],
    "expires": ["Thu, 19 Nov 1981 08:52:00 GMT", "0", "-1", "Fri, 01 Jan 2038 01:01:01 GMT"],
    "date": ["Mon, 30 Nov 2026 10:00:00 GMT", "yesterday"],
    "age": ["0", "12, 13", "-5", "1e9"],
    "accept-language": ["en-US,en;q=0.9,de;q=0.8", "*", "de-CH-1996;q=1.000, x;q=9", ";q="],
    "accept-encoding": ["gzip, deflate, br, zstd", "identity;q=0, *;q=0", "gzip;q=0.8;q=0.1"],
    "content-length": ["4", "0", "-4", "4, 4", "99999999999999999999"],
    "content-language": ["de", "de, en", ""],
    "content-location": ["/a", "http://[::1", "//", "http://\xfc/", "?"],
    "location": ["/a", "http://example.com:99999/", "\x00", "http://a b/"],
    "connection": ["keep-alive, x-a", "close", ",,"],
    "cache-tag": ["a, b c", ",", "\x7f"],
    "pragma": ["no-cache"],
    "host": ["example.com", "EXAMPLE.com:443", "[::1]:8000", "", "a b"],
}
ALPHABET = "".join(map(chr, range(256)))


def damaged(draw, value):
    """A value with some of its characters removed, replaced, or followed by others, up to all of it."""
    for _ in range(draw.randrange(4)):
        at, length = draw.randrange(len(value) + 1), draw.randrange(5)
        value = value[:at] + "".join(draw.choices(ALPHABET, k=draw.randrange(5))) + value[at + length:]
    return value


def fields(draw):
    names = draw.choices(list(RECORDED), k=draw.randrange(7))
    return [(name, damaged(draw, draw.choice(RECORDED[name]))) for name in names]


@pytest.mark.parametrize("shared", [True, False])
def test_nothing_raises(shared):
    draw = random.Random(START)
    web = Exchange(shared=shared, maxsize=100_000, stale_if_error=60, default_ttl=10, set_cookie="store")
    statuses = [200, 200, 200, 204, 206, 301, 304, 404, 500, 503, 999]
    methods = ["GET", "GET", "GET", "GET", "HEAD", "POST", "junk"]
    for _ in range(5000):
        web.origin = lambda request: (draw.choice(statuses), fields(draw), draw.randbytes(draw.randrange(8)))
        target = draw.choice(["", "a", "a?b", "%7e%zz%", damaged(draw, "a/b?c")])
        request = web.request(f"http://example.com/{target}".encode().decode("latin-1"), fields(draw),
                              draw.choice(methods))
        web._answer(request)
        web.advance(draw.choice([0, 0, 1, 20, -5]))
    web.cache._check()
    stats = web.cache.stats()
    assert min(stats.hits, stats.misses, stats.passes, stats.stored, stats.purged) > 50
