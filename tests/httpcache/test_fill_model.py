"""Fills against a naive model, and many readers in threads and event loops."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threads import run_threads
from watchdog import PATIENCE

from headgate.httpcache._fills import HEADLESS, Fills, IncompleteResponseError

MIB = 2**20
SOURCE = random.Random(1).randbytes(200_000)
ERRORS = IncompleteResponseError, ZeroDivisionError
STEPS = st.lists(st.one_of(
    st.tuples(st.just("join"), st.just(0)),
    st.tuples(st.just("write"), st.integers(0, 3000)),
    st.tuples(st.just("finish"), st.integers(0, 3000)),
    st.tuples(st.just("take"), st.integers(0, 5)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("fail"), st.just(0)),
), max_size=40)


class Model:
    """The whole body is kept, and how far each reader has come."""

    def __init__(self, max_object, length):
        self.fills = Fills(max_object, 32 * MIB)
        self.max_object, self.length = max_object, length
        leader = self.fills.join("key", None)
        self.fill, self.readers = leader.fill, {leader: 0}
        self.written, self.stored = 0, []
        is_open = self.fill.open("head", length)
        assert is_open == (length is None or length <= max_object)
        self.state = "open" if is_open else "released"

    def join(self, _):
        reader = self.fills.join("key", None)
        assert (reader.fill is self.fill) == (self.state == "open")
        if reader.fill is self.fill:
            self.readers[reader] = 0
        else:
            reader.leave()

    def write(self, size):
        self._put(size, self.fill.write)

    def finish(self, size):
        was_open = self.state == "open"
        if self._put(size, lambda data: self.fill.finish(data, self.stored.append), last=True):
            stays = was_open and self.state == "open"
            assert self.stored == ([SOURCE[: self.written]] if stays else [])
            self.state = self.state if self.state == "failed" else "complete"

    def _put(self, size, call, last=False):
        """Whether the fill took it."""
        data = SOURCE[self.written : self.written + size]
        total = self.written + len(data)
        wrong = self.length is not None and (total > self.length or (last and total != self.length))
        if self.state not in ("open", "detached") or wrong:
            with pytest.raises(ERRORS):
                call(data)
            self.state = "failed" if self.state in ("open", "detached") else self.state
            return False
        self.written = total
        if self.state == "open" and total > self.max_object:
            self.state = "detached" if self.readers else "failed"
        call(data)
        return True

    def take(self, number):
        if not self.readers:
            return
        reader = list(self.readers)[number % len(self.readers)]
        at = self.readers[reader]
        if self.state == "failed":
            with pytest.raises(ERRORS):
                reader.take()
            return
        taken = reader.take()
        if taken is None:
            assert at == self.written and self.state != "complete"
            return
        part, more = taken
        assert part == SOURCE[at : at + len(part)] and (part or self.state == "complete")
        self.readers[reader] = at + len(part)
        assert more == (self.state != "complete" or self.readers[reader] < self.written)

    def leave(self, number):
        if not self.readers:
            return
        reader = list(self.readers)[number % len(self.readers)]
        reader.leave()
        del self.readers[reader]
        if not self.readers and self.state in ("detached", "released"):
            assert self.fill.is_abandoned
            self.state = "failed" if self.state == "detached" else self.state

    def fail(self, _):
        self.fill.fail(ZeroDivisionError("app"))
        self.state = "failed" if self.state in ("open", "detached") else self.state


@given(STEPS, st.sampled_from([0, 2000, 5000, 100_000]), st.one_of(st.none(), st.integers(0, 6000)))
def test_a_fill_is_its_model(steps, max_object, length):
    model = Model(max_object, length)
    for step, value in steps:
        getattr(model, step)(value)
        assert model.fills.filling == (model.written if model.state == "open" else 0)


PARTS = [random.Random(number).randbytes(5000 + number * 100) for number in range(150)]
BODY = b"".join(PARTS)


def write_parts(fill, ends, stored):
    fill.open(None, None)
    for part in PARTS[:-1]:
        if not fill.write(part):
            fill.wait_for_space()
    if ends == "well":
        fill.finish(PARTS[-1], stored.append)
    else:
        fill.fail(ZeroDivisionError("app"))


async def write_parts_async(fill, ends, stored):
    fill.open(None, None)
    for part in PARTS[:-1]:
        if not fill.write(part):
            await fill.wait_for_space_async()
    if ends == "well":
        fill.finish(PARTS[-1], stored.append)
    else:
        fill.fail(ZeroDivisionError("app"))


def read_all(reader):
    """The body, None after an error."""
    parts, more = [], True
    try:
        reader.wait_past(HEADLESS, PATIENCE)
        while more:
            part, more = reader.read(PATIENCE)
            parts.append(part)
    except ZeroDivisionError:
        return None
    finally:
        reader.leave()
    return b"".join(parts)


async def read_all_async(reader):
    parts, more = [], True
    try:
        await reader.wait_past_async(HEADLESS, PATIENCE)
        while more:
            part, more = await reader.read_async(PATIENCE)
            parts.append(part)
    except ZeroDivisionError:
        return None
    finally:
        reader.leave()
    return b"".join(parts)


@pytest.mark.parametrize("in_loop", [False, True], ids=["thread leads", "task leads"])
@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("max_object", [16 * MIB, MIB // 4], ids=["stored", "window"])
def test_threads_and_loops_get_every_byte_or_an_error(max_object, ends, in_loop):
    """Three threads, two loops with ten tasks each, one client that leaves at once, and the leader."""
    fills, stored, outcomes = Fills(max_object, 32 * MIB), [], []
    leader = fills.join("key", None)
    readers = [fills.join("key", None) for _ in range(24)]

    def read_in_loop(mine):
        async def main():
            return await asyncio.gather(*map(read_all_async, mine))
        outcomes.extend(asyncio.run(main()))

    def work(number):
        if number == 0:
            if in_loop:
                asyncio.run(write_parts_async(leader.fill, ends, stored))
            else:
                write_parts(leader.fill, ends, stored)
        elif number < 4:
            outcomes.append(read_all(readers[number - 1]))
        elif number < 6:
            read_in_loop(readers[3 + 10 * (number - 4) : 13 + 10 * (number - 4)])
        elif number == 6:
            outcomes.append(read_all(leader))
        else:
            readers[23].leave()

    run_threads(work, 8)
    assert outcomes == [BODY if ends == "well" else None] * 24
    assert stored == ([BODY] if ends == "well" and max_object > len(BODY) else [])
    assert (len(fills), fills.filling) == (0, 0)
