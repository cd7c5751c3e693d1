"""The header fields of decisions, in pure Python."""

from math import floor, inf

from headgate.limit._policies import (
    MOST_INTEGER,
    checked_name,
    checked_style,
    described,
    listed,
    pause,
    whole,
)


def _late(decision, rate):
    """The seconds until there is more, or all if something is left; of a denial never after the pause."""
    late = decision.reset_after
    if decision.remaining < 1 and rate.limit:
        missing = floor(decision.remaining) + 1 - decision.remaining
        late = missing * rate.period / rate.limit if decision._more_after is None else decision._more_after
        if decision.allowed:
            late = max(1.0, min(late, decision.reset_after))
    return late if decision.allowed or late == inf else min(pause(decision.retry_after), late)


def fields_of(decision, name, policies, style):
    """What ``Decision.fields`` returns.

    >>> fields_of(Decision(True, 2, 1.0, 0.0, 30.0, "2/min"), None, (), "draft")
    [(b'ratelimit-policy', b'"2/min";q=2;w=60'), (b'ratelimit', b'"2/min";r=1;t=30')]
    """
    checked_style(style)
    allowed, limit, remaining, retry_after, reset_after, policy = decision
    if not policy:
        return []
    left = min(int(remaining), MOST_INTEGER) if remaining > 0 else 0
    fields = []
    if style != "legacy":
        if name is not None:
            checked_name(name)
        named, quotas, rate = described(policy, name, listed(policies))
        late = _late(decision, rate)
        state = b"%b;r=%d" % (named, left) if late == inf else b"%b;r=%d;t=%d" % (named, left, whole(late))
        fields += [(b"ratelimit-policy", quotas), (b"ratelimit", state)]
    if not allowed and retry_after < inf:
        fields.append((b"retry-after", b"%d" % pause(retry_after)))
    if style != "draft":
        fields += [
            (b"x-ratelimit-limit", b"%d" % min(limit, MOST_INTEGER)),
            (b"x-ratelimit-remaining", b"%d" % left),
            (b"x-ratelimit-reset", b"%d" % whole(reset_after)),
        ]
    return fields
