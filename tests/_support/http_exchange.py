"""An HTTPCache between a client and an origin, without sockets, on clocks that a test moves."""

from email.utils import formatdate

from clocks import FakeClock

from headgate.httpcache import HTTPCache, Request

START = 1_796_000_000


class Failure(Exception):
    """The origin cannot be reached."""


class Reply:
    """What a client receives."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = b"".join(body) if isinstance(body, list) else bytes(body)

    def __getitem__(self, name):
        """The combined value of a field, None where there is none."""
        values = [value.decode("latin-1") for field, value in self.headers if field == name.lower().encode()]
        return ", ".join(values) if values else None


class Exchange:
    """Requests through a cache: `origin` is called with each one that is forwarded and returns a response.

    A response is a body, or a tuple of status, fields as a dict or pairs, and a body. Integers among fields
    are dates, in seconds from now. What was forwarded is in `forwarded`.
    """

    def __init__(self, origin=None, **options):
        self.clock = FakeClock(10**15)
        options = {"clock": self.clock, "wall_clock": self.wall_clock, **options}
        self.cache = HTTPCache(**options)
        self.origin = origin
        self.forwarded = []

    def wall_clock(self):
        return START * 10**9 + self.clock.now - 10**15

    def date(self, seconds=0):
        return formatdate(self.wall_clock() / 1e9 + seconds, usegmt=True)

    def advance(self, seconds):
        self.clock.advance(seconds)

    def request(self, url="http://example.com/", headers=(), method="GET"):
        scheme, _, rest = url.partition("://")
        host, slash, target = rest.partition("/")
        pairs = headers.items() if isinstance(headers, dict) else headers
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
        return Request(method, scheme, (slash + target).encode(), [(b"host", host.encode()), *fields])

    def get(self, url="http://example.com/", headers=(), method="GET"):
        request = self.request(url, headers, method)
        status, fields, body = self._answer(request)
        self.cache._check()
        return Reply(status, fields, body)

    def _answer(self, request):
        cache = self.cache
        lookup = cache.lookup(request)
        if lookup.kind == "hit":
            return cache.serve(request, lookup)
        if lookup.kind == "refuse":
            return cache.refusal(lookup)
        if lookup.kind == "stale":
            served = cache.serve(request, lookup)
            self._fetch(request, lookup)
            return served
        return self._fetch(request, lookup)

    def _fetch(self, request, lookup):
        cache, requested_at = self.cache, self.cache.now()
        try:
            status, fields, body = self._forward(request, lookup.forward_headers)
        except Failure:
            stored = cache.on_error(lookup)
            if stored is None:
                raise
            return cache.serve(request, lookup, stored, outcome="error")
        if lookup.stored is not None and status == 304 and lookup.kind != "pass":
            stored = cache.validated(lookup, request, fields, requested_at)
            return cache.serve(request, lookup, stored, outcome="validated")
        if (stored := cache.on_error(lookup, status)) is not None:
            return cache.serve(request, lookup, stored, outcome="error")
        if lookup.unsafe:
            cache.invalidate(request, status, fields)
        admission = cache.admit(lookup, request, status, fields, requested_at)
        stored = admission and admission.store(body)
        if stored is not None and cache.evaluates(request):
            return cache.serve(request, lookup, stored, outcome="stored")
        return status, cache.pass_headers(lookup, fields, status, stored=stored is not None), body

    def _forward(self, request, headers):
        self.forwarded.append((request.method, headers))
        answer = self.origin(request)
        status, fields, body = answer if isinstance(answer, tuple) else (200, {}, answer)
        pairs = fields.items() if isinstance(fields, dict) else fields
        return status, [
            (name.lower().encode(), (self.date(value) if isinstance(value, int) else value).encode("latin-1"))
            for name, value in pairs
        ], body

    def sent(self, name):
        """The value of a field of the last request that was forwarded, None where it had none."""
        values = [value.decode("latin-1") for field, value in self.forwarded[-1][1] if field == name.encode()]
        return values[0] if values else None

    def is_cached(self, url="http://example.com/", headers=(), method="GET"):
        """Whether a request is served without being forwarded."""
        before = len(self.forwarded)
        self.get(url, headers, method)
        return len(self.forwarded) == before


def answering(*fields, status=200, body=b"body"):
    """An origin that always gives one response, with these pairs of names and values."""
    return lambda request: (status, fields, body)
