"""Balancers that ignore load: in turn, or at random, by weight."""

from headgate.balance._balancer import _Balancer
from headgate.balance._members import NEVER
from headgate.balance._settings import first_steps

MAX_DRAWS = 64
_FAR = 2.0**62


class RoundRobin(_Balancer):
    """Picks the servers in turn, from a random one on, or from the first if there is a `seed`.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"], seed=0)
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    _cursor = 0

    def _build(self, active):
        following = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = next((record.index for record in following if record.index >= 0), 0)
        if active and self._begins_anywhere():
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
    """Picks the servers in turn by weight: the sequence of nginx's smooth weighted round robin.

    With a `seed` the sequence begins where nginx's does, otherwise at a random step of it.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1}, seed=0)
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    def _build(self, active):
        """Restart the sequence, all current weights being 0; without a seed, at a random step."""
        self._weights = [record.weight for record in active]
        self._total_weight = 0.0
        for weight in self._weights:
            self._total_weight += weight
        self._currents, self._updated = [0.0] * len(active), [0] * len(active)
        self._step = 0
        self._winners, self._expiries = [0] * len(active), [NEVER] * len(active)
        self._build_tree()
        if active and not self._seeded:
            for _ in range(self._below(first_steps(self._weights))):
                self._advance()
                self._subtract(self._winners[1] if len(active) > 1 else 0, self._total_weight)

    def _current_weight(self, at):
        """nginx's `current_weight` of a server, which grows by the weight at every step."""
        return self._currents[at] + (self._step - self._updated[at]) * self._weights[at]

    def _update_node(self, node):
        """Compare the winners of both children, and find the step at which the loser overtakes."""
        count, left, right = len(self._weights), 2 * node, 2 * node + 1
        winner = left - count if left >= count else self._winners[left]
        loser = right - count if right >= count else self._winners[right]
        lead = self._current_weight(winner) - self._current_weight(loser)
        if lead < 0.0 or (lead == 0.0 and loser < winner):
            winner, loser, lead = loser, winner, -lead
        expiry = min(NEVER if left >= count else self._expiries[left],
                     NEVER if right >= count else self._expiries[right])
        gain = self._weights[loser] - self._weights[winner]
        if gain > 0.0 and lead < gain * _FAR:
            expiry = min(expiry, self._step + max(1, int(lead / gain)))
        self._winners[node], self._expiries[node] = winner, expiry

    def _build_tree(self):
        for node in range(len(self._weights) - 1, 0, -1):
            self._update_node(node)

    def _refresh_node(self, node):
        """Update the nodes below `node` whose winner may have changed by now."""
        if node < len(self._weights) and self._expiries[node] <= self._step:
            self._refresh_node(2 * node)
            self._refresh_node(2 * node + 1)
            self._update_node(node)

    def _update_path(self, at):
        """Update the nodes from a server, whose current weight has changed, to the root."""
        node = (at + len(self._weights)) // 2
        while node:
            self._update_node(node)
            node //= 2

    def _subtract(self, at, amount):
        """Subtract `amount` from the current weight of a server."""
        self._currents[at] = self._current_weight(at) - amount
        self._updated[at] = self._step
        self._update_path(at)

    def _advance(self):
        """Go to the next step, and update the tree for it."""
        self._step += 1
        self._refresh_node(1)

    def _choose(self, key, skip, now):
        self._advance()
        best = self._best(1, skip)
        total = self._total_weight
        for index in self._indexes(skip):
            self._subtract(index, self._weights[index])
            total -= self._weights[index]
        self._subtract(best, total)
        return self._active[best]

    def _best(self, node, skip):
        """The best server below `node` that is not in `skip`, or -1."""
        count = len(self._weights)
        at = node - count if node >= count else self._winners[node]
        if not skip or self._active[at] not in skip:
            return at
        if node >= count:
            return -1
        at, other = self._best(2 * node, skip), self._best(2 * node + 1, skip)
        if at < 0 or (other >= 0 and self._is_ahead(other, at)):
            return other
        return at

    def _is_ahead(self, at, other):
        """Whether a server has a greater current weight than another one, or the same and comes first."""
        current, compared = self._current_weight(at), self._current_weight(other)
        return current > compared or (current == compared and at < other)

    def _check_order(self):
        assert self._weights == [record.weight for record in self._active]
        for node in range(1, len(self._weights)):
            if self._expiries[node] > self._step:
                below = [at for at in range(len(self._weights)) if self._is_below(node, at)]
                first = max(below, key=lambda at: (self._current_weight(at), -at))
                lead = self._current_weight(first) - self._current_weight(self._winners[node])
                assert first == self._winners[node] or lead <= 1e-9 * self._total_weight

    def _is_below(self, node, at):
        """Whether a server's leaf is in the subtree of `node`."""
        leaf = at + len(self._weights)
        return leaf >> (leaf.bit_length() - node.bit_length()) == node


class RandomChoice(_Balancer):
    """Picks a server at random, in proportion to the weights.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.

    Complexity: O(1) a pick.

    >>> balancer = RandomChoice({"a": 9, "b": 1}, seed=1)
    >>> sum(balancer.get_server() == "a" for _ in range(1000)) > 850
    True
    """

    def _build(self, active):
        """Build Vose's alias table: a slot yields its own record with its chance, otherwise the alias."""
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
        for _ in range(MAX_DRAWS):
            at = self._below(len(self._active))
            if self._unit() >= self._chances[at]:
                at = self._aliases[at]
            if not skip or self._active[at] not in skip:
                return self._active[at]
        return self._choose_remaining(self._remaining(skip))

    def _choose_remaining(self, left):
        """A draw by weight from the records of a list."""
        total = 0.0
        for record in left:
            total += record.weight
        drawn = self._unit() * total
        for record in left:
            drawn -= record.weight
            if drawn < 0.0:
                return record
        return left[-1]
