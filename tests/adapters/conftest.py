"""Sites of Django for single tests, for which they import django_settings first; and Django's own tests."""

from types import ModuleType

import pytest
from django_sdist import Sdist


@pytest.fixture
def site():
    """Sets up a site of some views, and of middlewares with their settings."""
    from django.test import override_settings

    changes = []

    def setup(*patterns, middleware=(), **settings):
        urls = ModuleType("urls")
        urls.urlpatterns = list(patterns)
        changes.append(override_settings(ROOT_URLCONF=urls, MIDDLEWARE=list(middleware), **settings))
        changes[-1].enable()

    yield setup
    for change in reversed(changes):
        change.disable()


@pytest.fixture(scope="session", autouse=True)
def django_sdist(request, tmp_path_factory):
    """Downloads begin before all tests of adapters, so that those that need them need not wait."""
    if not any("upstream_tests" in item.fixturenames for item in request.session.items):
        yield None
        return
    sdist = Sdist(tmp_path_factory.mktemp("django"))
    yield sdist
    sdist.close()
