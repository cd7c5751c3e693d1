"""The storages that limits makes of a URI."""

from __future__ import annotations

import time
from asyncio import sleep
from urllib.parse import parse_qsl, unquote, urlsplit

from limits.aio.storage import MovingWindowSupport as AsyncMovingWindowSupport
from limits.aio.storage import SlidingWindowCounterSupport as AsyncSlidingWindowCounterSupport
from limits.aio.storage import Storage as AsyncStorage
from limits.errors import ConfigurationError
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from headgate.adapters.limits._records import Records
from headgate.adapters.limits._windows import Windows
from headgate.errors import HeadgateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SCHEMES, _ASYNC_SCHEMES = ["headgate"], ["async+headgate"]
_SIZE, _MODE = "16 MiB", 0o600
_PATIENCE = 1.0
_LEAST_PAUSE, _MOST_PAUSE = 2e-5, 1e-3
_ERRORS = HeadgateError, OSError


def _opened(uri: str | None, options: dict[str, Any]) -> Records:
    """The file that a URI names, with the options of its query and of the arguments."""
    parts = urlsplit(uri or "")
    if parts.netloc or not parts.path:
        raise ConfigurationError(f"uri must be headgate:///PATH, got {uri!r}")
    chosen = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **options}
    size, mode = chosen.pop("size", _SIZE), chosen.pop("mode", _MODE)
    if chosen:
        raise ConfigurationError(f"uri must have no options but mode and size, got {sorted(chosen)}")
    try:
        return Records(unquote(parts.path), int(size) if str(size).isdecimal() else size, _permissions(mode))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error


def _permissions(mode: Any) -> Any:
    if not isinstance(mode, str):
        return mode
    try:
        return int(mode, 8)
    except ValueError:
        raise ValueError(f"mode must be octal digits, got {mode!r}") from None


class HeadgateStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """A storage of limits in a file that all processes of the host map and share.

    The URI is ``headgate:///dev/shm/app.limit?size=64MiB&mode=600``; `size` and `mode` (octal, as text) may
    be arguments too. `size`, by default 16 MiB, is all that the file ever has: 64 bytes for each key with a
    fixed or a sliding window, and for a moving window as many and 32 for each request in it. Where it is
    full, a new key takes the place of the one that expires first.

    Raises ConfigurationError if the URI or an option is wrong, or the file another's; OSError if it cannot be
    opened. An operation raises HeadgateError if a process that is stopped holds the file for a second; with
    OSError that is `base_exceptions`. All operations are atomic between threads and processes, and a process
    that is killed changes nothing but what its own request counts.

    >>> import os, tempfile
    >>> from limits import parse
    >>> from limits.storage import storage_from_string
    >>> from limits.strategies import MovingWindowRateLimiter
    >>> path = os.path.join(tempfile.mkdtemp(), "app.limit")
    >>> limiter = MovingWindowRateLimiter(storage_from_string(f"headgate://{path}"))
    >>> [limiter.hit(parse("2/minute"), "ann") for _ in range(3)]
    [True, True, False]
    """

    STORAGE_SCHEME = _SCHEMES

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._arguments = uri, wrap_exceptions, options
        self._records = _opened(uri, options)
        self._windows = Windows(self._records)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), *self._arguments)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return _ERRORS

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count `amount` in the window of a key, which is `expiry` seconds long; its count then."""
        count: int = self._records.locked(self._windows.incr, key, expiry, amount)
        return count

    def get(self, key: str) -> int:
        """The count of a fixed window."""
        count: int = self._records.locked(self._windows.get, key)[0]
        return count

    def get_expiry(self, key: str) -> float:
        """When a fixed window ends, as ``time.time()`` has it."""
        left: float = self._records.locked(self._windows.get, key)[1]
        return time.time() + left

    def check(self) -> bool:
        """Whether the file can be locked and is still where the URI says."""
        try:
            exists: bool = self._records.locked(self._records.exists)
        except _ERRORS:
            return False
        return exists

    def reset(self) -> int:
        """Forget all keys; how many there were."""
        count: int = self._records.locked(self._windows.reset)
        return count

    def clear(self, key: str) -> None:
        """Forget the fixed and the moving window of a key."""
        self._records.locked(self._windows.clear, key)

    def acquire_entry(self, key: str, limit: int, expiry: float, amount: int = 1) -> bool:
        """Whether `amount` more is in the limit of the `expiry` seconds until now; counted if so."""
        admitted: bool = self._records.locked(self._windows.acquire, key, limit, expiry, amount)
        return admitted

    def get_moving_window(self, key: str, limit: int, expiry: float) -> tuple[float, int]:
        """The time of the first entry in a moving window, and how many there are."""
        since, count = self._records.locked(self._windows.moving, key, expiry)
        return time.time() + since, count

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: float, amount: int = 1) -> bool:
        """Whether `amount` more is in the limit of a sliding window; counted if so."""
        admitted: bool = self._records.locked(self._windows.acquire_sliding, key, limit, expiry, amount)
        return admitted

    def get_sliding_window(self, key: str, expiry: float) -> tuple[int, float, int, float]:
        """The count of the previous window and for how long it weighs, and those of the current one."""
        window: tuple[int, float, int, float] = self._records.locked(self._windows.sliding, key, expiry)
        return window

    def clear_sliding_window(self, key: str, expiry: float) -> None:
        """Forget the sliding window of a key."""
        self._records.locked(self._windows.clear_sliding, key, expiry)


def _again(kind: type[Any], uri: str | None, wrap_exceptions: bool, options: dict[str, Any]) -> Any:
    return kind(uri, wrap_exceptions, **options)


class AsyncHeadgateStorage(AsyncStorage, AsyncMovingWindowSupport, AsyncSlidingWindowCounterSupport):
    """`HeadgateStorage` for event loops: the URI begins with ``async+headgate``; the file may be the same.

    While another process has the file, the loop runs on.

    >>> import asyncio, os, tempfile
    >>> from limits import parse
    >>> from limits.aio.strategies import FixedWindowRateLimiter
    >>> from limits.storage import storage_from_string
    >>> path = os.path.join(tempfile.mkdtemp(), "app.limit")
    >>> limiter = FixedWindowRateLimiter(storage_from_string(f"async+headgate://{path}"))
    >>> asyncio.run(limiter.hit(parse("2/minute"), "ann"))
    True
    """

    STORAGE_SCHEME = _ASYNC_SCHEMES

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._arguments = uri, wrap_exceptions, options
        self._records = _opened(uri, options)
        self._windows = Windows(self._records)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), *self._arguments)

    async def _locked(self, function: Callable[..., Any], *args: Any) -> Any:
        pause, end = _LEAST_PAUSE, time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                return self._records.locked_within(0, function, *args)
            except HeadgateError:
                await sleep(pause)
                pause = min(2 * pause, _MOST_PAUSE)
        return self._records.locked_within(0, function, *args)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return _ERRORS

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count `amount` in the window of a key, which is `expiry` seconds long; its count then."""
        count: int = await self._locked(self._windows.incr, key, expiry, amount)
        return count

    async def get(self, key: str) -> int:
        """The count of a fixed window."""
        count: int = (await self._locked(self._windows.get, key))[0]
        return count

    async def get_expiry(self, key: str) -> float:
        """When a fixed window ends, as ``time.time()`` has it."""
        left: float = (await self._locked(self._windows.get, key))[1]
        return time.time() + left

    async def check(self) -> bool:
        """Whether the file can be locked and is still where the URI says."""
        try:
            exists: bool = await self._locked(self._records.exists)
        except _ERRORS:
            return False
        return exists

    async def reset(self) -> int:
        """Forget all keys; how many there were."""
        count: int = await self._locked(self._windows.reset)
        return count

    async def clear(self, key: str) -> None:
        """Forget the fixed and the moving window of a key."""
        await self._locked(self._windows.clear, key)

    async def acquire_entry(self, key: str, limit: int, expiry: float, amount: int = 1) -> bool:
        """Whether `amount` more is in the limit of the `expiry` seconds until now; counted if so."""
        admitted: bool = await self._locked(self._windows.acquire, key, limit, expiry, amount)
        return admitted

    async def get_moving_window(self, key: str, limit: int, expiry: float) -> tuple[float, int]:
        """The time of the first entry in a moving window, and how many there are."""
        since, count = await self._locked(self._windows.moving, key, expiry)
        return time.time() + since, count

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: float, amount: int = 1
    ) -> bool:
        """Whether `amount` more is in the limit of a sliding window; counted if so."""
        admitted: bool = await self._locked(self._windows.acquire_sliding, key, limit, expiry, amount)
        return admitted

    async def get_sliding_window(self, key: str, expiry: float) -> tuple[int, float, int, float]:
        """The count of the previous window and for how long it weighs, and those of the current one."""
        window: tuple[int, float, int, float] = await self._locked(self._windows.sliding, key, expiry)
        return window

    async def clear_sliding_window(self, key: str, expiry: float) -> None:
        """Forget the sliding window of a key."""
        await self._locked(self._windows.clear_sliding, key, expiry)
