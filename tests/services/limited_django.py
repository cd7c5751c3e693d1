"""A site of Django whose workers have one limit, of HEADGATE_TEST_RATE in the file HEADGATE_TEST_PATH.

Under WSGI it is one of all views, by the middleware, under ASGI that of a view, by the decorator.
"""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from headgate import RateLimiter
from headgate.adapters.django import ratelimit
from headgate.adapters.keys import header

limiter = RateLimiter(os.environ["HEADGATE_TEST_RATE"], path=os.environ["HEADGATE_TEST_PATH"])
key = header("X-Key")


def pid(request):
    return HttpResponse(str(os.getpid()))


@ratelimit(limiter, key=key)
async def limited(request):
    return pid(request)


IS_ASYNC = os.environ["HEADGATE_TEST_HOST"] == "asgi"
urlpatterns = [path("", limited if IS_ASYNC else pid)]
settings.configure(
    ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None, ROOT_URLCONF=__name__, SECRET_KEY="tests",
    MIDDLEWARE=[] if IS_ASYNC else ["headgate.adapters.django.RateLimitMiddleware"],
    HEADGATE_RATE_LIMITS={"limits": limiter, "keys": key},
)
application = get_asgi_application() if IS_ASYNC else get_wsgi_application()
