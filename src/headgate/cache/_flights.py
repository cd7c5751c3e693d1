"""Single-flight: of all who want one key at one time one loads it, and the others wait for the outcome.

    registry                        Flight                      seats
    key -> flight  ------------->   landed? value or error      those who wait, first come first
                                    waits_for: other flights

The leader loads and lands the flight: its value or error reaches whoever waits. A leader that is cancelled,
or interrupted by what is no Exception, hands the flight over to the first of those who wait. Threads share
one registry; every event loop has its own, so nobody waits for another loop.

Whoever loads may need a key that waits for him: the same one again, or by way of other flights. `waits_for`
shows it, and instead of waiting he calls the loader himself. What a task leads is kept in a ContextVar, so
that tasks started by a loader are known too. What a thread leads is not: a finalizer may come while a
ContextVar is being set, and must not set it.

There is no lock: a finalizer that the collector runs may come at any step, and may itself want a key. Every
step is one atomic operation of a dict, list or lock, in an order that lets the other side see it:
- ``setdefault`` decides who leads; whoever waits takes a seat, and then looks whether the flight has landed.
- Whoever may come to lead records it before the registry or a seat makes it true, and as long as
  the flight has not landed: where a finalizer comes back for the key, it must not wait for itself.
- Whoever waits records it in `waits_for`, and only then looks for a cycle.
- A seat is claimed once: by the leader who hands over, or by the trip that leaves it.
- The flight of a refresh has not started until its executor or task comes to it; nobody waits for it until
  then: the first caller that needs the value starts it.

An exception out of a signal handler may come at any call and return, so every step can be made twice: a claim
belongs to whoever made it, however often it asks, and to call a seat again does nothing. A trip is entered
twice, ``with trip, trip``, before it begins. If the inner ``__exit__`` is interrupted, the outer one ends the
trip, whatever it had come to.
"""

from __future__ import annotations

import os
import threading
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

    _S = TypeVar("_S", bound="_Seat")

    class Store(Protocol):
        """Where the results go."""

        def peek(self, key: Any, default: Any, /) -> Any: ...
        def put(self, key: Any, value: Any, /) -> object: ...
        def pop(self, key: Any, default: Any, /) -> object: ...


class _Here(threading.local):
    """What the thread leads, by the methods of a ContextVar."""

    led: tuple[Flight, ...] = ()

    def get(self) -> tuple[Flight, ...]:
        return self.led

    def set(self, led: tuple[Flight, ...]) -> None:
        self.led = led


_of_thread = _Here()
_of_task: ContextVar[tuple[Flight, ...]] = ContextVar("headgate_leading", default=())


class _Claimable:
    """Belongs to the first that claims it."""

    __slots__ = ("_owner",)

    def __init__(self, owner: object = None) -> None:
        self._owner: dict[None, object] = {} if owner is None else {None: owner}

    def claim(self, claimant: object) -> bool:
        """Whether it belongs to `claimant`, after this call at the latest."""
        return self._owner.setdefault(None, claimant) is claimant

    def is_of(self, claimant: object) -> bool:
        """Whether `claimant` has claimed it."""
        return self._owner.get(None) is claimant


class _Seat(_Claimable):
    """One who waits; a leader that claims it hands the flight over."""

    __slots__ = ()

    def call(self) -> None:
        """End the waiting, if it has not ended."""
        raise NotImplementedError


class _ThreadSeat(_Seat):
    __slots__ = ("_gate",)

    def __init__(self) -> None:
        super().__init__()
        self._gate = threading.Lock()
        self._gate.acquire()

    def call(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:  # it was called before
            pass

    def wait(self) -> None:
        self._gate.acquire()


class _TaskSeat(_Seat):
    __slots__ = ("called",)

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__()
        self.called: Future[None] = loop.create_future()

    def call(self) -> None:
        try:
            if not self.called.done():
                self.called.set_result(None)
        except RuntimeError:  # the loop is closed, and nobody waits
            pass


_NOBODY = object()


class Flight(_Claimable):
    """One load of one key, claimed by the trip that leads it first; by `_NOBODY` if it will never start."""

    __slots__ = ("error", "generation", "landed", "process", "seats", "trace", "value", "waits_for")

    def __init__(self, generation: _Generation, leader: object) -> None:
        self._owner = {} if leader is None else {None: leader}
        self.generation: _Generation | None = generation  # None once dropped
        self.process = os.getpid()
        self.seats: list[_Seat] = []
        self.waits_for: dict[object, Flight] = {}
        self.landed = False
        self.value: Any = _ABSENT
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None

    def is_over(self) -> bool:
        """Whether it has landed, or will never: a fork has no threads of its parent."""
        return self.landed or self.process != os.getpid() or self.is_of(_NOBODY)

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

    def land(self, value: Any, error: BaseException | None) -> None:
        """Give everybody the outcome; with neither value nor error, whoever waits tries anew."""
        if not self.landed:
            self.value, self.error = value, error
            self.trace = None if error is None else error.__traceback__
            self.landed = True
        for seat in self.seats.copy():
            seat.call()

    def hand_over(self, leader: object) -> bool:
        """Let the first who waits lead in place of `leader`; False if nobody does."""
        for seat in self.seats.copy():
            if seat.claim(leader):
                seat.call()
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
            except RuntimeError:  # another thread came between
                continue


class _Trip:
    """One caller's part in a load. As a context, entered twice, it begins, waits, leads and ends.

    If ``join()`` is true, it leads, and `keep` gets what the function returns. Otherwise another has led; if
    it `is_circular`, that one waits for this caller, which calls the function and keeps nothing.
    """

    __slots__ = (
        "_before", "_flights", "_generation", "_hands_over", "_has_ended", "_key", "_leading", "_mine",
        "_name", "_outer", "_registry", "_seat", "_store", "flight", "is_circular", "leads", "value",
    )

    _outer: tuple[Flight, ...]

    def __init__(self, flights: Flights, store: Store, key: Hashable, loop: AbstractEventLoop | None,
                 starts: bool = True) -> None:
        self._flights, self._store, self._key = flights, store, key
        self._generation = flights.current
        self._registry = self._generation.registry(loop)
        self._leading: _Here | ContextVar[tuple[Flight, ...]] = _of_thread if loop is None else _of_task
        self._before = _of_thread.get() + _of_task.get()
        self._name = object()
        self.flight = self._mine = Flight(self._generation, self._name if starts else None)
        self._seat: _Seat | None = None
        self.leads = self.is_circular = self._hands_over = self._has_ended = False
        self.value: Any = _ABSENT

    def begin(self) -> bool:
        """Put an own flight under the key, if there is none that may still land."""
        while True:
            self.flight = self._registry.setdefault(self._key, self._mine)
            if self.flight is self._mine:
                return True
            if not self.flight.is_over():
                return False
            self._retire(self.flight)

    def _begins(self) -> bool:
        """Lead, if nobody does."""
        self.flight = self._mine
        self._leading.set((*self._outer, self._mine))
        self.flight = self._registry.setdefault(self._key, self._mine)
        self.leads = self.flight is self._mine
        if not self.leads:
            self._leaves()
        return self.leads

    def starts(self) -> bool:
        """Lead a flight that has not started, if nobody was faster."""
        if self.flight.is_over():
            return False
        self._leading.set((*self._outer, self.flight))
        self.leads = self.flight.claim(self._name)
        if not self.leads:
            self._leaves()
        return self.leads

    def abandon(self) -> bool:
        """End an own flight that has not started: the next caller begins another. Whether there was one."""
        abandoned = self._mine.claim(_NOBODY)
        if abandoned:
            self._retire(self._mine)
        return abandoned

    def _leaves(self) -> None:
        """No longer lead here, nor be about to."""
        self._leading.set(self._outer)

    def sits(self, new_seat: Callable[[], _S]) -> _S | None:
        """The seat on which to wait for a call; if none, `leads` or `is_circular` tells why."""
        while not self._begins():
            if self.starts():
                return None
            flight = self.flight
            for own in self._before:
                own.waits_for[self._name] = flight
            if self._before and flight.needs(self._before):
                self._no_longer_waits()
                self.is_circular = True
                return None
            self._seat = seat = new_seat()
            flight.seats.append(seat)
            if not flight.is_over():
                self._leading.set((*self._outer, flight))
                return seat
            self._no_longer_waits()
            self._seat = None
            self._retire(flight)
        return None

    def _no_longer_waits(self) -> None:
        for own in self._before:
            own.waits_for.pop(self._name, None)

    def called(self, seat: _Seat) -> bool:
        """Whether there is an outcome, or it leads now; if not, it tries anew."""
        self._no_longer_waits()
        self.leads = not seat.claim(self._name)
        self._seat = None
        if not self.leads:
            self._leaves()
        return self.leads or self.flight.has_outcome()

    def join(self) -> bool:
        """Wait for whoever loads the key already; whether to lead then."""
        while (seat := self.sits(_ThreadSeat)) is not None:
            seat.wait()
            if self.called(seat):
                break
        return self.leads

    def find(self) -> bool:
        """Whether the value is there: it may have come between the caller's lookup and its lead."""
        self.value = self._store.peek(self._key, _ABSENT)
        return self.value is not _ABSENT

    def keep(self, value: Any) -> None:
        """Store what was loaded, if no clearing came between and it is not too large for the store."""
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
        """What was loaded, here or by whom it has waited for; raises what the other's function has raised."""
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
            if self._before:
                self._no_longer_waits()
            if self._seat is not None and not self._seat.claim(self._name):
                self.leads = True
            if self.leads or self.flight.is_of(self._name):
                self._ends(error)
        finally:
            self._leaves()
        self._has_ended = True

    def _ends(self, error: BaseException | None) -> None:
        """Land, or hand over what an exception that is no Exception has interrupted."""
        if error is not None and not isinstance(error, Exception):
            self._hands_over = True
        if self._hands_over:
            if self.flight.hand_over(self._name):
                return
            self.value, error = _ABSENT, None
        try:
            self._retire(self.flight)
        finally:
            self.flight.land(self.value, error)


class Flights:
    """The loads under way into one store.

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

    def ground(self) -> None:
        """Keep what is under way out of the store, which is about to be cleared."""
        self.current = _Generation()

    def drop(self, key: Hashable) -> None:
        """Keep what is being loaded under `key` out of the store; whoever comes next loads anew."""
        for registry in self.current.registries():
            flight = registry.pop(key, None)
            if flight is not None:
                flight.generation = None

    def trip(self, store: Store, key: Hashable, loop: AbstractEventLoop | None = None) -> _Trip:
        """The part of a caller, which has not begun."""
        return _Trip(self, store, key, loop)

    def refresh(self, store: Store, key: Hashable, loop: AbstractEventLoop | None = None) -> _Trip:
        """The part of a refresh: its flight starts by `lead`, or is abandoned."""
        return _Trip(self, store, key, loop, starts=False)

    def load(self, store: Store, key: Hashable, loader: Callable[[], Any]) -> Any:
        """The value of `key`: from `store`, from who loads it already, or by ``loader()``."""
        trip = self.trip(store, key)
        with trip, trip:
            if trip.join() and not trip.find():
                trip.keep(loader())
        return loader() if trip.is_circular else trip.result()

    def lead(self, trip: _Trip, loader: Callable[[], Any]) -> None:
        """Load, if the flight of `trip` has not started."""
        with trip, trip:
            if trip.starts() and not trip.find():
                trip.keep(loader())

    async def load_async(self, store: Store, key: Hashable, loader: Callable[[], Awaitable[Any]]) -> Any:
        """`load` in a coroutine."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        trip = self.trip(store, key, loop)
        with trip, trip:
            while (seat := trip.sits(partial(_TaskSeat, loop))) is not None:
                await seat.called
                if trip.called(seat):
                    break
            if trip.leads and not trip.find():
                trip.keep(await loader())
        return await loader() if trip.is_circular else trip.result()

    async def lead_async(self, trip: _Trip, loader: Callable[[], Awaitable[Any]]) -> None:
        """`lead` in a coroutine."""
        with trip, trip:
            if trip.starts() and not trip.find():
                trip.keep(await loader())
