"""One lock for all changes of gates, which a fork waits for: no child has a gate that is half changed."""

from __future__ import annotations

import os
import threading

applying = threading.RLock()
"""Held while a document is applied. A thread may fork while it holds it, and then goes on in the child."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=applying.acquire, after_in_parent=applying.release, after_in_child=applying.release)
