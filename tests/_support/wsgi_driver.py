"""A driver for WSGI applications, without a server."""

import io
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator


def environ_of(path="/", *, method="GET", headers=(), client="192.0.2.1", **more):
    environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
               "REMOTE_ADDR": client, "HTTP_HOST": "example.com", "wsgi.input": io.BytesIO(),
               "wsgi.errors": io.StringIO(), "wsgi.file_wrapper": FileWrapper}
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers}
    setup_testing_defaults(environ)
    return environ | more


class Response:
    """What an application has sent, by return and by write()."""

    def __init__(self):
        self.starts = []
        self.body = b""
        self.returned = None

    def start(self, status, headers, exc_info=None):
        if self.body and exc_info:
            raise exc_info[1]
        assert not self.starts or exc_info, "started twice"
        self.starts.append((status, headers))
        return self._write

    def _write(self, data):
        assert self.starts, "not started"
        self.body += data

    @property
    def status(self):
        return int(self.starts[-1][0].split()[0])

    @property
    def fields(self):
        """The header fields; a name that occurs twice is an error."""
        headers = self.starts[-1][1]
        fields = {name.lower(): value for name, value in headers}
        assert len(fields) == len(headers), headers
        return fields


def call(app, environ):
    """The response of an application, which is closed as a server closes it."""
    response = Response()
    response.returned = app(environ, response.start)
    try:
        for data in response.returned:
            response._write(data)
    finally:
        if hasattr(response.returned, "close"):
            response.returned.close()
    assert response.starts
    return response


def get(app, path="/", **options):
    """A request that is checked against PEP 3333, as is the application's side of it."""
    return call(validator(app), environ_of(path, **options))


def hello(environ, start_response):
    """An application that responds to whatever it gets."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"hello"]
