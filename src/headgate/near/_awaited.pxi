cdef extern from *:
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(object, object, PyObject **) except PYGEN_ERROR
    PySendResult PyIter_Send(object, object, PyObject **) except PYGEN_ERROR


cdef extern from "awaited.h":
    void hg_make_awaited(type, sendfunc)
    object hg_awaited_next(object)


@cython.final
@cython.freelist(32)
cdef class _Lookup:
    """What ``NearTable._aget`` returns: it looks when it is awaited, and is done at once by a hit.

    It is an ``abc.Coroutine`` with the behaviour of a native one, which costs several times as much.
    """

    cdef NearTable table
    cdef object key
    cdef object default
    cdef object fetch  # the coroutine after a miss
    cdef bint has_begun

    @property
    def __qualname__(self):
        return f"{type(self.table).__qualname__}.get"

    def __await__(self):
        return self

    def __next__(self):
        return hg_awaited_next(self)

    def send(self, value):
        """Begin, or continue with what was waited for."""
        cdef PyObject *result = NULL
        sent = _send(self, value, &result)
        found = <object>result
        Py_DECREF(found)
        if sent == PYGEN_NEXT:
            return found
        raise StopIteration(found)

    def throw(self, *failure):
        """Raise an exception where it waits."""
        if not self._begun():
            self._set_fetch(_raised())
        return self._under_way().throw(*failure)

    def close(self):
        """End it where it waits."""
        self._begun()
        fetch = self._fetch()
        if fetch is not None:
            fetch.close()

    cdef object _under_way(self):
        """The coroutine that is continued."""
        fetch = self._fetch()
        if fetch is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        return fetch

    cdef bint _begun(self) noexcept:
        """Whether it has begun before; from now on it has."""
        cdef bint before
        with cython.critical_section(self):
            before, self.has_begun = self.has_begun, True
        return before

    cdef object _fetch(self):
        with cython.critical_section(self):
            fetch = self.fetch
        return fetch

    cdef object _set_fetch(self, object fetch):
        with cython.critical_section(self):
            self.fetch = fetch
        return fetch


cdef _Lookup _lookup(NearTable table, key, default):
    cdef _Lookup made = _Lookup.__new__(_Lookup)
    made.table, made.key, made.default = table, key, default
    return made


async def _raised():
    """Waits for nothing: what is thrown into it comes out."""


cdef PySendResult _send(object self, object value, PyObject **result) except PYGEN_ERROR:
    cdef _Lookup lookup = <_Lookup>self
    if lookup._begun():
        return PyIter_Send(lookup._under_way(), value, result)
    if value is not None:
        with cython.critical_section(lookup):
            lookup.has_begun = False
        raise TypeError("can't send non-None value to a just-started coroutine")
    found = lookup.table._peek(lookup.key, ABSENT, lookup.default)
    if found is ABSENT:
        fetch = lookup._set_fetch(lookup.table._afetch(lookup.key, lookup.default))
        return PyIter_Send(fetch, None, result)
    Py_INCREF(found)
    result[0] = <PyObject *>found
    return PYGEN_RETURN


hg_make_awaited(_Lookup, _send)
