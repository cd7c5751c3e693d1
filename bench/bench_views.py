"""What limits cost in WSGI, Flask and Django, beside what people use: ``python bench/bench_views.py``.

Measured as in bench_http.py. Denials are those of a client whose burst is used up.
"""

import logging
import sys
from types import ModuleType

import django
import flask_limiter
from bench_http import PLENTY, in_wsgi, report
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path
from flask import Flask
from flask_limiter.util import get_remote_address

from headgate import RateLimits
from headgate.adapters import flask, wsgi
from headgate.adapters.keys import client, header

THEIR_PLENTY = "1000000000/minute"
SITE = ModuleType("site")
LIMITS = "headgate.adapters.django.RateLimitMiddleware"


def plain(environ, start_response):
    """The plainest application."""
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def in_plain_wsgi():
    levels = RateLimits(ip=PLENTY, user=PLENTY)
    report("WSGI, plain application", in_wsgi(plain), {
        "by client": in_wsgi(wsgi.RateLimitMiddleware(plain, PLENTY, keys=client())),
        "by client, without header fields": in_wsgi(
            wsgi.RateLimitMiddleware(plain, PLENTY, keys=client(), headers=None)),
        "client and user, behind a trusted proxy": in_wsgi(wsgi.RateLimitMiddleware(
            plain, levels, keys={"ip": client(trusted=["10.0.0.0/8"]), "user": header("X-User")})),
        "by client, denied": in_wsgi(wsgi.RateLimitMiddleware(plain, "1/day", keys=client())),
    })


def hello():
    return "hello"


def flask_app(*decorators):
    app, view = Flask("bench"), hello
    for decorate in decorators:
        view = decorate(view)
    app.add_url_rule("/", "view", view)
    return app


def with_flask_limiter(rate):
    app = Flask("bench")
    limiter = flask_limiter.Limiter(get_remote_address, app=app, storage_uri="memory://",
                                    headers_enabled=True)
    app.add_url_rule("/", "view", limiter.limit(rate)(hello))
    return app


def in_flask():
    report("Flask", in_wsgi(flask_app()), {
        "limit": in_wsgi(flask_app(flask.limit(PLENTY))),
        "limit, without header fields": in_wsgi(flask_app(flask.limit(PLENTY, headers=None))),
        "two limits": in_wsgi(flask_app(flask.limit(PLENTY), flask.limit(PLENTY))),
        "flask-limiter": in_wsgi(with_flask_limiter(THEIR_PLENTY)),
    }, "flask-limiter")
    report("Flask, denied", in_wsgi(flask_app()), {
        "limit": in_wsgi(flask_app(flask.limit("1/day"))),
        "RateLimitMiddleware": in_wsgi(wsgi.RateLimitMiddleware(flask_app(), "1/day", keys=client())),
        "flask-limiter": in_wsgi(with_flask_limiter("1/day")),
    }, "flask-limiter")


def configure():
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    settings.configure(
        ALLOWED_HOSTS=["*"], CACHES={"default": cache}, LOGGING_CONFIG=None, MIDDLEWARE=[], ROOT_URLCONF=SITE,
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], SECRET_KEY="bench",
        HEADGATE_RATE_LIMITS={"limits": PLENTY, "keys": client()},
    )
    django.setup()
    logging.disable()


def in_django():
    configure()
    from django_ratelimit.decorators import ratelimit as theirs
    from rest_framework.response import Response
    from rest_framework.throttling import AnonRateThrottle
    from rest_framework.views import APIView

    from headgate.adapters.django import Throttle, ratelimit

    def view(request):
        return HttpResponse("hello")

    def api(*throttles):
        return type("View", (APIView,), {"throttle_classes": throttles, "get": get}).as_view()

    def get(self, request):
        return Response("hello")

    def throttle(base, rate):
        return type("Own", (base,), {"rate": rate})

    SITE.urlpatterns = [
        path("bare", view), path("ratelimit", ratelimit(PLENTY)(view)),
        path("silent", ratelimit(PLENTY, headers=None)(view)),
        path("theirs", theirs(key="ip", rate="1000000000/m")(view)),
        path("denied", ratelimit("1/day")(view)), path("theirs-denied", theirs(key="ip", rate="1/d")(view)),
        path("api", api()), path("throttle", api(throttle(Throttle, PLENTY))),
        path("throttle-denied", api(throttle(Throttle, "1000/day"))),
        path("their-throttle", api(throttle(AnonRateThrottle, "1000/day"))),
    ]
    site = WSGIHandler()
    settings.MIDDLEWARE = [LIMITS]
    limited = WSGIHandler()
    report("Django", in_wsgi(site, "/bare"), {
        "RateLimitMiddleware": in_wsgi(limited, "/bare"),
        "ratelimit": in_wsgi(site, "/ratelimit"),
        "ratelimit, without header fields": in_wsgi(site, "/silent"),
        "django-ratelimit, LocMemCache": in_wsgi(site, "/theirs"),
    }, "django-ratelimit, LocMemCache")
    report("Django, denied", in_wsgi(site, "/bare"), {
        "ratelimit": in_wsgi(site, "/denied"),
        "django-ratelimit, LocMemCache": in_wsgi(site, "/theirs-denied"),
    }, "django-ratelimit, LocMemCache")
    report("REST framework", in_wsgi(site, "/api"), {"Throttle": in_wsgi(site, "/throttle")})
    report("REST framework, 1,000 a day, denied", in_wsgi(site, "/api"), {
        "Throttle": in_wsgi(site, "/throttle-denied"),
        "AnonRateThrottle, LocMemCache": in_wsgi(site, "/their-throttle"),
    }, "AnonRateThrottle, LocMemCache")


if __name__ == "__main__":
    print(f"CPython {sys.version.split()[0]}, Django {django.__version__}")
    in_plain_wsgi()
    in_flask()
    in_django()
