"""The log of purges that processes share: nothing is missed, or the reader knows it."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from threads import run_threads
from watchdog import PATIENCE

from headgate.httpcache import _purges
from headgate.httpcache._purges import LONGEST, RING, SharedLog

pytest.importorskip("fcntl")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "purges"


@pytest.fixture
def log(path):
    return SharedLog(path)


def test_records_reach_every_log_of_the_file(path, log):
    other = SharedLog(str(path))
    assert log.shared and log.position() == other.position() == 0
    first = log.append(b"a")
    second = other.append(b"")
    assert 0 < first < second == log.position()
    assert log.read(0) == other.read(0) == [b"a", b""] and log.read(first) == [b""] and log.read(second) == []
    assert SharedLog(path).position() == second


def test_the_ring_wraps(log):
    rng, position = random.Random(3), 0
    for _ in range(400):
        batch = [rng.randbytes(rng.randrange(9000)) for _ in range(5)]
        for record in batch:
            log.append(record)
        assert log.read(position) == batch
        position = log.position()
    assert position > 5 * RING


def test_a_reader_that_was_overtaken_knows_it(log):
    log.append(b"first")
    second = log.position()
    while log.position() <= RING:
        log.append(bytes(1000))
    assert log.read(0) is None
    last = log.position()
    log.append(b"x")
    assert log.read(last) == [b"x"] and log.read(second) is None


def test_the_longest_record_and_one_above(log):
    start = log.append(b"a")
    log.append(bytes(LONGEST))
    assert log.read(start) == [bytes(LONGEST)]
    after = log.append(bytes(LONGEST + 1))
    assert log.read(start) is None and log.position() == after
    log.append(b"b")
    assert log.read(after) == [b"b"]


def reserve(log, record, write):
    """What a writer that ends in the middle leaves."""
    taken = _purges._taken(record)
    end = log._words.add(_purges._AT_RESERVED, taken)
    if write == "some":
        log._put(end - taken + 16, record)
    elif write == "all":
        log._write(end - taken, record)
    return end


@pytest.mark.parametrize("write", ["nothing", "some"])
def test_a_writer_that_was_killed_leaves_a_hole_that_readers_know(log, write):
    start = log.append(b"a")
    reserve(log, b"lost", write)
    assert log.position() == start and log.read(0) == [b"a"]  # its append never returned
    began = time.monotonic()
    end = log.append(b"b")
    assert time.monotonic() - began < 1.0 and log.position() == end
    assert log.read(start) is None
    log.append(b"c")
    assert log.read(end) == [b"c"]


def test_a_writer_that_was_killed_before_it_published(log):
    reserve(log, b"whole", "all")
    began = time.monotonic()
    log.append(b"b")
    assert time.monotonic() - began < _purges._PATIENCE and log.read(0) == [b"whole", b"b"]


def test_a_stopped_writer_that_damages_what_came_after_is_noticed(log):
    stopped = reserve(log, b"stopped", "nothing") - _purges._taken(b"stopped")
    position = log.append(b"x")
    while log.position() - stopped < RING - 2000:
        position = log.append(bytes(1000))
    while log.position() - stopped < RING - 100:
        position = log.append(bytes(3))
    for _ in range(8):
        log.append(bytes(range(40)))
    assert log.read(position) == [bytes(range(40))] * 8
    log._write(stopped, b"stopped")
    assert log.read(position) is None


def test_threads_lose_nothing(path, log):
    logs = [log, *(SharedLog(path) for _ in range(3))]

    def work(number):
        for count in range(200):
            logs[number].append(b"%d %d" % (number, count))

    run_threads(work, 4)
    records = log.read(0)
    assert records is not None
    assert len(records) == 800
    for number in range(4):
        mine = [record for record in records if record.startswith(b"%d " % number)]
        assert mine == [b"%d %d" % (number, count) for count in range(200)]


WRITER = """
import sys
from headgate.httpcache._purges import SharedLog
log = SharedLog(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    log.append(b"%s %d" % (sys.argv[2].encode(), number))
    number += 1
"""


def start_writer(path, name):
    command = [sys.executable, "-c", WRITER, str(path), name]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    return writer


def test_killed_writers_neither_block_nor_mislead_others(path, log):
    """A reader sees each writer's records in order and without a gap, or knows that some are lost."""
    position, seen, reads = log.position(), {}, 0
    for letters in ("ab", "cd"):
        writers = [start_writer(path, name) for name in letters]
        end, enough = time.monotonic() + 0.2, reads + 100
        while (now := time.monotonic()) < end or reads < enough:
            assert now < end + PATIENCE, f"only {reads} records were read"
            records = log.read(position)
            if records is None:
                position, seen = log.position(), {}
                continue
            for record in records:
                name, number = record.split()
                assert int(number) == seen.get(name, int(number) - 1) + 1
                seen[name] = int(number)
                reads += 1
            position += sum(map(_purges._taken, records))
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
        began = time.monotonic()
        position, seen = log.append(b"mine 0"), {}
        assert time.monotonic() - began < 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_of_a_fork_writes_to_the_same_log(log):
    before = log.append(b"parent")
    child = os.fork()
    if not child:
        log.append(b"child")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert log.read(before) == [b"child"]


@pytest.mark.parametrize("content", [b"hello", bytes(100), b"x" * (4096 + RING)])
def test_another_file_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="path must be a file of an HTTPCache, got"):
        SharedLog(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("at", [_purges._AT_LAYOUT, _purges._AT_TWIN, _purges._AT_RING])
def test_a_file_of_another_kind_is_refused(path, log, at):
    content = bytearray(path.read_bytes())
    content[8 * at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="path must be a file of this version of headgate and of its"):
        SharedLog(path)


def test_a_file_with_another_mode_is_refused(path, log):
    path.chmod(0o644)
    with pytest.raises(ValueError, match="mode must be 0o644 as of"):
        SharedLog(path)


def test_a_file_whose_layout_was_interrupted_is_made_again(path):
    path.write_bytes(bytes(4096 + RING))
    path.chmod(0o600)
    assert SharedLog(path).append(b"a") == 24
