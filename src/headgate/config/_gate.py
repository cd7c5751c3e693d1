"""Gate: the objects of a document, by name, and what a new document changes in them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgate._base.checks import checked_callable
from headgate._base.clock import checked_clock
from headgate.cache._listeners import report
from headgate.config._applying import Plan, adopt
from headgate.config._building import Building
from headgate.config._changes import HIDDEN, Change, diff
from headgate.config._document import Document
from headgate.config._forks import applying
from headgate.config._loading import checked_extension, read
from headgate.config._snapshot import Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, NoReturn, Self

    from headgate.config._http import Http
    from headgate.config._sources import Source
    from headgate.config._watching import Watcher

    Objects = Mapping[str, Any]
    Extensions = Mapping[str, Callable[[Any, Document], Any]]


class Changes(tuple[Change, ...]):
    """What ``Gate.apply`` changed: a tuple of `Change`, false if nothing did.

    >>> from headgate.config import load
    >>> changes = load({"caches": {"pages": {"maxsize": 10}}}).apply({"caches": {"pages": {"maxsize": 20}}})
    >>> print(changes)
    caches.pages.maxsize: 10 -> 20
    """

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(_line, self)) or "no changes"


def _line(change: Change) -> str:
    if change.old == change.new == HIDDEN:
        return f"{change.place}: changed"
    if change.old and change.new:
        return f"{change.place}: {change.old} -> {change.new}"
    return f"{change.place}: {'added' if change.new else 'removed'}"


class Followed:
    """What a gate makes anew whenever its section http changes: `current` is the last."""

    __slots__ = ("__weakref__", "build", "current")

    def __init__(self, build: Callable[[Http], Any], http: Http) -> None:
        self.build = build
        self.current = build(http)


def load(source: Source, *overlays: Source, env: Mapping[str, str] | None = None,
         clock: Callable[[], int] | None = None, extensions: Extensions | None = None) -> Gate:
    """Make everything that a document names: a `Gate`.

    A source is a text, a path-like object that names a file, or a mapping; JSON, or YAML with the package
    pyyaml. `overlays` are merged into it, in this order: mappings merge, null removes, anything else
    replaces. ``${NAME}`` is substituted from `env`, by default that of the process. `clock` is that of all
    objects, by default the monotonic clock. Nothing connects to a store before its first use.

    `extensions` has a function for each part of one's own, whose name begins with ``x-``. It is called with
    the part, substituted, as a tree of dicts, lists and scalars, or None if it is absent, and with the
    checked `Document`, which tells what else there is; what it returns is ``gate.extensions[name]``. It is
    called for each document before anything is changed. What it raises refuses the document: ValueError,
    TypeError, OSError, ImportError, MemoryError and HeadgateError as a ConfigError, at the place in the part
    that the message begins with (``routes[0].to: ...``), anything else as it is.

    Raises ConfigError, with all errors and their places, if the document is not valid or an object cannot be
    made; OSError if a file of it cannot be read; ImportError if a package is missing; TypeError or ValueError
    if an argument is of a wrong type, or an extension has another name.

    >>> gate = load({"limits": {"api": {"rate": "10/s"}}, "caches": {"pages": {"maxsize": 100}}})
    >>> gate.limits["api"].allow("ann"), gate.caches["pages"].maxsize
    (True, 100)
    >>> gate = load({"x-app": {"motto": "${MOTTO}"}}, env={"MOTTO": "hi"},
    ...             extensions={"x-app": lambda part, document: part["motto"].title()})
    >>> gate.extensions["x-app"]
    'Hi'
    """
    return Gate(source, *overlays, env=env, clock=clock, extensions=extensions)


def _checked_extensions(extensions: Extensions | None) -> Extensions:
    """A copy of the functions, by the names of their parts."""
    if not isinstance(extensions, Mapping | None):
        raise TypeError(f"extensions must be a mapping of functions, got {extensions!r}")
    checked = {}
    for name, parse in (extensions or {}).items():
        if not callable(parse):
            raise TypeError(f"extensions must have callable values, got {parse!r} for {name!r}")
        checked[checked_extension(name)] = parse
    return checked


class Gate:
    """The objects of a document by section and name, in read-only mappings: ``gate.caches["pages"]``.

    It is made by `load`, and takes its arguments. ``apply`` changes it to another document, ``watch`` does so
    whenever the file changes. All mappings are those of one document, which are exchanged at once; objects
    that two documents both have stay the same objects. One that a new document does not have any more goes on
    for those who hold it. Limits and near caches of stores have two forms: for threads in `limits`, `levels`
    and `near`, and for event loops in `async_limits`, `async_levels` and `async_near`; there too everything
    else is, as it waits for nothing.

    Raises what `load` raises.

    >>> gate = load({"caches": {"pages": {"maxsize": 100}}})
    >>> pages = gate.caches["pages"]
    >>> print(gate.apply({"caches": {"pages": {"maxsize": 200}}}))
    caches.pages.maxsize: 100 -> 200
    >>> pages.maxsize, pages is gate.caches["pages"]
    (200, True)
    """

    __slots__ = (
        "__weakref__", "_clock", "_env", "_extensions", "_followers", "_is_changing", "_snapshot", "_sources",
        "_watchers",
    )

    def __init__(self, source: Source, *overlays: Source, env: Mapping[str, str] | None = None,
                 clock: Callable[[], int] | None = None, extensions: Extensions | None = None) -> None:
        self._sources = source, *overlays
        self._env = env
        self._clock = checked_clock(clock)
        self._extensions = _checked_extensions(extensions)
        self._is_changing = False
        self._followers: weakref.WeakSet[Followed] = weakref.WeakSet()
        self._watchers: list[Watcher] = []
        with applying:
            document = read(source, *overlays, env=env, extensions=self._extensions)
            building = Building(document, clock=self._clock, extensions=self._extensions)
            snapshot = building.all()
            plan = Plan(snapshot, snapshot.document, building)
            try:
                self._prepare_new(plan, snapshot)
                plan.run_switches()
            except BaseException:
                building.discard()
                raise
            self._snapshot = snapshot

    # ---- what it has -------------------------------------------------------------------------

    @property
    def document(self) -> Document:
        """The document that is in force."""
        return self._snapshot.document

    @property
    def caches(self) -> Objects:
        """The caches by name."""
        return self._snapshot.sections["caches"]

    @property
    def near(self) -> Objects:
        """The near caches by name, for threads."""
        return self._snapshot.sections["near"]

    @property
    def async_near(self) -> Objects:
        """The near caches by name, for event loops."""
        return self._snapshot.asynchronous["near"]

    @property
    def http_caches(self) -> Objects:
        """The caches of HTTP responses by name; not that of the section http."""
        return self._snapshot.sections["http_caches"]

    @property
    def hotkeys(self) -> Objects:
        """The counters of hot keys by name."""
        return self._snapshot.sections["hotkeys"]

    @property
    def limits(self) -> Objects:
        """The limits by key, by name, for threads."""
        return self._snapshot.sections["limits"]

    @property
    def async_limits(self) -> Objects:
        """The limits by key, by name, for event loops."""
        return self._snapshot.asynchronous["limits"]

    @property
    def levels(self) -> Objects:
        """The limits by level, by name, for threads."""
        return self._snapshot.sections["levels"]

    @property
    def async_levels(self) -> Objects:
        """The limits by level, by name, for event loops."""
        return self._snapshot.asynchronous["levels"]

    @property
    def buckets(self) -> Objects:
        """The token buckets by name."""
        return self._snapshot.sections["buckets"]

    @property
    def throttles(self) -> Objects:
        """The throttles by name."""
        return self._snapshot.sections["throttles"]

    @property
    def concurrency(self) -> Objects:
        """The concurrency limiters by name."""
        return self._snapshot.sections["concurrency"]

    @property
    def objectives(self) -> Objects:
        """The objectives by name."""
        return self._snapshot.sections["objectives"]

    @property
    def stores(self) -> Objects:
        """The stores by name: their `client` for threads, and `async_client` for event loops."""
        return self._snapshot.sections["stores"]

    @property
    def placements(self) -> Objects:
        """The placements by name."""
        return self._snapshot.sections["placements"]

    @property
    def balancers(self) -> Objects:
        """The balancers by name."""
        return self._snapshot.sections["balancers"]

    @property
    def retry_budgets(self) -> Objects:
        """The retry budgets by name."""
        return self._snapshot.sections["retry_budgets"]

    @property
    def http(self) -> Http:
        """What the middlewares of an application take: see ``from_gate`` of the adapters."""
        return self._snapshot.http

    @property
    def extensions(self) -> Objects:
        """What the functions of the extensions returned, by the names of these."""
        return self._snapshot.extensions

    @property
    def applications(self) -> tuple[Any, ...]:
        """What is followed: the middlewares of each application of ``from_gate`` that exists."""
        return tuple(each.current for each in list(self._followers))

    # ---- another document --------------------------------------------------------------------

    def apply(self, source: Source | Document, *overlays: Source,
              env: Mapping[str, str] | None = None) -> Changes:
        """Change to another document: a `Document`, or what `load` takes. Returns what has changed.

        It is compared with the document in force, so what was set by hand stays where that does not change.
        Caches are resized, limits get other rates, nodes and servers are added, weighed and removed, in the
        objects that exist; what they have and owe stays. The first change that needs a new object, or cannot
        be made, refuses the whole document. Applications of ``from_gate`` follow with their next request.

        Raises what `load` raises; ValueError for a `Document` that was read without the extensions;
        HeadgateError if a process that is stopped holds the lock of a shared file; RuntimeError if it is
        called by a function of an extension or of ``follow``. Then nothing has changed. Complexity: that of
        what changes.

        >>> gate = load({"limits": {"api": {"rate": "2/s"}}}, clock=lambda: 0)
        >>> gate.limits["api"].allow("ann")
        True
        >>> print(gate.apply({"limits": {"api": {"rate": "5/s"}}}))
        limits.api.rate: 2/s -> 5/s
        >>> gate.limits["api"].peek("ann").remaining
        4.0
        """
        env = self._env if env is None else env
        with applying:
            if self._is_changing:
                raise RuntimeError("apply must not be called while a document is applied")
            self._is_changing = True
            try:
                return self._change_to(self._read(source, overlays, env))
            finally:
                self._is_changing = False

    def _read(self, source: Source | Document, overlays: tuple[Source, ...],
              env: Mapping[str, str] | None) -> Document:
        if not isinstance(source, Document):
            return read(source, *overlays, env=env, extensions=self._extensions)
        if set(self._extensions) != set(source.extensions):
            wanted = f"read with the extensions {', '.join(self._extensions) or 'of none'}"
            raise ValueError(f"source must be {wanted}, got {', '.join(source.extensions) or 'none'}")
        return source

    def reload(self) -> Changes:
        """Read again what it was loaded from, and apply that. Raises what ``apply`` raises.

        >>> bool(load({"caches": {"pages": {"maxsize": 100}}}).reload())
        False
        """
        return self.apply(*self._sources)

    def _change_to(self, document: Document) -> Changes:
        present = self._snapshot
        changes = Changes(diff(present.document, document))
        if not changes:
            return changes
        building = Building(document, present, clock=self._clock, extensions=self._extensions)
        plan = Plan(present, document, building)
        building.raise_problems(plan.problems)
        snapshot = building.all()
        try:
            followers = self._rebuilt(snapshot, changes, building)
            self._prepare_new(plan, snapshot, present)
            plan.run_switches()
        except BaseException:
            building.discard()
            raise
        for commit in plan.commits:
            commit()
        self._snapshot = snapshot
        for follower, current in followers:
            follower.current = current
        if plan.switches:
            for limits in snapshot.sections["levels"].values():
                limits.reconfigure()  # which wakes those that wait
        return changes

    def _prepare_new(self, plan: Plan, snapshot: Snapshot, present: Snapshot | None = None) -> None:
        """The rates of limits in files that were opened."""
        for (section, name), made in snapshot.made.items():
            if section == "limits" and (present is None or (section, name) not in present.made):
                fields = snapshot.document.sections[section][name]
                plan.building.attempt(section, name, adopt, plan, made, fields)
        plan.building.raise_problems()

    def _rebuilt(
        self, snapshot: Snapshot, changes: Changes, building: Building
    ) -> list[tuple[Followed, Any]]:
        """What follows the section http, made anew if that has changed."""
        if not any(change.section == "http" for change in changes):
            return []
        followers = [
            (each, building.attempt("http", "", each.build, snapshot.http)) for each in list(self._followers)
        ]
        building.raise_problems()
        return followers

    def follow(self, build: Callable[[Http], Any]) -> Followed:
        """An object whose `current` is what ``build(gate.http)`` returns, now and, made before a change and
        exchanged with it, after each change of the section http. What `build` raises refuses the document.
        It is followed as long as it exists.

        Raises ConfigError if `build` raises ValueError or TypeError.

        >>> gate = load({"http": {"retry_after": 1}})
        >>> followed = gate.follow(lambda http: http.retry_after)
        >>> gate.apply({"http": {"retry_after": 5}}) and followed.current
        5
        """
        with applying:
            building = Building(self.document)
            followed: Followed | None = building.attempt("http", "", Followed, build, self.http)
            building.raise_problems()
            assert followed is not None
            self._followers.add(followed)
            return followed

    def watch(
        self, path: str | os.PathLike[str] | None = None, *, every: float = 1.0,
        how: Literal["poll", "stream"] = "poll", channel: str | None = None, store: str | None = None,
        on_change: Callable[[Changes], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
    ) -> Watcher:
        """Apply the file `path` whenever it changes, in a thread: a `Watcher`, which ends with the gate.

        Without a path it is what the gate was loaded from. The overlays and secrets of the document are
        watched too. Files are read every `every` seconds and compared by content. One that was replaced, by a
        rename or a symbolic link, is applied at once; one that is edited in place when two readings an
        interval apart agree. With `how` "stream" events of the file system, by the package watchfiles, bring
        the next reading forward; or, with the name of a `channel`, messages on it in a `store` of the
        document, its only one by default.

        `on_change` is called with the `Changes`, `on_error` once with the error of a document that is
        refused, which is logged if there is none; then the last one stays in force. Both run in the thread.

        In the child of a fork the gate is watched on, so workers that a server forks get changes as well.

        Raises ValueError or TypeError if an argument is out of range or of a wrong type, or if there is no
        file; ImportError without the package.

        >>> import tempfile, pathlib, threading
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, changed = pathlib.Path(folder, "gate.json"), threading.Event()
        ...     _ = path.write_text('{"caches": {"pages": {"maxsize": 100}}}')
        ...     gate = load(path)
        ...     with gate.watch(every=0.01, on_change=lambda changes: changed.set()):
        ...         _ = path.write_text('{"caches": {"pages": {"maxsize": 200}}}')
        ...         changed.wait(60), gate.caches["pages"].maxsize
        (True, 200)
        """
        from headgate.config._watching import Watcher

        source: Any = self._sources[0] if path is None else Path(path)
        sources = source, *self._sources[1:]
        paths = [os.fspath(each) for each in sources if isinstance(each, os.PathLike)]
        if not paths:
            raise ValueError("path must be given for a gate that was not loaded from a file, got None")
        make_waker = self._waker(how, channel, store)
        env = self._env
        names = tuple(self._extensions)
        watcher = Watcher(self, (*paths, *self.document.files),
                          lambda: read(*sources, env=env, extensions=names), every,
                          on_change, on_error, make_waker)
        self._watchers = [each for each in self._watchers if not each.is_closed] + [watcher]
        return watcher

    def _waker(self, how: str, channel: str | None, store: str | None) -> Any:
        """What makes that which wakes a watcher; None if nothing does."""
        if how not in ("poll", "stream"):
            raise ValueError(f"how must be 'poll' or 'stream', got {how!r}")
        if how == "poll":
            if channel is not None or store is not None:
                raise ValueError(f"channel and store need how='stream', got {channel!r} and {store!r}")
            return None
        from headgate.config import _wakers

        if channel is None:
            if store is not None:
                raise ValueError(f"store needs a channel, got {store!r}")
            _wakers.watchfiles()
            return _wakers.FileEvents
        if store is None and len(self.stores) == 1:
            store = next(iter(self.stores))
        if store is None or store not in self.stores:
            raise ValueError(f"store must be one of {', '.join(self.stores) or 'none'}, got {store!r}")
        client = self.stores[store].client
        return lambda wake, _: _wakers.ChannelEvents(wake, client, channel)

    async def watch_async(
        self, path: str | os.PathLike[str] | None = None, *, every: float = 1.0,
        how: Literal["poll", "stream"] = "poll", channel: str | None = None, store: str | None = None,
        on_change: Callable[[Changes], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> NoReturn:
        """``watch`` as a coroutine, for a task: it goes on until it is cancelled. Files are read in a thread;
        `on_change` and `on_error` are called in the event loop, and may be coroutine functions.

        Raises what ``watch`` raises.
        """
        import asyncio
        from inspect import isawaitable

        checked_callable("on_change", on_change)
        checked_callable("on_error", on_error)
        loop, calls = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def later(listener: Callable[[Any], Any] | None) -> Callable[[Any], object] | None:
            if listener is None:
                return None
            return lambda found: loop.call_soon_threadsafe(calls.put_nowait, (listener, found))

        watcher = self.watch(path, every=every, how=how, channel=channel, store=store,
                             on_change=later(on_change), on_error=later(on_error))
        try:
            while True:
                listener, found = await calls.get()
                try:
                    result = listener(found)
                    if isawaitable(result):
                        await result
                except Exception as error:
                    report(error)
        finally:
            await loop.run_in_executor(None, watcher.close)

    # ---- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Stop watching, and close near caches and the connections to stores that threads use. Files of
        limits are closed with the last reference to these. Everything else goes on.

        >>> with load({"caches": {"pages": {"maxsize": 100}}}) as gate:
        ...     gate.caches["pages"].maxsize
        100
        """
        while self._watchers:
            self._watchers.pop().close()
        for made in self._snapshot.made.values():
            close = getattr(made.plain, "close", None)
            if close is not None:
                close()

    async def aclose(self) -> None:
        """``close``, and the same for what event loops use.

        >>> import asyncio
        >>> asyncio.run(load({}).aclose())
        """
        for made in self._snapshot.made.values():
            if made.asynchronous is not made.plain:
                await made.asynchronous.close()
        for store in self.stores.values():
            await store.aclose()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Gate of {self.document!r}>"
