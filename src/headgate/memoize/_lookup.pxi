# cached: the lookup that precedes a load.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from headgate._c.clock cimport hg_monotonic_ns

from time import monotonic_ns

from headgate.cache._compiled import LRUCache
from headgate.memoize._cached import DEFAULT_MAXSIZE, decorator
from headgate.memoize._stores import Timed


cdef extern from "Python.h":
    PyObject *PyTuple_GET_ITEM(PyObject *key, Py_ssize_t i)
    Py_ssize_t PyTuple_GET_SIZE(PyObject *key)
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)
    object PyObject_Vectorcall(object function, PyObject **args, size_t nargsf, PyObject *names)
    object PyMethod_New(object function, object instance)
    object PyVectorcall_Call(object function, object args, object kwargs)

cdef extern from "memo.h":
    PyObject *hg_wrapper_of(PyObject *by_id, PyObject *instance) except? NULL

cdef object TIMED = Timed
cdef object MONOTONIC = monotonic_ns


@cython.final
@cython.trashcan(True)
cdef class _Lookup:
    """Looks calls up in `_Results` or another cache; all but fresh results go to its memory."""

    cdef vectorcallfunc vectorcall
    cdef object __weakref__
    cdef dict __dict__
    cdef readonly object cache
    cdef object memory
    cdef object function   # None where a call is not all that is to be done
    cdef _Results results  # None before another cache
    cdef object get        # the method of another cache, or None
    cdef object is_fresh   # None where all that is in another cache is fresh
    cdef object mark       # in the keys of another cache, or None
    cdef object key
    cdef object bind       # returns the wrapper of an instance; None in that wrapper
    cdef dict by_id        # id(instance) -> (weak reference, wrapper)
    cdef object clock      # None where `results` do not age
    cdef uint64_t hits
    cdef uint64_t misses
    cdef Py_ssize_t skip
    cdef bint typed
    cdef bint own_keys
    cdef bint is_method

    def __cinit__(self, memory=None, function=None, key=None, typed=False, clock=None, bind=None,
                  dict by_id=None):
        self.vectorcall = <vectorcallfunc>_look_up
        self.memory, self.function, self.key, self.bind, self.by_id = memory, function, key, bind, by_id
        self.typed, self.clock, self.skip = typed, clock, bind is None
        self.own_keys = not typed and key is None

    def use(self, cache, is_fresh, mark):
        """Look up in `cache` from now on; another than `_Results` is there from the beginning."""
        if isinstance(cache, _Results):
            with cython.critical_section(self):
                self.results = cache
        else:
            self.cache, self.get, self.is_fresh, self.mark = cache, cache.get, is_fresh, mark
            self.own_keys = False

    def stored_key(self, key):
        """A key as it is stored in the cache."""
        if self.get is not None or self.key is None or _is_own_key(<PyObject *>key):
            return key
        return (key,)

    def count(self, bint hit):
        with cython.critical_section(self):
            if hit:
                self.hits += 1
            else:
                self.misses += 1

    def counts(self):
        with cython.critical_section(self):
            hits, misses = self.hits, self.misses
        return hits, misses

    def forget_counts(self):
        with cython.critical_section(self):
            self.hits = self.misses = 0

    def __set_name__(self, owner, name):
        self.is_method = self.bind is not None
        self.own_keys = self.own_keys and not self.is_method

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        if self.bind is None or (isinstance(instance, type) and not self.is_method):
            return PyMethod_New(self, instance)
        return PyMethod_New(self._bound(instance), instance)

    cdef object _bound(self, object instance):
        """The wrapper of an instance; `bind` makes it the first time."""
        cdef PyObject *wrapper = NULL
        if self.by_id is not None:
            wrapper = hg_wrapper_of(<PyObject *>self.by_id, <PyObject *>instance)
        return self.bind(instance) if wrapper == NULL else _owned(wrapper)

    def cache_info(self):
        """Report cache statistics"""
        return self.memory.info(self)

    def cache_clear(self):
        """Clear the cache and its statistics; what is being loaded is not stored"""
        self.memory.clear(self)

    def cache_key(self, /, *args, **kwargs):
        """The key of a call"""
        if self.is_method and args:
            return self._bound(args[0]).cache_key(*args[1:], **kwargs)
        return self.memory.key_of(args, kwargs)

    def cache_contains(self, /, *args, **kwargs):
        """Whether a call is remembered, without counting or touching it"""
        if self.is_method and args:
            return self._bound(args[0]).cache_contains(*args[1:], **kwargs)
        return self.memory.contains(self, args, kwargs)

    def cache_invalidate(self, /, *args, **kwargs):
        """Forget one call, and return whether it was remembered; if it is being loaded, it is not stored"""
        if self.is_method and args:
            return self._bound(args[0]).cache_invalidate(*args[1:], **kwargs)
        return self.memory.invalidate(self, args, kwargs)

    def __repr__(self):
        return f"<cached {self.__wrapped__!r}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return self.__qualname__

    cdef object _made_key(self, PyObject **args, Py_ssize_t given, PyObject *names):
        """The key of a call as it is stored in the cache, if it is not read from the arguments."""
        cdef Call call
        cdef object key
        if self.key is not None:
            key = PyObject_Vectorcall(self.key, args, <size_t>given, names)
        elif given == 1 and names == NULL and not self.typed and _is_own_key(args[0]):
            key = <object>args[0]
        else:
            _describe(&call, args, given, names, self.typed)
            key = _key(&call)
        return self.stored_key(key) if self.mark is None else (self.mark, key)

    cdef PyObject *_recall(self, Call *call) except NULL:
        """What `results` have of a call, or ABSENT."""
        cdef _Results results
        with cython.critical_section(self):
            results = self.results
        if results is None:  # the garbage collector has cleared this in a dead cycle
            raise ReferenceError("a cached function was called during its own collection")
        return results._recall(call)

    cdef PyObject *_fresh(self, object found) except? NULL:
        """The value of what is timed and fresh, otherwise NULL."""
        cdef bint fresh = False
        if type(found) is TIMED:
            if self.clock is MONOTONIC:
                fresh = hg_monotonic_ns() < <int64_t>found.fresh_until
            else:
                fresh = self.clock() < found.fresh_until
        return _new_reference(found.value) if fresh else NULL

    cdef object _resolve(self, object key, object found, PyObject **args, Py_ssize_t given, PyObject *names):
        """The result of a call that missed, or found nothing fresh."""
        cdef Py_ssize_t i
        cdef dict kwargs
        if found is ABSENT and self.function is not None:
            return self._load(self.memory.new_load(self, key), args, given, names)
        kwargs = {}
        if names != NULL:
            for i in range(PyTuple_GET_SIZE(names)):
                kwargs[<object>PyTuple_GET_ITEM(names, i)] = <object>args[given + i]
        return self.memory.resolve(self, key, found, tuple([<object>args[i] for i in range(given)]), kwargs)

    cdef object _load(self, object load, PyObject **args, Py_ssize_t given, PyObject *names):
        """Call the function, or return the outcome of a call under way."""
        with load, load:
            if load.join() and not load.find():
                load.keep(PyObject_Vectorcall(self.function, args, <size_t>given, names))
        if load.is_circular:
            return PyObject_Vectorcall(self.function, args, <size_t>given, names)
        return load.result()

    cdef object _look_up_elsewhere(self, PyObject **args, Py_ssize_t given, PyObject *names):
        """The result of a call, where the cache is another than `_Results`."""
        cdef Py_ssize_t skip = min(self.skip, given)
        cdef object key = self._made_key(args + skip, given - skip, names)
        cdef PyObject *request[2]
        cdef object found
        request[0], request[1] = <PyObject *>key, <PyObject *>ABSENT
        found = PyObject_Vectorcall(self.get, request, 2, NULL)
        if found is ABSENT or not (self.is_fresh is None or self.is_fresh(key, found)):
            return self._resolve(key, found, args, given, names)
        with cython.critical_section(self):
            self.hits += 1
        return found


cdef PyObject *_look_up(_Lookup self, PyObject **args, size_t nargsf, PyObject *names) except NULL:
    cdef Py_ssize_t given = PyVectorcall_NARGS(nargsf), skip = min(self.skip, given)
    cdef Call call
    cdef PyObject *found
    cdef PyObject *held
    cdef object key = None, aged = None
    if given == skip + 1 and names == NULL and self.own_keys and _is_own_key(args[skip]):
        _read_own(&call, args + skip)
    elif self.is_method and given > 0:
        return _new_reference(PyObject_Vectorcall(self._bound(<object>args[0]), args, nargsf, names))
    elif self.get is not None:
        return _new_reference(self._look_up_elsewhere(args, given, names))
    elif self.key is not None:
        key = self._made_key(args + skip, given - skip, names)
        held = <PyObject *>key
        _read_key(&call, &held)
    else:
        _read_flat(&call, args + skip, given - skip, names, self.typed)
    found = self._recall(&call)
    if found == <PyObject *>ABSENT or self.clock is not None:
        aged = _owned(found)
        found = NULL if self.clock is None else self._fresh(aged)
    if found == NULL:
        if self.key is None:
            key = _key(&call)
        return _new_reference(self._resolve(key, aged, args, given, names))
    with cython.critical_section(self):
        self.hits += 1
    return found


def cached(cache=None, *, maxsize=DEFAULT_MAXSIZE, policy=None, ttl=None, tti=None, stale=None, jitter=0.0,
           key=None, typed=False, keep=None, tags=(), on_evict=None, clock=None, executor=None):
    """Let a function, a coroutine function or a method remember its results, each loaded once at a time.

    ``@cached``, or ``@cached(...)`` with any of these:

    - `cache`: where the results go, any object with ``get(key, default)`` and ``put(key, value)``, or a
      mutable mapping. By default the `maxsize` most recently used results are kept in a store of the
      function's own; with `maxsize` None there is no bound.
    - `policy`: a cache class, such as ``TinyLFUCache``, for a cache of the function's own with the
      options `tti`, `jitter` and `on_evict` of that class, by default ``LRUCache``.
    - `ttl`: the seconds for which a result is fresh. With `stale`, for so many seconds more the old
      result is returned at once while one refresh runs: in a task for ``async def``, otherwise in
      `executor`, an executor of threads, by default one of headgate's own. What a refresh raises goes to
      ``sys.unraisablehook``. A refresh that the executor never runs keeps no caller waiting.
    - `key`: a callable that makes a key of the arguments, without ``self``; by default the arguments, of
      different types if `typed`.
    - `keep`: a callable; a result for which it is false is returned and not remembered.
    - `tags`: the tags of the results, or a callable that returns those of a call from its arguments,
      without ``self``; for ``cache.invalidate(tag=...)``.
    - `clock`: a callable that returns integer nanoseconds, by default that of `cache` if it has
      lifetimes, otherwise ``time.monotonic_ns``.

    Of all callers that miss the same call one runs the function and the others wait; for coroutines, in
    each event loop. What it raises reaches all waiters and is not remembered. If its task is
    cancelled, or it is interrupted, the next waiter takes over. A function that calls itself with the same
    arguments, directly or through others, is simply called. What is being loaded when ``cache_clear()``
    is called is not remembered.

    The results of a method are remembered by instance, whose ``__eq__`` and ``__hash__`` are not used,
    each with its own `maxsize`, and go with it. Instances without weak references, such as named tuples,
    are kept alive with their results: the `maxsize` most recently used of them.

    A `cache` that is given may serve several functions: its keys carry the function, and for methods the
    instance. With `key`, the keys of a function are those that it makes. Lifetimes are those of the
    cache if its ``put`` takes a `ttl` in seconds; otherwise deadlines are kept beside it. A value that is
    put into the cache under ``f.cache_key(...)`` is returned like a result.

    The function has ``cache_info()``, ``cache_clear()``, ``cache_key(...)``, ``__wrapped__`` and `cache`,
    which is None for the built-in store. ``cache_contains(...)`` returns whether the call of these
    arguments is remembered; ``cache_invalidate(...)`` forgets it and returns whether it was. On a method
    of an instance they are about that instance alone; with a cache that is given, ``cache_clear()`` and
    ``cache_info()`` go through all its keys.

    Raises TypeError if the function is no callable or a generator function, or if an argument has the wrong
    type; ValueError if `ttl` or `stale` is not positive, `stale` comes without `ttl`, or an option of a
    cache of the function's own comes with a cache that is given.

    Complexity: O(arguments) for a call that is remembered, or O(1) besides the function.

    >>> @cached(maxsize=1000, ttl=60, stale=10)
    ... def load(name):
    ...     print("loading", name)
    ...     return name.upper()
    >>> load("a"), load("a")
    loading a
    ('A', 'A')
    >>> load.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=1000, currsize=1)
    >>> load.cache_invalidate("a"), load.cache_contains("a")
    (True, False)
    """
    return decorator(_Lookup, _new_results, LRUCache, cache, maxsize=maxsize, policy=policy, ttl=ttl, tti=tti,
                     stale=stale, jitter=jitter, key=key, typed=typed, keep=keep, tags=tags,
                     on_evict=on_evict, clock=clock, executor=executor)


def _new_results(maxsize):
    cdef _Results results = _Results.__new__(_Results)
    results.maxsize = _checked_maxsize(maxsize)
    return results
