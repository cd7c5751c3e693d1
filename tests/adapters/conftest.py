"""Sites of Django for single tests; whoever uses them imports django_settings first."""

from types import ModuleType

import pytest


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
