"""A log of purges as a stream whose server loses data in all ways, and what a follower of it must know."""

import json

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from headgate.adapters.redis import _purge_stream
from headgate.httpcache import PurgeFollower

TAGS = st.sampled_from("abc")


class Times:
    """A cache that keeps only up to when it is purged, by tag and as a whole."""

    def __init__(self):
        self.by_tag, self.floor = {}, 0.0

    def purge(self, *, tag=None, prefix=None, stale=False, at):
        if prefix is not None:
            self.floor = max(self.floor, at)
        else:
            self.by_tag[tag] = max(self.by_tag.get(tag, 0.0), at)

    def covers(self, tag, at):
        return max(self.floor, self.by_tag.get(tag, 0.0)) >= at


class ModelServer:
    """What the two scripts do, in Python. Time passes by a second a call."""

    def __init__(self):
        self.now = 1_796_000_000
        self.flush()

    def time(self):
        return float(self.now)

    async def call(self, call):
        self.now += 1
        run = self._append if call.script is _purge_stream._APPEND else self._read
        return run(*[argument.decode() for argument in call.arguments])

    def _append(self, purge, token, maxlen):
        if self.head is None:
            self.head, self.rows = [token, 0, ""], []
        number, before = self.head[1] + 1, self.head[2]
        words = {"purge": purge, "at": f"{self.now}.000000", "token": token, "before": before}
        self.rows = [*self.rows, (number, words)][-int(maxlen):]
        self.head = [self.head[0], number, token]
        return number, words["at"].encode()

    def _read(self, after, count, fresh):
        if self.head is None:
            self.head, self.rows = [fresh, 0, ""], []
        found = [row for row in self.rows if row[0] > int(after)][:int(count)]
        rows = [
            [b"%d-1" % number, [word.encode() for pair in words.items() for word in pair]]
            for number, words in found
        ]
        epoch, last, token = self.head
        return [epoch.encode(), b"%d" % last, token.encode(), rows]

    def flush(self):
        self.head, self.rows = None, []

    def snapshot(self):
        return self.head, self.rows

    def restore(self, snapshot):
        self.head, self.rows = snapshot

    def lose_head(self):
        self.head = None

    def keep(self, count):
        self.rows = self.rows[len(self.rows) - count:]

    def delete(self, number):
        self.rows = [row for row in self.rows if row[0] != number]


class Followers(RuleBasedStateMachine):
    """A stream and one follower. A subclass makes the server and the stream, and runs coroutines."""

    def __init__(self):
        super().__init__()
        self.server = self.made_server()
        self.stream = self.made_stream()
        self.cache = Times()
        self.follower = PurgeFollower(self.cache, clock=self.server.time)
        self.history, self.snapshots = [], []
        self.may_have_gaps = False

    @initialize()
    def starts(self):
        self.catch_up()

    @rule(tag=TAGS)
    def append(self, tag):
        _, record = self.done(self.stream.append(tag=tag))
        self.history.append((tag, record["at"]))

    @rule(tag=TAGS)
    def append_here(self, tag):
        """As ``AsyncPurges.purge`` does."""
        _, record = self.done(self.stream.append(tag=tag))
        self.history.append((tag, record["at"]))
        self.follower.apply(record)

    @rule()
    def read(self):
        self.follower.receive(*self.done(self.stream.read(self.follower.position)))

    @rule()
    def catch_up(self):
        """After this everything that the log has ever had, as far as its server knows, has been applied."""
        before = self.follower.gaps
        for _ in range(200):
            position = self.follower.position
            self.read()
            if position == self.follower.position:
                break
        else:
            raise AssertionError("the log never ends")
        assert all(self.cache.covers(tag, at) for tag, at in self.history)
        assert self.may_have_gaps or self.follower.gaps == before
        self.may_have_gaps = False

    @rule()
    def flush(self):
        self.server.flush()
        self.may_have_gaps = True

    @rule()
    def lose_head(self):
        self.server.lose_head()
        self.may_have_gaps = True

    @rule()
    def snapshot(self):
        self.snapshots.append((self.server.snapshot(), list(self.history)))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def fail_over(self, data):
        """A replica takes over that lacks what came after a moment."""
        snapshot, self.history = data.draw(st.sampled_from(self.snapshots))
        self.history = list(self.history)
        self.server.restore(snapshot)
        self.may_have_gaps = True

    @rule(kept=TAGS, lost=TAGS, given=st.text("abc", max_size=3))
    def hand_over(self, kept, lost, given):
        """A replica that lacks what the follower has read takes over and gives its numbers away."""
        self.append(kept)
        history, snapshot = list(self.history), self.server.snapshot()
        self.append(lost)
        self.catch_up()
        self.server.restore(snapshot)
        self.history, self.may_have_gaps = history, True
        for tag in given:
            self.append(tag)
        self.catch_up()

    @rule(count=st.integers(0, 3))
    def trim(self, count):
        self.server.keep(count)
        self.may_have_gaps = True

    @rule(data=st.data())
    def delete(self, data):
        self.server.delete(data.draw(st.integers(1, len(self.history) + 1)))
        self.may_have_gaps = True

    @rule(position=st.none() | st.tuples(st.just("another"), st.integers(0, 5)))
    def another_reads(self, position):
        """It costs nothing but what it finds out."""
        epoch, last, records = self.done(self.stream.read(position))
        assert json.dumps(records) and epoch and last >= 0
