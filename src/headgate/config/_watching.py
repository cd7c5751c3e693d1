"""Watcher: a thread that applies a document to a gate whenever its files change.

    interval over, or woken -> look at the files -> read the document -> apply it -> on_change, on_error
"""

from __future__ import annotations

import os
import threading
import weakref

from headgate._base.checks import checked_callable, checked_number
from headgate.cache._listeners import report
from headgate.config._errors import Mark
from headgate.config._forks import applying
from headgate.config._nodes import refused
from headgate.config._readings import Readings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from headgate.config._document import Document
    from headgate.config._gate import Changes, Gate

_LEAST_INTERVAL, _MOST_INTERVAL = 0.01, 86400


class Alarm:
    """What a watching thread sleeps on, and what wakes it; `closed` ends it."""

    __slots__ = ("_event", "closed")

    def __init__(self) -> None:
        self._event = threading.Event()
        self.closed = False

    def wake(self) -> None:
        self._event.set()

    def close(self) -> None:
        self.closed = True
        self._event.set()

    def wait(self, seconds: float) -> None:
        self._event.wait(seconds)
        self._event.clear()


class Watcher:
    """Applies a document to a gate whenever its files change; made by ``Gate.watch``.

    It ends with ``close``, or with its gate. In the child of a fork it goes on.
    """

    __slots__ = (
        "__weakref__", "_alarm", "_gate", "_make_waker", "_on_change", "_on_error", "_read", "_readings",
        "_reported", "_thread", "_waker",
    )

    def __init__(self, gate: Gate, paths: tuple[str, ...], read: Callable[[], Document], every: float,
                 on_change: Callable[[Changes], object] | None,
                 on_error: Callable[[Exception], object] | None,
                 make_waker: Callable[[Callable[[], object], Readings], Any] | None) -> None:
        self._on_change = checked_callable("on_change", on_change)
        self._on_error = checked_callable("on_error", on_error)
        self._readings = Readings(paths, checked_interval(every))
        self._gate = weakref.ref(gate, lambda _: self._end())
        self._read = read
        self._reported = ""
        self._make_waker = make_waker
        self._start()
        _watchers.add(self)

    def _start(self) -> None:
        self._alarm = Alarm()
        self._waker: Any = None
        self._thread: threading.Thread | None = threading.Thread(
            target=_watch, args=(weakref.ref(self), self._alarm), name="headgate watcher", daemon=True)
        self._thread.start()
        if self._make_waker is not None:
            self._waker = self._make_waker(self._alarm.wake, self._readings)

    def _renew(self) -> None:
        """In the child of a fork, whose only thread is another one."""
        if not self._alarm.closed:
            self._start()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._alarm.closed

    def wake(self) -> None:
        """Look at the files now rather than after the interval."""
        self._alarm.wake()

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that are watched: those of the document, of its overlays, and of its secrets."""
        return self._readings.paths

    def step(self) -> float:
        """Look at the files once and apply what is new; the seconds until the next look."""
        gate = self._gate()
        if gate is not None and self._readings.look():
            self._take(gate)
        return self._readings.pause

    def _take(self, gate: Gate) -> None:
        """Apply what the files contain. A document that is refused is tried again each interval, since what
        it lacks may come, and reported once.
        """
        try:
            if self._readings.special is not None:
                raise refused((), "expected a regular file", "", Mark(self._readings.special, 1, 1))
            with applying:
                document = self._read()
                if not self._readings.is_same():
                    return
                changes = gate.apply(document)
        except (Exception, SystemExit) as error:  # a function of an extension may call sys.exit
            if str(error) != self._reported:
                self._reported = str(error)
                self._call(self._on_error or _log, error)
            return
        self._reported = ""
        self._readings.done(document.files)
        if changes and self._on_change is not None:
            self._call(self._on_change, changes)

    def _call(self, listener: Callable[[Any], object], found: Any) -> None:
        try:
            listener(found)
        except BaseException as error:
            report(error)

    def _end(self) -> None:
        """Have the thread end, without waiting for it: collections of garbage wait for nothing."""
        self._alarm.close()
        if self._waker is not None:
            self._waker.end()

    def close(self) -> None:
        """End the thread and wait until it has; when called by a listener in it, it ends after that."""
        self._end()
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.join()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watcher of {', '.join(self.paths)}>"


def checked_interval(every: float) -> float:
    seconds = checked_number("every", every)
    if not _LEAST_INTERVAL <= seconds <= _MOST_INTERVAL:
        raise ValueError(f"every must be from {_LEAST_INTERVAL} to {_MOST_INTERVAL} seconds, got {every!r}")
    return float(seconds)


def _watch(watcher: weakref.ref[Watcher], alarm: Alarm) -> None:
    """The thread: it holds neither the watcher nor the gate while it sleeps."""
    pause = 0.0
    while not alarm.closed:
        alarm.wait(pause)
        found = watcher()
        if found is None or alarm.closed:
            return
        pause = found.step()
        del found


def _log(error: Exception) -> None:
    from logging import getLogger

    getLogger("headgate.config").error("the configuration stays as it is: %s", error)


_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()


def _in_child() -> None:
    for watcher in list(_watchers):
        watcher._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
