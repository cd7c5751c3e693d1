"""A cache of HTTP responses without I/O: requests and responses in, decisions out."""

from headgate.httpcache._async_purges import AsyncPurges
from headgate.httpcache._cache import HTTPCache
from headgate.httpcache._decisions import Admission, Lookup
from headgate.httpcache._follower import PurgeFollower
from headgate.httpcache._messages import Request
from headgate.httpcache._purge_log import PurgeLog
from headgate.httpcache._stats import HTTPCacheStats
from headgate.httpcache._stored import Stored

__all__ = [
    "Admission", "AsyncPurges", "HTTPCache", "HTTPCacheStats", "Lookup", "PurgeFollower", "PurgeLog",
    "Request", "Stored",
]
