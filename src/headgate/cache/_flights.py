"""Single-flight: of all callers that request a key at the same time one loads it; the others wait.

    registry                        Flight                      waiters
    key -> flight  ------------->   finished? value or error    callers that wait, first come first
                                    waits_for: other flights

The leader loads and finishes the flight: all waiters get its value or error. A leader that is cancelled, or
interrupted by an exception that is no Exception, hands the flight over to the first waiter. Threads share one
registry; every event loop has its own, so no caller waits for another loop.

A leader may need a key whose flight waits for it: the same key again, or by way of other flights. `waits_for`
shows this, and instead of waiting the leader calls the loader itself. The flights that a task leads are kept
in a ContextVar, so that tasks started by a loader know them too. Those of a thread are not: a finalizer may
run while a ContextVar is being set, and must not set it.

There is no lock: a finalizer that the collector runs may come at any step, and may itself request a key. Each
step is one atomic operation of a dict, list or lock, in an order that lets the other side see it:
- ``setdefault`` decides who leads; a waiter enqueues itself, and then checks whether the flight has finished.
- A caller that is about to lead records it before the registry or a waiter makes it true, and for as long as
  the flight has not finished: a finalizer that requests the key meanwhile must not wait for itself.
- A waiter records itself in `waits_for`, and only then looks for a cycle.
- A waiter is claimed once: by the leader that hands over, or by the load that stops waiting.
- The flight of a refresh starts when its executor or task reaches it. No caller waits for it before that: the
  first caller that needs the value starts it.

An exception out of a signal handler may come at any call and return, so every step can be repeated: a claim
belongs to its first claimant, however often it is made, and waking a waiter again does nothing. A load is
entered twice, ``with load, load``, before it begins. If the inner ``__exit__`` is interrupted, the outer one
ends the load, whatever its state.
"""

from __future__ import annotations

import os
from _thread import _local, allocate_lock
from contextvars import ContextVar
from functools import partial
from weakref import WeakKeyDictionary

from headgate.cache._views import _ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Awaitable, Callable, Hashable
    from types import TracebackType
    from typing import Any, Protocol, Self, TypeVar

    _S = TypeVar("_S", bound="_Waiter")

    class Store(Protocol):
        """A mapping in which results are stored."""

        def peek(self, key: Any, default: Any, /) -> Any: ...
        def put(self, key: Any, value: Any, /) -> object: ...
        def pop(self, key: Any, default: Any, /) -> object: ...


class _ThreadVar(_local):
    """The flights that a thread leads, with the methods of a ContextVar."""

    led: tuple[Flight, ...] = ()

    def get(self) -> tuple[Flight, ...]:
        return self.led

    def set(self, led: tuple[Flight, ...]) -> None:
        self.led = led


_led_by_thread = _ThreadVar()
_led_by_task: ContextVar[tuple[Flight, ...]] = ContextVar("headgate_leading", default=())


class _Claimable:
    """An object that belongs to its first claimant."""

    __slots__ = ("_owner",)

    def __init__(self, owner: object = None) -> None:
        self._owner: dict[None, object] = {} if owner is None else {None: owner}

    def claim(self, claimant: object) -> bool:
        """Claim it, if it is not claimed; whether it belongs to `claimant`."""
        return self._owner.setdefault(None, claimant) is claimant

    def is_of(self, claimant: object) -> bool:
        """Whether `claimant` has claimed it."""
        return self._owner.get(None) is claimant


class _Waiter(_Claimable):
    """A caller that waits; a leader that claims it hands the flight over."""

    __slots__ = ()

    def wake(self) -> None:
        """End the wait, if it has not ended."""
        raise NotImplementedError


class _ThreadWaiter(_Waiter):
    __slots__ = ("_gate",)

    def __init__(self) -> None:
        super().__init__()
        self._gate = allocate_lock()
        self._gate.acquire()

    def wake(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:  # it was woken before
            pass

    def wait(self) -> None:
        self._gate.acquire()


class _TaskWaiter(_Waiter):
    __slots__ = ("woken",)

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__()
        self.woken: Future[None] = loop.create_future()

    def wake(self) -> None:
        try:
            if not self.woken.done():
                self.woken.set_result(None)
        except RuntimeError:  # the loop is closed: no task waits
            pass


_ABANDONED = object()


class Flight(_Claimable):
    """One call of a loader, claimed by the load that leads it first; by `_ABANDONED` if it never starts."""

    __slots__ = ("error", "finished", "generation", "process", "trace", "value", "waiters", "waits_for")

    def __init__(self, generation: _Generation, leader: object) -> None:
        self._owner = {} if leader is None else {None: leader}
        self.generation: _Generation | None = generation  # None once dropped
        self.process = os.getpid()
        self.waiters: list[_Waiter] = []
        self.waits_for: dict[object, Flight] = {}
        self.finished = False
        self.value: Any = _ABSENT
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None

    def is_over(self) -> bool:
        """Whether it has finished, or never will: a fork has no threads of its parent."""
        return self.finished or self.process != os.getpid() or self.is_of(_ABANDONED)

    def needs(self, flights: tuple[Flight, ...]) -> bool:
        """Whether it is one of `flights` or waits for one, directly or not."""
        seen, ahead = set(), [self]
        while ahead:
            flight = ahead.pop()
            if flight in flights:
                return True
            if flight not in seen:
                seen.add(flight)
                ahead += flight.waits_for.copy().values()
        return False

    def finish(self, value: Any, error: BaseException | None) -> None:
        """Give all waiters the outcome; with neither value nor error they start over."""
        if not self.finished:
            self.value, self.error = value, error
            self.trace = None if error is None else error.__traceback__
            self.finished = True
        for waiter in self.waiters.copy():
            waiter.wake()

    def hand_over(self, leader: object) -> bool:
        """Let the first waiter lead in place of `leader`; False if there is none."""
        for waiter in self.waiters.copy():
            if waiter.claim(leader):
                waiter.wake()
                return True
        return False

    def has_outcome(self) -> bool:
        return self.error is not None or self.value is not _ABSENT

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error.with_traceback(self.trace)
        return self.value


class _Generation:
    """The flights that began between two clearings of the store."""

    __slots__ = ("loops", "threads")

    def __init__(self) -> None:
        self.threads: dict[Hashable, Flight] = {}
        self.loops: WeakKeyDictionary[AbstractEventLoop, dict[Hashable, Flight]] = WeakKeyDictionary()

    def registry(self, loop: AbstractEventLoop | None) -> dict[Hashable, Flight]:
        return self.threads if loop is None else self.loops.setdefault(loop, {})

    def registries(self) -> list[dict[Hashable, Flight]]:
        while True:
            try:
                return [self.threads, *self.loops.values()]
            except RuntimeError:  # another thread changed it
                continue


class _Load:
    """A caller's request to load a key. As a context, entered twice, it begins, waits, leads and ends.

    If ``join()`` is true, it leads, and `keep` is called with the result of the function. Otherwise another
    caller has led; if it `is_circular`, the leader waits for this caller, which calls the function and keeps
    nothing.
    """

    __slots__ = (
        "_flights",
        "_generation",
        "_hands_over",
        "_has_ended",
        "_key",
        "_leading",
        "_led",
        "_outer",
        "_own",
        "_registry",
        "_store",
        "_token",
        "_waiter",
        "flight",
        "is_circular",
        "leads",
        "value",
    )

    _outer: tuple[Flight, ...]

    def __init__(self, flights: Flights, store: Store, key: Hashable, loop: AbstractEventLoop | None,
                 starts: bool = True) -> None:
        self._flights, self._store, self._key = flights, store, key
        self._generation = flights.current
        self._registry = self._generation.registry(loop)
        self._leading: _ThreadVar | ContextVar[tuple[Flight, ...]] = (
            _led_by_thread if loop is None else _led_by_task)
        self._led = _led_by_thread.get() + _led_by_task.get()
        self._token = object()
        self.flight = self._own = Flight(self._generation, self._token if starts else None)
        self._waiter: _Waiter | None = None
        self.leads = self.is_circular = self._hands_over = self._has_ended = False
        self.value: Any = _ABSENT

    def begin(self) -> bool:
        """Register its own flight under the key, if there is none that may still finish."""
        while True:
            self.flight = self._registry.setdefault(self._key, self._own)
            if self.flight is self._own:
                return True
            if not self.flight.is_over():
                return False
            self._retire(self.flight)

    def _try_to_lead(self) -> bool:
        """Lead, if no other caller does."""
        self.flight = self._own
        self._leading.set((*self._outer, self._own))
        self.flight = self._registry.setdefault(self._key, self._own)
        self.leads = self.flight is self._own
        if not self.leads:
            self._stop_leading()
        return self.leads

    def start(self) -> bool:
        """Lead a flight that has not started, if no other caller was faster."""
        if self.flight.is_over():
            return False
        self._leading.set((*self._outer, self.flight))
        self.leads = self.flight.claim(self._token)
        if not self.leads:
            self._stop_leading()
        return self.leads

    def abandon(self) -> bool:
        """End its own flight if it has not started: the next caller begins another. Whether there was one."""
        abandoned = self._own.claim(_ABANDONED)
        if abandoned:
            self._retire(self._own)
        return abandoned

    def _stop_leading(self) -> None:
        """Lead no longer, nor be about to."""
        self._leading.set(self._outer)

    def enqueue(self, new_waiter: Callable[[], _S]) -> _S | None:
        """A waiter in the queue of the flight; if none, `leads` or `is_circular` says why."""
        while not self._try_to_lead():
            if self.start():
                return None
            flight = self.flight
            for led in self._led:
                led.waits_for[self._token] = flight
            if self._led and flight.needs(self._led):
                self._stop_waiting()
                self.is_circular = True
                return None
            self._waiter = waiter = new_waiter()
            flight.waiters.append(waiter)
            if not flight.is_over():
                self._leading.set((*self._outer, flight))
                return waiter
            self._stop_waiting()
            self._waiter = None
            self._retire(flight)
        return None

    def _stop_waiting(self) -> None:
        for led in self._led:
            led.waits_for.pop(self._token, None)

    def woken(self, waiter: _Waiter) -> bool:
        """Whether there is an outcome, or it leads now; if not, it starts over."""
        self._stop_waiting()
        self.leads = not waiter.claim(self._token)
        self._waiter = None
        if not self.leads:
            self._stop_leading()
        return self.leads or self.flight.has_outcome()

    def join(self) -> bool:
        """Wait for a caller that loads the key already; whether to lead then."""
        while (waiter := self.enqueue(_ThreadWaiter)) is not None:
            waiter.wait()
            if self.woken(waiter):
                break
        return self.leads

    def find(self) -> bool:
        """Whether the value is stored: it may have been since the caller's lookup."""
        self.value = self._store.peek(self._key, _ABSENT)
        return self.value is not _ABSENT

    def keep(self, value: Any) -> None:
        """Store the result, unless the store was cleared meanwhile or it is too large."""
        self.value = value
        if self._is_late():
            return
        try:
            self._store.put(self._key, value)
        except ValueError:
            return
        finally:
            if self._is_late():
                self._store.pop(self._key, None)

    def _is_late(self) -> bool:
        return self.flight.generation is not self._flights.current

    def result(self) -> Any:
        """The result of this caller or of the leader; raises what the leader's function raised."""
        return self.flight.outcome() if self.value is _ABSENT else self.value

    def _retire(self, flight: Flight) -> None:
        if self._registry.get(self._key) is flight:
            self._registry.pop(self._key, None)

    def __enter__(self) -> Self:
        self._outer = self._leading.get()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._has_ended:
            return
        try:
            if self._led:
                self._stop_waiting()
            if self._waiter is not None and not self._waiter.claim(self._token):
                self.leads = True
            if self.leads or self.flight.is_of(self._token):
                self._finish(error)
        finally:
            self._stop_leading()
        self._has_ended = True

    def _finish(self, error: BaseException | None) -> None:
        """Finish the flight, or hand it over if an exception that is no Exception interrupted it."""
        if error is not None and not isinstance(error, Exception):
            self._hands_over = True
        if self._hands_over:
            if self.flight.hand_over(self._token):
                return
            self.value, error = _ABSENT, None
        try:
            self._retire(self.flight)
        finally:
            self.flight.finish(self.value, error)


class Flights:
    """The loads into one store that are under way.

    >>> store = LRUCache(2)
    >>> flights = Flights()
    >>> flights.load(store, "key", lambda: "value")
    'value'
    >>> store["key"]
    'value'
    """

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = _Generation()

    def new_generation(self) -> None:
        """Keep the results of flights under way out of the store, which is about to be cleared."""
        self.current = _Generation()

    def drop(self, key: Hashable) -> None:
        """Keep the result of the flight under `key` out of the store; the next caller loads again."""
        for registry in self.current.registries():
            flight = registry.pop(key, None)
            if flight is not None:
                flight.generation = None

    def new_load(self, store: Store, key: Hashable, loop: AbstractEventLoop | None = None) -> _Load:
        """A load that has not begun."""
        return _Load(self, store, key, loop)

    def refresh(self, store: Store, key: Hashable, loop: AbstractEventLoop | None = None) -> _Load:
        """A load whose flight starts by `lead`, or is abandoned."""
        return _Load(self, store, key, loop, starts=False)

    def load(self, store: Store, key: Hashable, loader: Callable[[], Any]) -> Any:
        """The value of `key`: from `store`, from another caller that loads it, or from ``loader()``."""
        load = self.new_load(store, key)
        with load, load:
            if load.join() and not load.find():
                load.keep(loader())
        return loader() if load.is_circular else load.result()

    def lead(self, load: _Load, loader: Callable[[], Any]) -> None:
        """Call the loader, if the flight of `load` has not started."""
        with load, load:
            if load.start() and not load.find():
                load.keep(loader())

    async def load_async(self, store: Store, key: Hashable, loader: Callable[[], Awaitable[Any]]) -> Any:
        """`load` in a coroutine."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        load = self.new_load(store, key, loop)
        with load, load:
            while (waiter := load.enqueue(partial(_TaskWaiter, loop))) is not None:
                await waiter.woken
                if load.woken(waiter):
                    break
            if load.leads and not load.find():
                load.keep(await loader())
        return await loader() if load.is_circular else load.result()

    async def lead_async(self, load: _Load, loader: Callable[[], Awaitable[Any]]) -> None:
        """`lead` in a coroutine."""
        with load, load:
            if load.start() and not load.find():
                load.keep(await loader())
