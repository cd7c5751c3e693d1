"""Refreshes of stale results of ``cached``, including those that never run.

A refresh is handed to an executor and may wait there in a queue, be cancelled, or be lost. Until it runs its
flight has not started: a caller that needs the value by then starts the flight itself, and the late refresh
finds nothing to do. So no caller ever waits for an executor.
"""

from __future__ import annotations

import os
from functools import partial

from headgate.cache._listeners import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future
    from typing import Any

    from headgate.cache._flights import _Load

_ELSEWHERE = frozenset({
    "concurrent.futures.process.ProcessPoolExecutor",
    "concurrent.futures.interpreter.InterpreterPoolExecutor",
})
_own_executor: dict[str, Executor] = {}


def _default_executor() -> Executor:
    """The executor of all functions without one of their own; its threads start when needed."""
    if not _own_executor:
        from concurrent.futures import ThreadPoolExecutor

        _own_executor.setdefault("refresh", ThreadPoolExecutor(thread_name_prefix="headgate-refresh"))
    return _own_executor["refresh"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_own_executor.clear)


def checked_executor(executor: Any) -> Any:
    """`executor`, if it is None or can run a call in this process."""
    if executor is None:
        return None
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must have submit, got {executor!r}")
    if _ELSEWHERE & {f"{cls.__module__}.{cls.__qualname__}" for cls in type(executor).__mro__}:
        raise TypeError(f"executor must run calls in this process, in threads, got {executor!r}")
    return executor


class Refreshes:
    """The executor of a function's refreshes: the one that was given, or the default one.

    In a fork of a process in which the given one has worked, the default one takes its place: a fork has no
    threads of its parent.
    """

    __slots__ = ("_executor", "_process")

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor
        self._process: int | None = None

    def _executor_here(self) -> Executor:
        if self._executor is None:
            return _default_executor()
        if self._process is None:
            self._process = os.getpid()
        return self._executor if self._process == os.getpid() else _default_executor()

    def submit(self, load: _Load, lead: Callable[[], None]) -> None:
        """Have ``lead()`` called in the executor; here, if that is shut down."""
        try:
            future: Any = self._executor_here().submit(lead)
        except RuntimeError:
            lead()
        except Exception as error:
            load.abandon()
            report(error)
        else:
            if hasattr(future, "add_done_callback"):
                future.add_done_callback(partial(_done, load))


def _done(load: _Load, future: Future[None]) -> None:
    """Let the next caller refresh, if the executor has dropped the call."""
    if load.abandon() and not future.cancelled():
        error = future.exception()
        if error is not None:
            report(error)
