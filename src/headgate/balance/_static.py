"""Balancers that go by weights alone: in turn, or at random."""

from headgate.balance._balancer import _Balancer
from headgate.balance._members import NEVER
from headgate.balance._settings import first_steps

DRAWS = 64
_FAR = 2.0**62


class RoundRobin(_Balancer):
    """Servers in turn, from a random one on; from the first with a `seed`.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"], seed=0)
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    _cursor = 0

    def _arrange(self, active):
        coming = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = next((record.seat for record in coming if record.seat >= 0), 0)
        if active and self._scatters():
            self._cursor = self._below(len(active))

    def _choose(self, key, skip, now):
        while True:
            if self._cursor >= len(self._active):
                self._cursor = 0
            record = self._active[self._cursor]
            self._cursor += 1
            if not skip or record not in skip:
                return record


class WeightedRoundRobin(_Balancer):
    """Servers in turn by weight: nginx's smooth weighted round robin, pick for pick.

    With a `seed` the sequence begins where nginx's does, else anywhere in it.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1}, seed=0)
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    def _arrange(self, active):
        """Begins the sequence anew, with all servers at 0, at its first step or without a seed at any."""
        self._weights = [record.weight for record in active]
        self._price = 0.0
        for weight in self._weights:
            self._price += weight
        self._stands, self._steps = [0.0] * len(active), [0] * len(active)
        self._step = 0
        self._winners, self._until = [0] * len(active), [NEVER] * len(active)
        self._play_all()
        if active and not self._seeded:
            for _ in range(self._below(first_steps(self._weights))):
                self._advance()
                self._pay(self._winners[1] if len(active) > 1 else 0, self._price)

    def _stand(self, at):
        """nginx's `current_weight` of a server: it grows by the weight at every step."""
        return self._stands[at] + (self._step - self._steps[at]) * self._weights[at]

    def _play(self, node):
        """Let the winners of both halves meet, and note when the other one will have overtaken."""
        count, left, right = len(self._weights), 2 * node, 2 * node + 1
        ahead = left - count if left >= count else self._winners[left]
        other = right - count if right >= count else self._winners[right]
        lead = self._stand(ahead) - self._stand(other)
        if lead < 0.0 or (lead == 0.0 and other < ahead):
            ahead, other, lead = other, ahead, -lead
        until = min(NEVER if left >= count else self._until[left],
                    NEVER if right >= count else self._until[right])
        gain = self._weights[other] - self._weights[ahead]
        if gain > 0.0 and lead < gain * _FAR:
            until = min(until, self._step + max(1, int(lead / gain)))
        self._winners[node], self._until[node] = ahead, until

    def _play_all(self):
        for node in range(len(self._weights) - 1, 0, -1):
            self._play(node)

    def _replay(self, node):
        """Play again where somebody was to overtake by now."""
        if node < len(self._weights) and self._until[node] <= self._step:
            self._replay(2 * node)
            self._replay(2 * node + 1)
            self._play(node)

    def _climb(self, at):
        """A server has changed where it stands: its matches, up to the last."""
        node = (at + len(self._weights)) // 2
        while node:
            self._play(node)
            node //= 2

    def _pay(self, at, price):
        """Take `price` from where a server stands."""
        self._stands[at] = self._stand(at) - price
        self._steps[at] = self._step
        self._climb(at)

    def _advance(self):
        """Goes to the next step, at which all matches hold."""
        self._step += 1
        self._replay(1)

    def _choose(self, key, skip, now):
        self._advance()
        best = self._ahead(1, skip)
        price = self._price
        for seat in self._seats(skip):
            self._pay(seat, self._weights[seat])
            price -= self._weights[seat]
        self._pay(best, price)
        return self._active[best]

    def _ahead(self, node, skip):
        """Who is ahead below `node` and not in `skip`, or -1."""
        count = len(self._weights)
        at = node - count if node >= count else self._winners[node]
        if not skip or self._active[at] not in skip:
            return at
        if node >= count:
            return -1
        at, other = self._ahead(2 * node, skip), self._ahead(2 * node + 1, skip)
        if at < 0 or (other >= 0 and self._beats(other, at)):
            return other
        return at

    def _beats(self, at, other):
        """Whether a server is ahead of another one."""
        stand, against = self._stand(at), self._stand(other)
        return stand > against or (stand == against and at < other)

    def _check_order(self):
        assert self._weights == [record.weight for record in self._active]
        for node in range(1, len(self._weights)):
            if self._until[node] > self._step:
                below = [at for at in range(len(self._weights)) if self._is_below(node, at)]
                first = max(below, key=lambda at: (self._stand(at), -at))
                lead = self._stand(first) - self._stand(self._winners[node])
                assert first == self._winners[node] or lead <= 1e-9 * self._price

    def _is_below(self, node, at):
        """Whether a server's leaf is in the subtree of `node`."""
        leaf = at + len(self._weights)
        return leaf >> (leaf.bit_length() - node.bit_length()) == node


class RandomChoice(_Balancer):
    """A server at random, in proportion to the weights.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.

    Complexity: O(1) a pick.

    >>> balancer = RandomChoice({"a": 9, "b": 1}, seed=1)
    >>> sum(balancer.get_server() == "a" for _ in range(1000)) > 850
    True
    """

    def _arrange(self, active):
        """Vose's alias table: each slot holds its own record up to its chance, above it the alias."""
        total = 0.0
        for record in active:
            total += record.weight
        self._chances = [record.weight * len(active) / total for record in active]
        self._aliases = list(range(len(active)))
        small = [at for at, chance in enumerate(self._chances) if chance < 1.0]
        large = [at for at, chance in enumerate(self._chances) if chance >= 1.0]
        while small and large:
            low, high = small.pop(), large[-1]
            self._aliases[low] = high
            self._chances[high] -= 1.0 - self._chances[low]
            if self._chances[high] < 1.0:
                small.append(large.pop())
        for at in small + large:
            self._chances[at] = 1.0

    def _choose(self, key, skip, now):
        for _ in range(DRAWS):
            at = self._below(len(self._active))
            if self._unit() >= self._chances[at]:
                at = self._aliases[at]
            if not skip or self._active[at] not in skip:
                return self._active[at]
        return self._choose_left(self._left(skip))

    def _choose_left(self, left):
        """A weighted draw from a few."""
        total = 0.0
        for record in left:
            total += record.weight
        drawn = self._unit() * total
        for record in left:
            drawn -= record.weight
            if drawn < 0.0:
                return record
        return left[-1]
