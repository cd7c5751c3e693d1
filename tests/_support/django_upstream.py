"""Runs Django's tests of caches with CacheBackend in place of LocMemCache: ``django_upstream.py TESTS``.

`TESTS` is the folder ``tests`` of Django's source distribution.
"""

import sys
import time
from math import inf
from types import SimpleNamespace
from unittest import TestLoader

import django
from django.conf import settings
from django.core.cache.backends import locmem
from django.test.runner import DiscoverRunner

from headgate.adapters.django import CacheBackend

CLASSES = (
    "LocMemCacheTests", "DefaultNonExpiringCacheKeyTests", "CustomCacheKeyValidationTests", "CacheUtils",
    "PrefixedCacheUtils", "CacheHEADTest", "CacheI18nTest", "PrefixedCacheI18nTest", "CacheMiddlewareTest",
    "TestWithTemplateResponse", "CacheHandlerTest",
)
CULLING = {"test_lru_get", "test_lru_incr", "test_lru_set"}  # expect that a third is evicted at once
elapsed = 0  # nanoseconds, by the sleeps of the tests


def sleep(seconds):
    global elapsed
    elapsed += round(seconds * 1e9)


def clock():
    return time.monotonic_ns() + elapsed


class Backend(CacheBackend):
    """With what the tests expect of the private parts of LocMemCache, and a clock that sleeps move on.

    The tests give one LOCATION to caches of several sizes.
    """

    def __init__(self, location, params):
        options = {"CLOCK": clock, **params.get("OPTIONS", {})}
        super().__init__(f"{location} {params.get('OPTIONS')}", {**params, "OPTIONS": options})

    @property
    def _lock(self):
        return SimpleNamespace(locked=self._shared._lock._is_owned)

    @property
    def _expire_info(self):
        dues = {key: entry.due for key, entry in self._shared.cache.items()}
        return {key: None if due == inf else due for key, due in dues.items()}


class Loader(TestLoader):
    def getTestCaseNames(self, tests):
        return [name for name in super().getTestCaseNames(tests) if name not in CULLING]


class Runner(DiscoverRunner):
    test_loader = Loader()


def configure(folder):
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    templates = "django.template.backends.django.DjangoTemplates"
    settings.configure(
        DATABASES={"default": database, "other": database.copy()}, INSTALLED_APPS=["cache"],
        TEMPLATES=[{"BACKEND": templates, "DIRS": [f"{folder}/templates"]}],
        LANGUAGE_CODE="en", LANGUAGES=[("en", "English"), ("es", "Spanish"), ("fr", "French")], USE_TZ=False,
        SECRET_KEY="tests", ALLOWED_HOSTS=["*"], DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )


def run(folder):
    locmem.LocMemCache = Backend
    time.sleep = sleep
    configure(folder)
    sys.path.insert(0, folder)
    django.setup()
    from cache import tests

    judged = tests.LocMemCacheTests
    del judged.setUp  # shares private parts
    perform = judged._perform_cull_test
    judged._perform_cull_test = lambda self, alias, initial, _: perform(self, alias, initial, 30)
    return Runner().run_tests([f"cache.tests.{name}" for name in CLASSES])


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
