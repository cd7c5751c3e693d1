"""A storage for the package limits, and with it for slowapi and Flask-Limiter: a file that processes share.

Importing this module registers the schemes ``headgate`` and ``async+headgate`` with limits.
"""

from headgate.adapters._extras import extra

with extra("limits"):
    from headgate.adapters.limits._storage import AsyncHeadgateStorage, HeadgateStorage

__all__ = ["AsyncHeadgateStorage", "HeadgateStorage"]
