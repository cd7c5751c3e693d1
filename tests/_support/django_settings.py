"""Settings of Django for the tests of this process; importing it sets Django up."""

import django
from django.conf import settings

CACHE = {"BACKEND": "headgate.adapters.django.CacheBackend"}

settings.configure(
    ALLOWED_HOSTS=["*"], CACHES={"default": CACHE},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    SECRET_KEY="tests", USE_TZ=True,
)
django.setup()
