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
step is one atomic operation of a dict, deque, list or lock, in an order that lets the other side see it:
- ``setdefault`` decides who leads; whoever boards sits down, and then looks whether the flight has landed.
- Whoever may come to lead says so before the registry or a seat makes it true, and as long as
  the flight has not landed: where a finalizer comes back for the key, it must not wait for itself.
- Whoever waits records it in `waits_for`, and only then looks for a cycle.
- A seat is claimed once: by the leader who hands over, or by him who leaves it.
- The flight of a refresh has not started until its executor or task comes to it; nobody waits for it until
  then: the first caller that needs the value starts it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextvars import ContextVar
from functools import partial
from weakref import WeakKeyDictionary

from headgate._views import _ABSENT

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


class _Seat:
    """One who waits; `leads` when the flight has been handed over to him."""

    __slots__ = ("_claim", "leads")

    def __init__(self) -> None:
        self._claim = threading.Lock()
        self.leads = False

    def claim(self) -> bool:
        """Whether nobody did before."""
        return self._claim.acquire(blocking=False)

    def call(self) -> None:
        """End the waiting."""
        raise NotImplementedError


class _ThreadSeat(_Seat):
    __slots__ = ("_gate",)

    def __init__(self) -> None:
        super().__init__()
        self._gate = threading.Lock()
        self._gate.acquire()

    def call(self) -> None:
        self._gate.release()

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


class Flight:
    """One load of one key."""

    __slots__ = (
        "_unstarted", "error", "generation", "landed", "process", "seats", "trace", "value", "waits_for",
    )

    def __init__(self, generation: _Generation, starts: bool) -> None:
        self.generation: _Generation | None = generation  # None once dropped
        self.process = os.getpid()
        self._unstarted = None if starts else threading.Lock()
        self.seats: deque[_Seat] = deque()
        self.waits_for: list[Flight] = []
        self.landed = False
        self.value: Any = _ABSENT
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None

    def is_over(self) -> bool:
        """Whether it has landed, or its leader is lost: a fork has no threads of its parent."""
        return self.landed or self.process != os.getpid()

    def start(self) -> bool:
        """Become the one who leads a flight that has not started; False if there is somebody."""
        return self._unstarted is not None and not self.is_over() and self._unstarted.acquire(blocking=False)

    def needs(self, flights: tuple[Flight, ...]) -> bool:
        """Whether it is one of `flights` or waits for one, directly or not."""
        seen, ahead = set(), [self]
        while ahead:
            flight = ahead.pop()
            if flight in flights:
                return True
            if flight not in seen:
                seen.add(flight)
                ahead += flight.waits_for
        return False

    def land(self, value: Any, error: BaseException | None) -> None:
        """Give everybody the outcome; with neither value nor error, whoever waits tries anew."""
        self.value, self.error = value, error
        self.trace = None if error is None else error.__traceback__
        self.landed = True
        while self.seats:
            self.seats.popleft().call()

    def hand_over(self) -> bool:
        """Let the first who waits lead; False if nobody does."""
        while self.seats:
            seat = self.seats.popleft()
            if seat.claim():
                seat.leads = True
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
    """One caller's part in a load. As a context it is the time during which he leads."""

    __slots__ = ("_before", "_flights", "_generation", "_key", "_leading", "_outer", "_registry", "_store",
                 "flight", "has_arrived", "leads", "value")

    flight: Flight

    def __init__(self, flights: Flights, store: Store, key: Hashable, loop: AbstractEventLoop | None) -> None:
        self._flights, self._store, self._key = flights, store, key
        self._generation = flights.current
        self._registry = self._generation.registry(loop)
        self._leading: _Here | ContextVar[tuple[Flight, ...]] = _of_thread if loop is None else _of_task
        self._outer = self._leading.get()
        self._before = _of_thread.get() + _of_task.get()
        self.leads = self.has_arrived = False
        self.value: Any = _ABSENT

    def begin(self, starts: bool = True) -> bool:
        """Lead, if nobody does; without `starts` the flight waits for somebody who starts it."""
        mine = Flight(self._generation, starts)
        self._leading.set((*self._outer, mine))
        try:
            self.flight = self._registry.setdefault(self._key, mine)
        except BaseException:
            self.leaves()
            raise
        self.leads = self.flight is mine
        if not self.leads:
            self.leaves()
        return self.leads

    def starts(self) -> bool:
        """Lead a flight that has not started, if nobody was faster."""
        self._outer = self._leading.get()
        self._leading.set((*self._outer, self.flight))
        self.leads = self.flight.start()
        if not self.leads:
            self.leaves()
        return self.leads

    def abandon(self) -> bool:
        """End a flight that has not started, so that the next caller begins another; whether it was one."""
        abandoned = self.flight.start()
        if abandoned:
            self._land(None)
        return abandoned

    def leaves(self) -> None:
        """No longer lead here, nor be about to."""
        self._leading.set(self._outer)

    def waits(self, new_seat: Callable[[], _S]) -> _S | None:
        """The seat on which to wait for a call; if none, `leads` tells to lead or else to call the loader."""
        while not self.begin():
            if self.starts():
                return None
            flight, seat = self.flight, new_seat()
            for own in self._before:
                own.waits_for.append(flight)
            if self._before and flight.needs(self._before):
                self._no_longer_waits()
                return None
            flight.seats.append(seat)
            if not flight.is_over():
                self._leading.set((*self._outer, flight))
                return seat
            self._no_longer_waits()
            self.retire()
        return None

    def _no_longer_waits(self) -> None:
        for own in self._before:
            own.waits_for.remove(self.flight)

    def called(self, seat: _Seat) -> bool:
        """Whether the flight has landed; if not, `leads` tells to lead or else to try anew."""
        self._no_longer_waits()
        self.leads = seat.leads
        if not self.leads:
            self.leaves()
        self.has_arrived = not self.leads and self.flight.has_outcome()
        return self.has_arrived

    def gives_up(self, seat: _Seat) -> None:
        """Leave `seat` before it is called."""
        self._no_longer_waits()
        if not seat.claim():
            self._hand_over()
        self.leaves()

    def find(self) -> bool:
        """Whether the value is there: it may have come between the caller's look and his lead."""
        self.value = self._store.peek(self._key, _ABSENT)
        return self.value is not _ABSENT

    def keep(self, value: Any) -> None:
        """Store what was loaded, if no clearing came between and the store has room for it."""
        self.value = value
        if self._is_late():
            return
        try:
            self._store.put(self._key, value)
        except ValueError:
            return
        if self._is_late():
            self._store.pop(self._key, None)

    def _is_late(self) -> bool:
        return self.flight.generation is not self._flights.current

    def retire(self) -> None:
        if self._registry.get(self._key) is self.flight:
            self._registry.pop(self._key, None)

    def _hand_over(self) -> None:
        if not self.flight.hand_over():
            self.value = _ABSENT
            self._land(None)

    def _land(self, error: BaseException | None) -> None:
        try:
            self.retire()
        finally:
            self.flight.land(self.value, error)

    def __enter__(self) -> Self:
        led = self._leading.get()
        if self.flight not in led:  # it began elsewhere
            self._outer = led
            self._leading.set((*led, self.flight))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and not isinstance(error, Exception):
                self._hand_over()
            else:
                self._land(error)
        finally:
            self.leaves()


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

    def begin(self, store: Store, key: Hashable, loop: AbstractEventLoop | None = None) -> _Trip | None:
        """A trip to a new flight that has not started, or None where there is one already."""
        trip = _Trip(self, store, key, loop)
        while not trip.begin(starts=False):
            if not trip.flight.is_over():
                return None
            trip.retire()
        trip.leaves()
        return trip

    def load(self, store: Store, key: Hashable, loader: Callable[[], Any]) -> Any:
        """The value of `key`: from `store`, from who loads it already, or by ``loader()``."""
        trip = self.join(store, key)
        if trip.leads:
            return self.lead(trip, loader)
        return trip.flight.outcome() if trip.has_arrived else loader()

    def join(self, store: Store, key: Hashable) -> _Trip:
        """The trip of a caller that has waited for whoever loads `key` already.

        If it leads, the caller loads with the trip as a context. If it has arrived, its flight has the
        outcome. Otherwise waiting would never end, and the caller calls the loader and keeps nothing.
        """
        trip = _Trip(self, store, key, None)
        while (seat := trip.waits(_ThreadSeat)) is not None:
            try:
                seat.wait()
            except BaseException:
                trip.gives_up(seat)
                raise
            if trip.called(seat) or trip.leads:
                break
        return trip

    def lead(self, trip: _Trip, loader: Callable[[], Any]) -> Any:
        with trip:
            if not trip.find():
                trip.keep(loader())
        return trip.value

    async def load_async(self, store: Store, key: Hashable, loader: Callable[[], Awaitable[Any]]) -> Any:
        """`load` in a coroutine."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        trip = _Trip(self, store, key, loop)
        while (seat := trip.waits(partial(_TaskSeat, loop))) is not None:
            try:
                await seat.called
            except BaseException:
                trip.gives_up(seat)
                raise
            if trip.called(seat):
                return trip.flight.outcome()
            if trip.leads:
                break
        return await self.lead_async(trip, loader) if trip.leads else await loader()

    async def lead_async(self, trip: _Trip, loader: Callable[[], Awaitable[Any]]) -> Any:
        with trip:
            if not trip.find():
                trip.keep(await loader())
        return trip.value
