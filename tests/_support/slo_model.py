"""A naive model of an SLO: it keeps every event, and adds up those of a window."""

from fractions import Fraction

STEPS = (1, 360), (5, 4_320), (60, 43_200)
"""The slots of a step, and the most that a duration in such steps has."""


class NaiveSLO:
    """`now` is in nanoseconds, a slot of `unit` nanoseconds."""

    def __init__(self, budget, unit, rules, min_events=100):
        self.budget, self.unit, self.min_events = Fraction(budget), unit, min_events
        self.rules = rules
        self.states = ["inactive"] * len(rules)
        self.events = {}
        self.now = 0

    def at(self, now):
        self.now = max(self.now, now)
        return self.now // self.unit

    def record(self, now, ok, n=1):
        counts = self.events.setdefault(self.at(now), [0, 0])
        counts[0 if ok else 1] += n

    def counts(self, now, seconds):
        slots = -(-round(seconds * 10**9) // self.unit)
        step = next(step for step, most in STEPS if slots <= most)
        first = self.at(now) // step - -(-slots // step)
        known = [counts for slot, counts in self.events.items() if slot // step >= first]
        return sum(good for good, _ in known), sum(bad for _, bad in known)

    def burn(self, now, seconds):
        good, bad = self.counts(now, seconds)
        return Fraction(bad, good + bad) / self.budget if good + bad else Fraction(0)

    def alerts(self, now):
        for at, (burn, long, short) in enumerate(self.rules):
            good, bad = self.counts(now, long)
            slow = good + bad >= self.min_events and bad >= 5 and self.burn(now, long) > Fraction(str(burn))
            fast = self.burn(now, short) > Fraction(str(burn))
            state = self.states[at]
            if slow and fast:
                state = "firing"
            elif state == "firing":
                state = "resolved"
            elif slow:
                state = "resolved" if state == "resolved" else "pending"
            else:
                state = "inactive"
            self.states[at] = state
        return list(self.states)
