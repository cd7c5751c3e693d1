"""Objectives in a file: several processes, restarts of the system, and files that are damaged or foreign."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from clocks import FakeClock
from damage import overwrite

from headgate.slo import _files, _rings

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes share files by fcntl and mmap")
CROWD = Path(__file__).parents[1] / "_support/slo_crowd.py"
MINUTE = 60 * 10**9
DAY = 86_400
WORDS = 4096 // 8
MAGIC, LAYOUT, BOOT, NAMESPACE, EPOCH = range(5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api.slo"


@pytest.fixture
def clock():
    return FakeClock(1_000_000 * MINUTE)


class WallClock:
    """What the system's time and its boots are."""

    def __init__(self, monkeypatch):
        self.now, self.boot = 1_700_000_000 * 10**9, 1
        monkeypatch.setattr("headgate.slo._files.time_ns", lambda: self.now)
        monkeypatch.setattr("headgate.slo._files.boot_id", lambda: self.boot)

    def restart(self, clock, seconds):
        """The system is down for so long; its clock starts at 10 seconds."""
        self.now += round(seconds * 1e9)
        self.boot += 1
        clock.now = 10**10


@pytest.fixture
def wall(monkeypatch):
    return WallClock(monkeypatch)


def crowd(*arguments):
    done = subprocess.run([sys.executable, CROWD, *map(str, arguments)], capture_output=True, text=True,
                          timeout=100, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [float(word) for word in done.stdout.split()]


class TestSharing:
    def test_objects_count_together(self, twin, path, clock):
        one, other = (twin.slo.SLO(99, path=path, clock=clock) for _ in range(2))
        one.record(True, 98)
        other.record(False, 2)
        assert one.availability() == other.availability() == 0.98
        clock.advance(7 * 60)
        other.record(True, 100)
        assert one.burn_rate(60) == 0.0 and one.burn_rate("1 h") == other.burn_rate("1 h") == 1.0
        assert (one.good, one.bad) == (198, 2)

    def test_the_target_may_change(self, twin, path, clock):
        twin.slo.SLO(99, path=path, clock=clock).record(False)
        assert twin.slo.SLO(99.9, path=str(path), clock=clock).bad == 1

    def test_the_file_outlives_its_objects(self, twin, path, clock):
        twin.slo.SLO(99, path=path, clock=clock).record(False, 3)
        clock.advance(3600)
        slo = twin.slo.SLO(99, path=path, clock=clock)
        slo.record(True, 3)
        assert (slo.availability(), slo.burn_rate(60)) == (0.5, 0.0)

    def test_a_fork_counts_with_its_parent(self, twin, path):
        slo = twin.slo.SLO(99, path=path)
        slo.record(True, 3)
        child = os.fork()
        if not child:
            slo.record(False, 2)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (slo.good, slo.bad) == (3, 2)

    def test_four_processes_lose_no_event(self, twin, path):
        events = 20_000 if twin.name == "compiled" else 1000
        assert crowd("together", twin.name, path, events) == [2 * events, 2 * events, 0.5]

    def test_kills_lose_no_event_but_that_of_the_killed_call(self, twin, path):
        deaths, counted, bad, good, availability = crowd("killed", twin.name, path, 40)
        assert counted <= bad <= counted + deaths
        assert good == 0 and availability == 0.0

    def test_a_writer_that_was_killed_in_a_snapshot(self, twin, path, clock):
        """Its stamp is claimed and not valid; the counts are those of the older neighbour."""
        slo = twin.slo.SLO(99, path=path, clock=clock)
        for _ in range(20):
            slo.record(False)
            clock.advance(60)
        slo.record(True)
        words = memoryview(bytearray(path.read_bytes()))[4096:].cast("Q")
        ring, now = _rings.RINGS[0], words[_rings.CURRENT]
        at = ring.at + 3 * ((now - 6) % ring.snapshots)
        assert words[at] >> 24 == now - 5
        before = slo._events(5)
        overwrite(path, (WORDS + at, now - 5 << 24))
        assert slo._events(5) == (before[0], before[1] + 1)


class TestRestarts:
    def test_slots_move_on_by_the_wall_clock(self, twin, path, clock, wall):
        slo = twin.slo.SLO(99, path=path, clock=clock)
        slo.record(False, 5)
        clock.advance(DAY)
        wall.now += DAY * 10**9
        slo.record(True, 5)
        wall.restart(clock, 2 * 3600)
        slo = twin.slo.SLO(99, path=path, clock=clock)
        assert (slo.burn_rate("1 h"), slo.burn_rate("12 h"), slo.availability()) == (0.0, 0.0, 0.5)
        slo.record(False, 10)
        assert slo.burn_rate("1 h") == pytest.approx(100) and slo.burn_rate("3 h") == pytest.approx(1000 / 15)
        wall.restart(clock, 29 * DAY)
        slo = twin.slo.SLO(99, path=path, clock=clock)
        assert slo._events(43_200) == (5, 10)
        slo._check()

    def test_slots_never_move_back(self, twin, path, clock, wall):
        slo = twin.slo.SLO(99, path=path, clock=clock)
        clock.advance(DAY)
        slo.record(False, 5)
        wall.restart(clock, -400 * DAY)
        slo = twin.slo.SLO(99, path=path, clock=clock)
        assert slo.bad == 5 and slo.burn_rate(60) == pytest.approx(100)
        clock.advance(180)
        slo.record(True, 5)
        assert slo.burn_rate(60) == 0.0 and slo.burn_rate(600) == pytest.approx(50)

    def test_all_processes_of_a_boot_have_one_time(self, twin, path, clock, wall):
        twin.slo.SLO(99, path=path, clock=clock).record(False, 5)
        wall.restart(clock, 3600)
        one = twin.slo.SLO(99, path=path, clock=clock)
        clock.advance(600)
        other = twin.slo.SLO(99, path=path, clock=clock)
        one.record(True, 5)
        assert other.burn_rate("1 h") == one.burn_rate("1 h") == 0.0
        assert other.burn_rate("2 h") == one.burn_rate("2 h") == pytest.approx(50)

    def test_counts_that_were_not_written_are_those_of_the_last_snapshot(self, twin, path, clock, wall):
        slo = twin.slo.SLO(99, path=path, clock=clock)
        slo.record(True, 7)
        clock.advance(120)
        slo.record(False, 3)
        overwrite(path, (WORDS + _rings.GOOD, 0), (WORDS + _rings.BAD, 0))
        wall.restart(clock, 60)
        slo = twin.slo.SLO(99, path=path, clock=clock)
        assert (slo.good, slo.bad) == (7, 0)


class TestFiles:
    def test_one_that_is_made(self, twin, path):
        twin.slo.SLO(99, path=path)
        assert path.stat().st_size == 4096 + 8 * _rings.WORDS
        assert path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(("options", "message"), [
        ({"window": "28 d"}, "window must be 2592000 as in {path!r}, got 2419200"),
        ({"latency": 0.5}, "latency must be None as in {path!r}, got 0.5"),
    ])
    def test_other_settings(self, twin, path, options, message):
        twin.slo.SLO(99, path=path)
        with pytest.raises(ValueError) as raised:
            twin.slo.SLO(99, path=path, **options)
        assert str(raised.value) == message.format(path=str(path))

    def test_the_other_twin(self, both_twins, path):
        both_twins[0].slo.SLO(99, path=path)
        with pytest.raises(ValueError, match=r"twin must be compiled as in .*, got pure"):
            both_twins[1].slo.SLO(99, path=path)

    @pytest.mark.parametrize("content", [b"x", b"x" * 50_888, b"hgSLO\n\0\0"])
    def test_other_files_are_refused_and_stay(self, twin, path, content):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ValueError, match="path must be a file of an SLO, got "):
            twin.slo.SLO(99, path=path)
        assert path.read_bytes() == content

    def test_what_is_no_file(self, twin, tmp_path):
        with pytest.raises(OSError):
            twin.slo.SLO(99, path=tmp_path)
        with pytest.raises(OSError):
            twin.slo.SLO(99, path=tmp_path / "absent" / "file")
        (tmp_path / "link").symlink_to(tmp_path / "other")
        with pytest.raises(OSError):
            twin.slo.SLO(99, path=tmp_path / "link")
        with pytest.raises(TypeError, match=r"path must be a str or an os.PathLike, got 5"):
            twin.slo.SLO(99, path=5)

    def test_another_mode(self, twin, path):
        twin.slo.SLO(99, path=path)
        path.chmod(0o644)
        with pytest.raises(ValueError, match="mode must be 0o644 as of "):
            twin.slo.SLO(99, path=path)

    def test_another_layout(self, twin, path):
        twin.slo.SLO(99, path=path)
        overwrite(path, (LAYOUT, 7))
        with pytest.raises(ValueError, match="path must have layout 1, got 7 in "):
            twin.slo.SLO(99, path=path)

    def test_another_clock(self, twin, path):
        twin.slo.SLO(99, path=path)
        overwrite(path, (NAMESPACE, 7))
        with pytest.raises(ValueError, match="path must belong to processes with one clock, got "):
            twin.slo.SLO(99, path=path)

    def test_one_whose_maker_was_killed(self, twin, path):
        """Its blocks are there, and its header is not."""
        path.write_bytes(bytes(_files._SIZE))
        path.chmod(0o600)
        slo = twin.slo.SLO(99, path=path)
        slo.record()
        assert slo.good == 1

    def test_a_damaged_slot_after_a_restart(self, twin, path, wall, clock):
        twin.slo.SLO(99, path=path, clock=clock)
        overwrite(path, (WORDS + _rings.CURRENT, 2**63))
        wall.restart(clock, 60)
        with pytest.raises(ValueError, match="path must be a file that is not damaged, got "):
            twin.slo.SLO(99, path=path, clock=clock)

    def test_damaged_words(self, twin, path, clock):
        """Whatever a file contains, calls return, and shares are shares."""
        draw, places = random.Random(8), [WORDS + at for at in (*range(5), *range(8, 5849))]
        twin.slo.SLO(99, path=path, clock=clock).record(False, 10)
        for _ in range(60 if twin.name == "compiled" else 15):
            changes = [(draw.choice(places), draw.getrandbits(draw.choice([8, 40, 64])))
                       for _ in range(draw.choice([1, 3, 500]))]
            overwrite(path, *changes, (EPOCH, draw.getrandbits(64)))
            slo = twin.slo.SLO(99, path=path, clock=clock)
            clock.advance(draw.choice([0, 60, 10**5]))
            slo.record(draw.random() < 0.5)
            assert 0 <= slo.availability() <= 1
            assert slo.burn_rate("1 h") >= 0
            assert len(slo.alerts()) == 3
