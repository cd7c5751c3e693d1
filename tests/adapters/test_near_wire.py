"""RESP3 as a near cache reads it, and what follows from the messages of its tracking connection."""

from contextlib import suppress
from time import process_time

import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from headgate.adapters.redis import _near_wire
from headgate.adapters.redis._near_wire import Demoted, Messages, Push, Session, run_id_of
from headgate.adapters.redis._replies import ReplyError, packed
from headgate.near import NearSource, NearTable

SECOND = 10**9
MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA = b"*2\r\n$5\r\nslave\r\n$1\r\nx\r\n"
GREETING = b"%1\r\n+proto\r\n:3\r\n=20\r\ntxt:a:1\r\nrun_id:5f\r\n\r\n" + MASTER + b"+OK\r\n"
EXAMPLES = {
    b"+OK\r\n": b"OK", b":-5\r\n": -5, b"$3\r\na\r\n\r\n": b"a\r\n", b"$0\r\n\r\n": b"", b"$-1\r\n": None,
    b"_\r\n": None, b"*-1\r\n": None, b"#t\r\n": b"t", b",1.5\r\n": b"1.5", b"(123\r\n": b"123",
    b"=5\r\ntxt:x\r\n": b"x", b"*2\r\n:1\r\n*1\r\n+x\r\n": [1, [b"x"]], b"~1\r\n:1\r\n": [1],
    b"%1\r\n+a\r\n:1\r\n": [b"a", 1],
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n": [b"invalidate", [b"a"]],
}


@pytest.mark.parametrize("data", EXAMPLES)
def test_messages_are_parsed_once_they_are_whole(data):
    for end in range(len(data)):
        messages = Messages()
        assert messages.feed(data[:end]) == []
        (message,) = messages.feed(data[end:])
        assert message == EXAMPLES[data]
        assert isinstance(message, Push) == data.startswith(b">")
        assert messages.feed(data + data) == [EXAMPLES[data]] * 2


def test_messages_come_in_any_pieces():
    data, messages = b"".join(EXAMPLES), Messages()
    found = [message for at in range(len(data)) for message in messages.feed(data[at : at + 1])]
    assert found == list(EXAMPLES.values()) == Messages().feed(data)


def test_errors_are_values():
    for data in (b"-ERR no\r\n", b"!6\r\nERR no\r\n"):
        (error,) = Messages().feed(data)
        assert isinstance(error, ReplyError)
        assert str(error) == "ERR no"


@pytest.mark.parametrize("data", [b"x\r\n", b"\r\n", b"$x\r\n", b"*1\r\n?\r\n", b"HTTP/1.1 400\r\n"])
def test_other_data_is_refused(data):
    with pytest.raises(ConnectionError, match=r"in a reply|no reply"):
        Messages().feed(data)


def test_a_message_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(_near_wire, "_MOST_BUFFERED", 1000)
    messages = Messages()
    messages.feed(b"*1000\r\n")
    with pytest.raises(ConnectionError, match="more than 1000 bytes"):
        for _ in range(1000):
            messages.feed(b"*2\r\n:1\r\n")


@given(st.binary(max_size=30))
def test_junk_raises_nothing_else(data):
    with suppress(ConnectionError):
        Messages().feed(data)


def test_an_announcement_of_many_keys_takes_a_time_linear_in_their_number():
    def seconds(count):
        keys = b"".join([packed(b"user:%d" % number)[4:] for number in range(count)])
        data = b">2\r\n$10\r\ninvalidate\r\n*%d\r\n%b" % (count, keys)
        messages, start = Messages(), process_time()
        parts = [data[at : at + 1000] for at in range(0, len(data), 1000)]
        found = [message for part in parts for message in messages.feed(part)]
        assert len(found[0][1]) == count
        return process_time() - start

    few = min(seconds(1000) for _ in range(5))
    assert seconds(30_000) < 30 * 8 * few


def test_the_identity_of_a_server():
    assert run_id_of(b"a:1\r\nrun_id:5f\r\nb:2\r\n") == "5f"
    assert run_id_of(b"a:1\r\n") is None
    assert run_id_of(ReplyError("NOPERM")) is None
    assert run_id_of(b"run_id:\xff") == "\ufffd"


class Dialogue:
    """A session of a table whose clock is the test's."""

    def __init__(self):
        self.clock = FakeClock()
        self.table = NearTable(prefixes=["user:", "page:"], clock=self.clock)
        self.source = NearSource(self.table)
        self.session = Session(self.source, [b"user:", b"page:"], SECOND // 4, SECOND)
        self.sent = self.session.start(self.clock.now)

    def read(self, data):
        self.session.received(data, self.clock.now)

    def send(self):
        return self.session.due(self.clock.now)

    def begin(self):
        self.read(GREETING)
        for _ in range(2):
            assert self.send() == b"*1\r\n$4\r\nROLE\r\n"
            assert self.send() == b""
            self.read(MASTER)


@pytest.fixture
def dialogue():
    return Dialogue()


def test_two_heartbeats_at_once_and_then_one_every_quarter_of_a_second(dialogue):
    words = [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"user:", b"PREFIX", b"page:"]
    assert dialogue.sent.endswith(packed(*words))
    dialogue.begin()
    assert dialogue.table.is_fresh(dialogue.source.epoch)
    assert dialogue.source.epoch.run_id == "5f"
    assert dialogue.session.wait(dialogue.clock.now) == 0.25
    assert dialogue.send() == b""
    dialogue.clock.advance(0.25)
    assert dialogue.session.wait(dialogue.clock.now) == 0
    assert dialogue.send()


def test_announcements_come_between_replies_and_in_pieces(dialogue):
    dialogue.begin()
    entries = [dialogue.table.begin(key, dialogue.source.epoch) for key in ("user:1", "user:2")]
    dialogue.clock.advance(0.25)
    dialogue.send()
    push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\nuser:1\r\n"
    for byte in push + MASTER + b">2\r\n+other\r\n_\r\n":
        dialogue.read(bytes((byte,)))
    assert [entry.is_alive for entry in entries] == [False, True]
    dialogue.read(b">2\r\n$10\r\ninvalidate\r\n_\r\n")
    assert not entries[1].is_alive
    assert dialogue.table.is_fresh(dialogue.source.epoch)


def test_a_server_that_is_no_master_is_not_trusted(dialogue):
    with pytest.raises(Demoted, match="the server is a slave"):
        dialogue.read(GREETING.replace(MASTER, REPLICA))
    assert dialogue.source.epoch is None
    dialogue = Dialogue()
    dialogue.begin()
    dialogue.clock.advance(0.25)
    dialogue.send()
    with pytest.raises(Demoted, match="the server is a slave"):
        dialogue.read(REPLICA)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "connection closed by the server"),
    (GREETING.replace(b"run_id", b"no__id"), "the server does not tell its run_id"),
    (GREETING.replace(b"+OK", b"-NOPERM no"), "NOPERM no"),
    (b"-NOAUTH first\r\n", "NOAUTH first"),
    (GREETING + MASTER, "more replies than commands"),
    (b"SSH-2.0\r\n", "no reply"),
    (GREETING.replace(MASTER, b"+OK\r\n"), "the server is a OK"),
    (GREETING.replace(MASTER, b"*0\r\n"), r"the server is a \[\]"),
    (GREETING.replace(MASTER, b":7\r\n"), "the server is a 7"),
    (GREETING.replace(MASTER, b"*1\r\n$1\r\n\xff\r\n"), "the server is a "),
    (b">1\r\n+invalidate\r\n", r"no keys in an announcement: \[\]"),
    (b">2\r\n+invalidate\r\n:1\r\n", r"no keys in an announcement: \[1\]"),
    (b">2\r\n+invalidate\r\n*2\r\n+user:1\r\n_\r\n", "no keys in an announcement"),
])
def test_what_ends_a_session(dialogue, data, message):
    with pytest.raises(ConnectionError, match=message):
        dialogue.read(data)


def test_an_overdue_reply_ends_a_session(dialogue):
    dialogue.begin()
    dialogue.clock.advance(0.25)
    dialogue.send()
    dialogue.clock.advance(0.99)
    assert dialogue.send() == b""
    assert 0 < dialogue.session.wait(dialogue.clock.now) <= 0.01
    dialogue.clock.advance(0.01)
    with pytest.raises(ConnectionError, match="no reply to a heartbeat"):
        dialogue.send()
    silent = Dialogue()
    silent.clock.advance(1)
    with pytest.raises(ConnectionError, match="no reply"):
        silent.send()
