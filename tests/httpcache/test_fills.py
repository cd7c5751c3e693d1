"""Fills: each client gets all bytes of the body or an error, and never a short end that looks whole."""

import asyncio
import threading
import time

import pytest
from watchdog import PATIENCE, in_a_loop, in_a_thread

from headgate.httpcache import _fills
from headgate.httpcache._changes import Changes
from headgate.httpcache._fills import (
    COMPLETE,
    DETACHED,
    FAILED,
    HEADLESS,
    OPEN,
    PENDING,
    RELEASED,
    SETTLED,
    SLICE,
    WINDOW,
    Fills,
    IncompleteResponseError,
)

MIB = 2**20
KEY = "GET /"


@pytest.fixture
def now(monkeypatch):
    """The time of fills in a list."""
    now = [0.0]
    monkeypatch.setattr(_fills, "monotonic", lambda: now[0])
    return now


def make(max_object=8 * MIB, max_filling=32 * MIB, **options):
    return Fills(max_object, max_filling, **options)


def lead(fills, key=KEY):
    reader = fills.join(key, None)
    assert reader.leads
    return reader


def follow(fills, key=KEY):
    reader = fills.join(key, None)
    assert not reader.leads
    return reader


def opened(fills, key=KEY, length=None):
    reader = lead(fills, key)
    reader.fill.open("head", length)
    return reader


def drain(reader):
    """The rest of the body, waited for."""
    parts, more = [], True
    while more:
        part, more = reader.read(PATIENCE)
        parts.append(part)
    return b"".join(parts)


def there(reader):
    """What a reader can take now."""
    parts = []
    while (taken := reader.take()) is not None:
        parts.append(taken[0])
        if not taken[1]:
            break
    return b"".join(parts)


def test_followers_read_what_the_leader_writes():
    fills, stored = make(), []
    leader = lead(fills)
    early, fill = follow(fills), leader.fill
    assert early.fill is fill and fill.state == PENDING and len(fills) == 1 and early.take() is None
    assert fill.open("head", None) and early.wait_past(HEADLESS, 0) == OPEN and fill.head == "head"
    assert fill.write(b"one") and early.take() == (b"one", True)
    late = follow(fills)
    fill.finish(b"two", lambda body: stored.append(body) or "stored")
    assert stored == [b"onetwo"] and fill.outcome == "stored"
    assert early.take() == (b"two", False) and late.take() == (b"onetwo", False)
    assert drain(leader) == b"onetwo" and (len(fills), fills.filling) == (0, 0)
    assert fills.join(KEY, None).leads


def test_parts_are_slices_and_the_last_one_is_known_as_such():
    leader = opened(make())
    leader.fill.finish(bytes(2 * SLICE + 1), len)
    taken = [leader.take() for _ in range(3)]
    assert [(len(part), more) for part, more in taken] == [(SLICE, True), (SLICE, True), (1, False)]
    assert leader.take() == (b"", False)


def test_an_empty_body():
    leader = opened(make(), length=0)
    leader.fill.finish(b"", len)
    assert leader.fill.state == COMPLETE and leader.take() == (b"", False)


def test_released_followers_leave_at_once():
    fills = make()
    leader, follower = lead(fills), follow(fills)
    leader.fill.release()
    assert follower.wait_past(HEADLESS, PATIENCE) == RELEASED and fills.join(KEY, None).leads


def test_a_length_above_max_object_releases_all_at_once():
    fills = make(max_object=10)
    leader, follower = lead(fills), follow(fills)
    assert not leader.fill.open("head", 11) and follower.wait_past(HEADLESS, PATIENCE) == RELEASED
    assert opened(fills, length=10).fill.state == OPEN


def test_a_stored_response_settles_a_fill():
    fills = make()
    leader, follower = lead(fills), follow(fills)
    leader.fill.settle("stored")
    assert follower.wait_past(HEADLESS, 0) == SETTLED and follower.fill.outcome == "stored"


def test_a_failed_fill_gives_its_followers_the_error():
    fills = make()
    leader, followers = lead(fills), [follow(fills) for _ in range(3)]
    leader.fill.fail(error := ZeroDivisionError("app"))
    for reader in [leader, *followers]:
        with pytest.raises(ZeroDivisionError) as caught:
            reader.wait_past(HEADLESS, 0)
        assert caught.value is error
    assert fills.join(KEY, None).leads


def test_a_cancelled_leader_does_not_cancel_its_followers():
    fills = make()
    leader, follower = lead(fills), follow(fills)
    leader.fill.fail(asyncio.CancelledError())
    with pytest.raises(IncompleteResponseError, match="the call of the application was cancelled"):
        follower.wait_past(HEADLESS, 0)


@pytest.mark.parametrize("length", [None, 9])
def test_a_failure_after_the_first_byte_reaches_all_readers(length):
    fills, stored = make(), []
    leader = opened(fills, length=length)
    follower = follow(fills)
    leader.fill.write(b"abc")
    leader.fill.fail(ZeroDivisionError("app"))
    with pytest.raises(ZeroDivisionError):
        follower.take()
    with pytest.raises(ZeroDivisionError):
        leader.fill.finish(b"defghi", stored.append)
    assert (stored, fills.filling) == ([], 0)


@pytest.mark.parametrize("last", [b"", b"defghi" * 2])
def test_a_body_of_another_length_fails(last):
    fills, stored = make(), []
    leader = opened(fills, length=9)
    follower = follow(fills)
    leader.fill.write(b"abc")
    for call in (lambda: leader.fill.finish(last, stored.append), follower.take):
        with pytest.raises(IncompleteResponseError, match="the body has "):
            call()
    assert (stored, fills.filling, leader.fill.state) == ([], 0, FAILED)


def test_clients_that_all_leave_abandon_a_fill_without_a_head():
    fills = make()
    leader, follower = lead(fills), follow(fills)
    leader.leave()
    leader.leave()
    assert not leader.fill.is_abandoned
    with follower:
        pass
    assert leader.fill.is_abandoned and fills.join(KEY, None).leads
    with pytest.raises(IncompleteResponseError, match="all clients have left"):
        leader.fill.write(b"x")


def test_a_fill_about_to_be_stored_goes_on_without_clients():
    fills, stored = make(), []
    leader = opened(fills)
    leader.leave()
    leader.fill.write(b"a")
    assert follow(fills).take() == (b"a", True)
    leader.fill.finish(b"b", stored.append)
    assert stored == [b"ab"]


def test_a_refresh_goes_on_without_clients_and_is_one():
    fills, stored = make(), []
    fill = fills.refresh(KEY, "lookup")
    assert fill.lookup == "lookup" and fills.refresh(KEY, None) is None
    follow(fills).leave()
    assert not fill.is_abandoned
    fill.open(None, None)
    fill.finish(b"a", stored.append)
    assert stored == [b"a"] and fills.refresh(KEY, None) is not None


def test_a_body_above_max_object_ends_admission_and_is_not_stored():
    fills, stored = make(max_object=2 * MIB), []
    leader = opened(fills)
    follower, fill = follow(fills), leader.fill
    fill.write(bytes(2 * MIB))
    assert fill.state == OPEN and fills.filling == 2 * MIB
    assert not fill.write(b"x")
    assert fill.state == DETACHED and fills.filling == 0 and fills.join(KEY, None).leads
    assert len(there(leader)) == 2 * MIB + 1 and not fill.write(b"x")  # the follower has read nothing
    assert len(there(follower)) == 2 * MIB + 2 and fill.write(b"x")
    fill.finish(b"", stored.append)
    assert (drain(leader), drain(follower), stored) == (b"xx", b"x", [])


def test_a_detached_fill_keeps_a_window():
    fills = make(max_object=1)
    leader = opened(fills)
    follower, fill, part, kept = follow(fills), leader.fill, bytes(100_000), 0
    for _ in range(100):
        has_space = fill.write(part)
        kept = max(kept, sum(map(len, fill._blocks)))
        if not has_space:
            there(leader)
            there(follower)
            fill.wait_for_space()
    assert WINDOW < kept <= WINDOW + len(part)


def test_a_flood_of_single_bytes_is_joined():
    leader, body = opened(make()), bytes(number % 256 for number in range(10_000))
    for number in body:
        leader.fill.write(bytes([number]))
    assert len(leader.fill._blocks) <= 4
    leader.fill.finish(b"", len)
    assert drain(leader) == body


def test_max_filling_bounds_all_fills():
    fills = make(max_object=MIB, max_filling=MIB + 10)
    first, second = opened(fills, 1), opened(fills, 2)
    first.fill.write(bytes(MIB))
    second.fill.write(bytes(11))
    assert (first.fill.state, second.fill.state, fills.filling) == (OPEN, DETACHED, MIB)
    first.fill.finish(b"", len)
    assert fills.filling == 0


def test_a_fill_that_takes_too_long_is_not_joined_and_not_stored(now):
    fills, stored = make(timeout=60.0), []
    leader = opened(fills)
    leader.fill.write(b"a")
    now[0] = 61.0
    other = lead(fills)
    leader.fill.write(b"b")
    leader.fill.finish(b"", stored.append)
    assert other.fill is not leader.fill
    assert stored == [] and drain(leader) == b"ab" and len(fills) == 1


def test_a_client_that_stalls_while_others_wait_is_cut(now):
    fills, cut = make(max_object=1), []
    leader = opened(fills)
    follower, fill = follow(fills), leader.fill
    follower.on_cut = lambda: cut.append(follower)
    fill.write(bytes(WINDOW + 1))
    there(leader)
    assert fill._patience() == 10.0
    now[0] = 9.0
    assert fill._patience() == 1.0 and not cut
    now[0] = 10.0
    fill.wait_for_space()
    assert cut == [follower] and follower.is_cut
    with pytest.raises(IncompleteResponseError, match="the client was cut"):
        follower.take()
    assert fill.write(bytes(WINDOW))
    follower.leave()
    assert not fill.is_abandoned


def test_the_only_client_may_stall(now):
    leader = opened(make(max_object=1))
    leader.fill.write(bytes(2 * MIB))
    assert leader.fill._patience() > 10.0
    now[0] = 1000.0
    assert leader.fill._patience() > 10.0 and not leader.is_cut
    assert len(there(leader)) == 2 * MIB


def test_of_clients_that_all_stall_one_is_kept(now):
    fills = make(max_object=1)
    readers = [opened(fills), follow(fills), follow(fills)]
    fill = readers[0].fill
    fill.write(bytes(2 * MIB))
    fill._patience()
    now[0] = 10.0
    fill._patience()
    assert [reader.is_cut for reader in readers] == [False, True, True]


@pytest.mark.parametrize("leaves_first", [False, True])
def test_a_detached_fill_that_all_clients_have_left_is_abandoned(leaves_first):
    leader = opened(make(max_object=1))
    steps = [lambda: leader.fill.write(b"abc"), leader.leave]
    for step in reversed(steps) if leaves_first else steps:
        assert not leader.fill.is_abandoned
        step()
    assert leader.fill.is_abandoned


def test_a_part_wakes_each_loop_once(monkeypatch):
    calls = []

    async def main():
        changes, loop = Changes(), asyncio.get_running_loop()
        waiting = [asyncio.create_task(changes.wait_async(0)) for _ in range(1000)]
        await asyncio.sleep(0)
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: calls.append(args) or wake(*args))
        threading.Thread(target=changes.add).start()
        assert all(await asyncio.gather(*waiting))
        monkeypatch.undo()

    in_a_loop(main())
    assert len(calls) == 1


def test_a_change_between_look_and_wait_ends_the_wait():
    changes = Changes()
    seen = changes.number
    changes.add()

    async def main():
        return await changes.wait_async(seen)

    assert changes.wait(seen) and in_a_loop(main())


def test_a_closed_loop_is_not_woken():
    changes = Changes()

    async def main():
        waiting = asyncio.create_task(changes.wait_async(0))
        await asyncio.sleep(0)
        assert not waiting.done()

    in_a_loop(main())
    changes.add()
    assert changes.number == 1


def test_waits_end_after_their_time():
    fills = make()
    leader, reader = lead(fills), follow(fills)
    assert reader.wait_past(HEADLESS, 0.01) == PENDING
    leader.fill.open(None, None)
    with pytest.raises(IncompleteResponseError, match=r"no part of the body came within 0\.01 seconds"):
        reader.read(0.01)

    async def main():
        with pytest.raises(IncompleteResponseError, match="no part of the body came within"):
            await reader.read_async(0.01)
        return await lead(fills, "other").wait_past_async(HEADLESS, 0.01)

    assert in_a_loop(main()) == PENDING


def test_a_leader_waits_until_there_is_space():
    leader = opened(make(max_object=1))
    assert not leader.fill.write(bytes(2 * MIB))
    threading.Timer(0.05, there, [leader]).start()
    began = time.monotonic()
    assert in_a_thread(leader.fill.wait_for_space) is None
    assert time.monotonic() - began >= 0.04


def test_a_leader_that_waits_is_freed_when_all_clients_leave():
    leader = opened(make(max_object=1))
    leader.fill.write(bytes(2 * MIB))
    threading.Timer(0.02, leader.leave).start()
    assert in_a_thread(leader.fill.wait_for_space) is None
    assert leader.fill.is_abandoned


def test_a_fork_begins_without_fills():
    fills = make()
    opened(fills).fill.write(b"abc")
    fills._renew()
    assert (len(fills), fills.filling) == (0, 0)
    lead(fills)
