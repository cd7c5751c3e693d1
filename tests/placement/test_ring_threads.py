"""Lookups in HashRing continue, and are correct, while other threads change it."""

import array
import sys
import threading
import time

import pytest
from watchdog import PATIENCE

STAYING = [f"stay{i}" for i in range(20)]
COMING = [f"come{i}" for i in range(8)]
ROUNDS = 4_000


@pytest.fixture
def quick_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def run_all(*works):
    """Calls the functions in threads that start together; raises the first error of any."""
    barrier, errors = threading.Barrier(len(works)), []

    def run(work):
        try:
            barrier.wait(PATIENCE)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def test_lookups_while_nodes_change(twin, quick_switches):
    """Every node returned was in the ring at that time: the i-th change is from phase 2i + 1 to 2i + 2."""
    ring = twin.placement.HashRing(STAYING, 20)
    known, hashes = {*STAYING, *COMING}, array.array("Q", [i * 2**57 for i in range(128)])
    lookups, done, phase = [], threading.Event(), [0]

    def change():
        try:
            for i in range(ROUNDS):
                phase[0] += 1
                ring.add_node(COMING[i % 8])
                ring.remove_node(COMING[i % 8])
                phase[0] += 1
                if i % 100 == 0:
                    time.sleep(0.001)
        finally:
            done.set()

    def present(first, last):
        """The nodes that were in the ring at some time between two phases."""
        return {*STAYING, *(COMING[i % 8] for i in range(first // 2, (last + 1) // 2))}

    def look():
        count = 0
        while not done.is_set():
            before = phase[0]
            found = {ring.get_node(f"key{count}"), *ring.get_many(["a", b"b", count])}
            assert found <= present(before, phase[0])
            assert len(set(ring.get_nodes(count, 3)) & known) == 3
            assert 0 <= min(ring.locate(hashes)) <= max(ring.locate(hashes)) <= len(STAYING)
            count += 1
        lookups.append(count)

    run_all(change, *[look] * 8)
    assert len(lookups) == 8 and min(lookups) > 0
    assert ring == twin.placement.HashRing(STAYING, 20)
    ring._check()


def test_a_lookup_after_a_change_sees_it(twin, quick_switches):
    ring = twin.placement.HashRing(STAYING, 5)

    def churn(node):
        for _ in range(60):
            ring.add_node(node)
            assert node in ring.preference("x")
            ring.remove_node(node)
            assert node not in ring.preference("x")

    run_all(*[lambda node=node: churn(node) for node in COMING])
    assert ring.nodes == tuple(sorted(STAYING))
    ring._check()


def test_one_of_many_wins_to_add_and_to_remove(twin, quick_switches):
    ring = twin.placement.HashRing(STAYING, 5)
    won = []

    def add_and_remove():
        for i in range(100):
            for change in (ring.add_node, ring.remove_node):
                try:
                    change(f"new{i}")
                    won.append(1 if change == ring.add_node else -1)
                except (ValueError, KeyError):
                    continue

    run_all(*[add_and_remove] * 8)
    assert sum(won) == len(ring) - len(STAYING)
    ring._check()
