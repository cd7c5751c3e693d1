"""Header fields that no parser expects, random ones and such as were seen in the wild."""

REQUEST_NAMES = [
    "cache-control", "pragma", "range", "if-range", "if-none-match", "if-modified-since", "if-match",
    "if-unmodified-since", "cookie", "authorization", "forwarded", "accept-encoding", "accept",
]
RESPONSE_NAMES = [
    "cache-control", "cdn-cache-control", "vary", "etag", "last-modified", "date", "age", "expires",
    "pragma", "set-cookie", "cache-tag", "surrogate-key", "location", "content-location",
    "content-range", "content-type", "content-language", "trailer", "connection", "warning",
]
PARTS = [
    "max-age", "s-maxage", "no-cache", "no-store", "private", "public", "immutable", "must-revalidate",
    "stale-while-revalidate", "stale-if-error", "only-if-cached", "min-fresh", "max-stale", "=", ",", ";",
    '"', "\\", " ", "\t", "*", "-1", "0", "1", "60", "99999999999999999999", "0x10", "1.5", "\xff",
    "\x7f", "bytes", "=-5", "0-", "5-2", "W/", '"a"', "GMT", "Sun, 06 Nov 1994 08:49:37",
    "Thu, 01 Jan 1970", "accept", "cookie", "a" * 500, "/", "http://", "[::", "%", "../",
    "multipart/mixed", "é",
]
RECORDED = {
    "cache-control": ["max-age='60'", 'max-age="60"', "max-age=60, max-age=0", "private=\"set-cookie\"",
                      "no-cache=\"a, b\", max-age=9", "Max-Age = 60", "max-age=60;public", ",,,", "\"",
                      "max-age=", "no-store, no-cache, must-revalidate, post-check=0, pre-check=0"],
    "vary": ["*", ", *", "Accept-Encoding,,User-Agent", "accept-encoding, Accept-Encoding", "\"x\""],
    "expires": ["0", "-1", "Thu, 01-Jan-70 00:00:01 GMT", "Thu Jan  1 00:00:00 1970", "now"],
    "etag": ["abc", "W/abc", "w/\"a\"", "\"a\"b\"", "''", "\"\""],
    "range": ["bytes=0-0", "bytes=-0", "bytes=0-0,0-0,0-0", "bytes=" + ",".join(["0-1"] * 300), "bites=0-1",
              "bytes 0-1", "bytes=1-0", "bytes=99-"],
    "if-none-match": ["*", "\"a\", \"b\"", "W/\"a\"", "\"", ",", "\"a\"\"b\""],
    "forwarded": ["for=\"[2001:db8::1]:80\";proto=https", "for=_hidden, for=", ";;", "for=\"\\\""],
    "cookie": ["a=b; a=c", "=", ";", "a", "a=\"b;c\"", "\xff=\xff"],
}


def junk(random, names):
    """A few fields."""
    fields = []
    for _ in range(random.randrange(5)):
        name = random.choice(names)
        if name in RECORDED and random.random() < 0.4:
            value = random.choice(RECORDED[name])
        else:
            value = "".join(random.choices(PARTS, k=random.randrange(7)))
        fields.append((name, value))
    return fields
