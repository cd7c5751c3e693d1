"""What wakes a watcher before its interval is over: events of the file system, or a channel of Redis.

They only wake it. It reads the files as it does at each interval, so an event that is lost costs an interval,
and one too many costs a reading.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from headgate.config._readings import Readings

_STEP, _DEBOUNCE = 5, 50
_LISTENING, _LONGEST_PAUSE, _LONGEST_END = 0.5, 30.0, 5.0
_MOST_LINKS = 40


class _Waker:
    """A thread that waits for events and calls `wake`. In the child of a fork there is no such thread."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headgate events", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Have the thread end, at most half a second later."""
        self._stop.set()

    def join(self) -> None:
        """Wait until it has ended, but not for ever: a client may be connecting."""
        if self._thread is not threading.current_thread():
            self._thread.join(_LONGEST_END)


class FileEvents(_Waker):
    """Events of the folders through which some paths lead, by the package watchfiles."""

    def __init__(self, wake: Callable[[], object], readings: Readings) -> None:
        self._watch: Any = watchfiles().watch
        self._readings = readings
        super().__init__(wake)

    def _run(self) -> None:
        while not self._stop.is_set():
            folders = folders_of(self._readings.paths)
            try:
                self._follow(folders)
            except OSError:  # a folder is gone
                self._stop.wait(_LISTENING)
            self._wake()

    def _follow(self, folders: frozenset[str]) -> None:
        """Wake at each event, until other folders are to be watched; and once they are, as what has changed
        before was no event."""
        events = self._watch(
            *folders, recursive=False, watch_filter=None, debounce=_DEBOUNCE, step=_STEP,
            stop_event=self._stop, rust_timeout=int(_LISTENING * 1000), yield_on_timeout=True,
            raise_interrupt=False,
        )
        is_first = True
        for found in events:
            if found or is_first:
                self._wake()
            is_first = False
            if folders_of(self._readings.paths) != folders:
                return


class ChannelEvents(_Waker):
    """Messages of a channel of Redis or Valkey. A connection that is lost is opened again, and then wakes,
    since a message may have been missed.
    """

    def __init__(self, wake: Callable[[], object], client: Any, channel: str) -> None:
        self._client, self._channel = client, channel
        super().__init__(wake)

    def _run(self) -> None:
        pause = _LISTENING
        while not self._stop.is_set():
            try:
                with self._client.pubsub() as subscription:
                    subscription.subscribe(self._channel)
                    pause = self._listen(subscription, pause)
            except Exception:  # the client's own: the server is away, or refuses
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _listen(self, subscription: Any, pause: float) -> float:
        while not self._stop.is_set():
            if subscription.get_message(timeout=_LISTENING) is not None:
                pause = _LISTENING
                self._wake()
        return pause


def watchfiles() -> Any:
    """The package watchfiles. Raises ImportError if there is none."""
    try:
        return import_module("watchfiles")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("how='stream' needs the package watchfiles: pip install 'headgate[watch]'"
                                  ) from None


def folders_of(paths: Iterable[str]) -> frozenset[str]:
    """The folders whose entries say which files some paths lead to: those of the paths, and of each symbolic
    link on the way.
    """
    found: set[str] = set()
    for path in paths:
        target = os.path.abspath(path)
        for _ in range(_MOST_LINKS):
            followed = _followed(target, found)
            if followed is None:
                found.add(os.path.dirname(target))
                break
            target = followed
    return frozenset(filter(os.path.isdir, found))


def _followed(path: str, found: set[str]) -> str | None:
    """A path without its first symbolic link, whose folder is noted; None if there is none."""
    parts = path.split(os.sep)
    for count in range(2, len(parts) + 1):
        link = os.sep.join(parts[:count])
        with suppress(OSError):
            target = os.path.join(os.path.dirname(link), os.readlink(link), *parts[count:])
            found.add(os.path.dirname(link))
            return os.path.normpath(target)
    return None
