# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""How the compiled twin was built; it keeps no state and has no pure twin."""

cdef extern from "buildinfo.h":
    const char *HG_COMPILER
    const char *HG_COMPILE_FLAGS
    const int HG_ATOMICS_LOCK_FREE
    const int HG_FREE_THREADED
    const char *PY_VERSION
    const unsigned int CYTHON_HEX_VERSION


def build_info():
    """The compiler, its flags, Cython, the Python whose headers were used, and what they provide.

    ``atomics_lock_free`` is whether 64-bit compare-and-swap is an instruction, not a lock.

    >>> sorted(build_info())
    ['atomics_lock_free', 'compiler', 'cython', 'flags', 'free_threaded', 'python']
    """
    return {
        "compiler": HG_COMPILER.decode(),
        "flags": HG_COMPILE_FLAGS.decode(),
        "cython": ".".join([str(CYTHON_HEX_VERSION >> shift & 255) for shift in (24, 16, 8)]),
        "python": PY_VERSION.decode(),
        "atomics_lock_free": bool(HG_ATOMICS_LOCK_FREE),
        "free_threaded": bool(HG_FREE_THREADED),
    }
