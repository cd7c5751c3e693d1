"""For Django: a backend for CACHES."""

from headgate.adapters.django._cache import CacheBackend

__all__ = ["CacheBackend"]
