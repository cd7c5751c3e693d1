"""Numbers of tokens in C, inlined into the modules of limits."""
from libc.math cimport ldexp
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

cdef extern from *:
    """
    #define MOST_DEBT (INT64_C(1) << 62)
    """
    const int64_t MOST_DEBT

cdef struct Amount:
    int64_t whole
    double part


cdef inline Amount split(object number) except *:
    """What `headgate.limit._units.checked_amount` returned: an int goes to `whole`, a float to `part`."""
    cdef Amount amount
    amount.whole = 0
    amount.part = 0.0
    if isinstance(number, float):
        amount.part = number
    else:
        amount.whole = min(number, INT64_MAX)
    return amount


cdef inline int64_t to_units(Amount amount, uint64_t bits) noexcept nogil:
    """What `headgate.limit._units.to_units` returns, or more than any burst."""
    cdef double part
    if amount.whole > MOST_DEBT >> bits:
        return INT64_MAX
    if amount.part > 0:
        part = ldexp(amount.part, <int>bits)
        return max(1, <int64_t>part) if part < <double>MOST_DEBT else INT64_MAX
    return amount.whole << bits
