# lru_cache: functools' decorator.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from functools import _CacheInfo, update_wrapper

from headgate.memoize._cached import decorator


cdef extern from "Python.h":
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)
    object PyObject_Vectorcall(object function, PyObject **args, size_t nargsf, PyObject *names)
    object PyMethod_New(object function, object instance)
    object PyVectorcall_Call(object function, object args, object kwargs)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)


@cython.final
@cython.trashcan(True)
cdef class _Memoizer(_Results):
    """A function that remembers the results of its most recent calls."""

    cdef vectorcallfunc vectorcall
    cdef dict __dict__
    cdef object function
    cdef uint64_t hits
    cdef uint64_t misses
    cdef bint typed
    cdef bint own_keys  # an only argument, an exact str or int, is its own key

    def __cinit__(self):
        self.vectorcall = <vectorcallfunc>_call

    cdef object _pass_on(self, PyObject **args, size_t nargsf, PyObject *names):
        """What a memoizer of size 0 does."""
        with cython.critical_section(self):
            self.misses += 1
        return PyObject_Vectorcall(self.function, args, nargsf, names)

    cdef object _miss(self, Call *call, size_t nargsf, uint64_t version):
        cdef object key = _key(call)
        cdef object result = PyObject_Vectorcall(self.function, call.args, nargsf, call.names)
        self._store(call, <PyObject *>key, <PyObject *>result, version, self.maxsize != UNBOUNDED)
        return result

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def cache_info(self):
        """Report cache statistics"""
        with cython.critical_section(self):
            hits, misses, currsize = self.hits, self.misses, self.count if self._intact() else 0
        return _CacheInfo(hits, misses, None if self.maxsize == UNBOUNDED else self.maxsize, currsize)

    def cache_clear(self):
        """Clear the cache and cache statistics"""
        cdef list dropped
        with cython.critical_section(self):
            self.hits = self.misses = 0
            dropped = self._forget()
        dropped.clear()

    def cache_parameters(self):
        """The arguments of the decorator, by name"""
        return {"maxsize": None if self.maxsize == UNBOUNDED else self.maxsize, "typed": self.typed}

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return self.__qualname__


cdef inline PyObject *_new_reference(object result) noexcept:
    """`result` with a reference for the caller."""
    Py_INCREF(<PyObject *>result)
    return <PyObject *>result


cdef inline object _owned(PyObject *result):
    """`result`, whose reference is taken over."""
    cdef object taken = <object>result
    Py_DECREF(result)
    return taken


cdef PyObject *_call(_Memoizer self, PyObject **args, size_t nargsf, PyObject *names) except NULL:
    cdef Py_ssize_t given = PyVectorcall_NARGS(nargsf)
    cdef Call call
    cdef PyObject *result = NULL
    cdef uint64_t version = 0
    cdef uint32_t slot
    if given == 1 and names == NULL and self.own_keys and _is_own_key(args[0]):
        _read_own(&call, args)
    elif self.maxsize == 0:
        return _new_reference(self._pass_on(args, nargsf, names))
    else:
        _read_flat(&call, args, given, names, self.typed)
    with cython.critical_section(self):
        slot = self._find(&call)
        if slot != NIL:
            self.hits += 1
            self._touch(slot)
            result = self._result(slot)
            Py_INCREF(result)
        else:
            self.misses += 1
            version = self.table.version
    return result if result != NULL else _new_reference(self._miss(&call, nargsf, version))


cdef _Memoizer _memoize(object function, Py_ssize_t maxsize, bint typed):
    cdef _Memoizer memoizer = _Memoizer.__new__(_Memoizer)
    if not callable(function):
        raise TypeError("the first argument must be callable")
    memoizer.function = function
    memoizer.maxsize = maxsize
    memoizer.typed = typed
    memoizer.own_keys = not typed and maxsize != 0
    return update_wrapper(memoizer, function)


def lru_cache(maxsize=128, typed=False):
    """Let a function remember the results of its `maxsize` most recently used calls.

    ``@lru_cache(maxsize, typed)``, or ``@lru_cache`` alone, to the contract of ``functools``: with
    `maxsize` None nothing is forgotten, a negative one counts as 0 and nothing is remembered. Calls
    are alike when their arguments are equal and keywords come in the same order; with `typed`
    arguments of different types are different. Arguments must be hashable.

    The function has ``cache_info()``, ``cache_clear()``, ``cache_parameters()`` and ``__wrapped__``.
    Threads that miss the same call at the same time each make it. What the function raises is
    not remembered.

    Raises TypeError if `maxsize` is not an int, a callable or None, or if the function is not callable;
    OverflowError if `maxsize` exceeds the size of an index.

    Complexity: O(arguments) for a call that is remembered, or O(1) besides the function.

    >>> @lru_cache(maxsize=2)
    ... def double(number):
    ...     return 2 * number
    >>> [double(number) for number in (1, 2, 1, 3)]
    [2, 4, 2, 6]
    >>> double.cache_info()
    CacheInfo(hits=1, misses=3, maxsize=2, currsize=2)
    """
    if not isinstance(maxsize, int) and callable(maxsize) and isinstance(typed, bool):
        return _memoize(maxsize, 128, typed)
    cdef Py_ssize_t bound = _checked_maxsize(maxsize)

    def decorating_function(user_function):
        return _memoize(user_function, bound, typed)

    return decorating_function
