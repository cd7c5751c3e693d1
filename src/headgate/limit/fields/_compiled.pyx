# cython: language_level=3
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The header fields of decisions."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport INFINITY, ceil, floor
from libc.stdio cimport snprintf

from headgate.limit._policies import MOST_INTEGER as _MOST_INTEGER
from headgate.limit._policies import checked_name, checked_style, described, listed

cdef enum:
    DIGITS = 64

cdef long long MOST = _MOST_INTEGER


cdef inline long long _whole(double seconds) noexcept:
    """Rounded up, within the Integers of RFC 9651."""
    return <long long>ceil(seconds) if seconds < MOST else MOST


cdef bytes _number(long long number):
    cdef char[DIGITS] text
    return PyBytes_FromStringAndSize(text, snprintf(text, DIGITS, "%lld", number))


cdef bytes _state(bytes named, long long left, double late):
    """What remains, and the seconds until there is more."""
    cdef char[DIGITS] text
    cdef int size
    if late == INFINITY:
        size = snprintf(text, DIGITS, ";r=%lld", left)
    else:
        size = snprintf(text, DIGITS, ";r=%lld;t=%lld", left, _whole(late))
    return named + PyBytes_FromStringAndSize(text, size)


cdef bint _are_texts(object policies):
    """Whether `listed` would return the same."""
    if type(policies) is not tuple:
        return False
    for policy in <tuple>policies:
        if type(policy) is not str:
            return False
    return True


cdef double _late(object decision, object rate, bint allowed, double remaining, double reset_after,
                  double retry_after) except *:
    """The seconds until there is more, or all if something is left; of a denial never after the pause."""
    cdef double late = reset_after, limit
    if remaining < 1:
        limit = rate.limit
        if limit:
            if decision._more_after is None:
                late = (floor(remaining) + 1 - remaining) * <double>rate.period / limit
            else:
                late = decision._more_after
            if allowed:
                late = max(1.0, min(late, reset_after))
    return late if allowed or late == INFINITY else min(<double>_pause(retry_after), late)


cdef inline long long _pause(double retry_after) noexcept:
    """The seconds after which a denied client may try again."""
    return max(1, _whole(retry_after))


def fields_of(decision, name, policies, style):
    """What ``Decision.fields`` returns.

    >>> fields_of(Decision(True, 2, 1.0, 0.0, 30.0, "2/min"), None, (), "draft")
    [(b'ratelimit-policy', b'"2/min";q=2;w=60'), (b'ratelimit', b'"2/min";r=1;t=30')]
    """
    cdef double remaining, retry_after, reset_after
    cdef long long left = 0
    checked = style if style == "draft" else checked_style(style)
    allowed, limit, remaining, retry_after, reset_after, policy = tuple(decision)
    if not policy:
        return []
    if remaining > 0:
        left = <long long>remaining if remaining < MOST else MOST
    fields = []
    if checked != "legacy":
        if name is not None:
            checked_name(name)
        named, quotas, rate = described(policy, name, policies if _are_texts(policies) else listed(policies))
        late = _late(decision, rate, allowed, remaining, reset_after, retry_after)
        fields = [
            (b"ratelimit-policy", quotas),
            (b"ratelimit", _state(named, left, late)),
        ]
    if not allowed and retry_after < INFINITY:
        fields.append((b"retry-after", _number(_pause(retry_after))))
    if checked != "draft":
        fields += [
            (b"x-ratelimit-limit", _number(<long long>limit if limit < MOST else MOST)),
            (b"x-ratelimit-remaining", _number(left)),
            (b"x-ratelimit-reset", _number(_whole(reset_after))),
        ]
    return fields
