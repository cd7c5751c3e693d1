"""Whether a socket has input, asked without waiting."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def watched(made: Any) -> Callable[[], bool]:
    """A function that returns whether there is something to read, such as the end of the connection; with
    poll, for any number of open files."""
    if not hasattr(select, "poll"):
        return lambda: bool(select.select([made], [], [], 0)[0])
    poll = select.poll()
    poll.register(made, select.POLLIN)
    return lambda: bool(poll.poll(0))
