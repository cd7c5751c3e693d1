# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, autotestdict=False
"""XXH64 and splitmix64.

    data: | 32-byte stripe | 32-byte stripe | ... | 8 | 8 | 4 | 1 1 1 |
            four lanes of 8 -> v1 v2 v3 v4    ...   folded in by one
                                   \\ merged /

The functions keep no state. Foreign code: ``__index__`` of a seed and the buffer exporter,
both before the first byte is read; the buffer stays exported while it is hashed.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.stdint cimport uint64_t

from headgate._c.xxh64 cimport hg_splitmix64, hg_xxh64

from headgate._base.checks import checked_int


cdef object _integer(str name, object value):
    return value if type(value) is int else checked_int(name, value)


cdef uint64_t _hash_buffer(object data, uint64_t seed) except? 0:
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef uint64_t result = hg_xxh64(<const unsigned char *>view.buf, view.len, seed)
    PyBuffer_Release(&view)
    return result


def xxh64(data, seed=0):
    """The 64-bit xxHash of `data`, as an int in [0, 2**64).

    A ``str`` is hashed as its UTF-8, any buffer as its bytes in C order. The result is the
    same on every platform, whatever its byte order.

    Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md

    Raises TypeError if `data` is neither str, bytes nor a buffer or `seed` is no int,
    ValueError if `seed` is outside [0, 2**64).

    Complexity: O(len(data)).

    >>> hex(xxh64("headgate"))
    '0xe8a56f3cf2e45edc'
    >>> xxh64("é") == xxh64("é".encode())
    True
    """
    seed = _integer("seed", seed)
    if not 0 <= seed <= 0xFFFF_FFFF_FFFF_FFFF:
        raise ValueError(f"seed must be in [0, 2**64), got {seed!r}")
    if isinstance(data, str):
        data = (<str>data).encode()
    if isinstance(data, bytes):
        return hg_xxh64(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), seed)
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"data must be str, bytes or a buffer, got {data!r}")
    view = memoryview(data)
    return _hash_buffer(data if view.c_contiguous else view.tobytes(), seed)


def splitmix64(x):
    """The splitmix64 generator's output for the state `x`, as an int in [0, 2**64).

    `x` is taken modulo 2**64. The golden gamma is added, then the finalizer mixes: a bijection
    on 64-bit words, good at spreading counters.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014,
    and Vigna's splitmix64.c.

    Raises TypeError if `x` is no int.

    Complexity: O(1).

    >>> hex(splitmix64(0))
    '0xe220a8397b1dcdaf'
    >>> splitmix64(2**64) == splitmix64(0)
    True
    """
    return hg_splitmix64(PyLong_AsUnsignedLongLongMask(_integer("x", x)))
