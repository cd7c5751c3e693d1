"""``headgate shm``: it knows the files of shared limits, says what is in them, removes what nobody uses."""

import json
import os
import shutil
import struct

import pytest

from headgate import ConcurrencyLimiter
from headgate.cli import main

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl"),
    pytest.mark.usefixtures("one_secret"),
]


@pytest.fixture
def place(tmp_path):
    """Another file among those of limits, and something that is none."""
    (tmp_path / "hello").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "limit")
    return tmp_path


@pytest.fixture
def limiter(twin, place):
    return twin.ratelimit.RateLimiter("10/h; 100/day", max_keys=100, path=place / "limit")


@pytest.fixture
def bucket(twin, place):
    return twin.limit.TokenBucket(8, 0.001, path=place / "bucket")


@pytest.fixture
def permits(place):
    return ConcurrencyLimiter(5, path=place / "permits")


def unused(path):
    """A copy, which no process has open."""
    return shutil.copy(path, path.with_name("copy"))


def shown(capsys, *arguments):
    assert main(["shm", "show", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def test_ls_names_the_files_of_limits(place, limiter, bucket, permits, twin, capsys):
    twin.ratelimit.RateLimiter(["1/s"] * 8, max_keys=100_000, path=place / "folder" / ("x" * 99))
    assert main(["shm", "ls", str(place), str(place / "folder")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Files")) <= 80
    assert lines[1] == f"Files of shared limits in {place}"
    assert [line.rsplit(maxsplit=3)[0].split(maxsplit=1) for line in lines[4:7]] == [
        ["bucket", "TokenBucket 8, 0.001/s"],
        ["limit", "RateLimiter 10/h; 100/day"],
        ["permits", "ConcurrencyLimiter aimd, 1 to 1000"],
    ]
    assert f"{'x' * 11}...{'x' * 10}  RateLimiter 1/s;...; 1/s; 1/s; 1/s  " in lines[-1]
    assert lines[-1].split()[-2] == "MB"


def test_ls_of_a_fixed_limit(place, capsys):
    limiter = ConcurrencyLimiter(7, algorithm="fixed", path=place / "permits")
    assert main(["shm", "ls", str(place)]) == 0
    assert "permits  ConcurrencyLimiter fixed, 7 " in capsys.readouterr().out
    assert shown(capsys, place / "permits")["settings"]["limit"] == limiter.limit


def test_ls_of_other_layouts(place, limiter, capsys):
    with open(place / "limit", "r+b") as file:
        file.seek(8)
        file.write(struct.pack("=Q", 9))
    assert main(["shm", "ls", str(place)]) == 0
    assert "limit  of layout 9 " in capsys.readouterr().out


def test_ls_in_json(place, limiter, bucket, permits, capsys):
    assert main(["shm", "ls", "--json", str(place), str(place / "limit")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [os.path.basename(file["path"]) for file in found] == ["bucket", "limit", "permits", "limit"]
    assert found[1]["settings"]["rate"] == "10/h; 100/day"
    assert found[1]["bytes"] == (place / "limit").stat().st_size
    assert found[2]["settings"]["algorithm"] == "aimd"


def test_ls_of_nothing(tmp_path, capsys):
    assert main(["shm", "ls", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "There are no files of shared limits.\n"
    assert main(["shm", "ls", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"headgate shm: {tmp_path / 'none'}: No such file or directory\n"


def test_show_counts_the_keys_that_owe(place, limiter, capsys):
    for key in range(7):
        assert limiter.allow(key)
    found = shown(capsys, place / "limit")
    assert found["state"] == {"owing": {"10/h": 7, "100/day": 7}, "evictions": 0}
    assert main(["shm", "show", str(place / "limit")]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["keys that owe at 10/h"].strip() == "7"


def test_show_counts_the_keys_of_a_strict_limit(place, twin, capsys):
    limiter = twin.ratelimit.RateLimiter("2/h; 3/day", strict=True, max_keys=4, path=place / "limit")
    for key in range(6):
        assert limiter.allow(key)
    assert shown(capsys, place / "limit")["state"] == {"owing": {"2/h; 3/day": 6}, "evictions": 0}


def test_show_counts_evictions(place, twin, capsys):
    limiter = twin.ratelimit.RateLimiter("1/h", max_keys=4, path=place / "limit")
    for key in range(20):
        assert limiter.allow(key)
    assert shown(capsys, place / "limit")["state"] == {"owing": {"1/h": 8}, "evictions": 12}


def test_show_of_a_bucket_and_of_permits(place, bucket, permits, capsys):
    assert bucket.consume(5)
    assert shown(capsys, place / "bucket")["state"]["available"] == pytest.approx(3, abs=0.5)
    with permits.acquire():
        assert shown(capsys, place / "permits")["state"] == {
            "limit": 5.0, "inflight": 1, "permits": {str(os.getpid()): 1}}
        assert main(["shm", "show", str(place / "permits")]) == 0
        assert f"permits of process {os.getpid()}  1\n" in capsys.readouterr().out


def test_show_escapes_what_a_terminal_would_obey(place, limiter, capsys):
    """Whoever made the file wrote the settings."""
    content = (place / "limit").read_bytes()
    copy = place / "c\x1b[2Jopy"
    copy.write_bytes(content.replace(b"'evict'", b"'\x1b[2Jt'"))
    assert main(["shm", "show", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(r"c\x1b[2Jopy")
    assert [line.split() for line in lines if line.startswith("on_full")] == [["on_full", r"\x1b[2Jt"]]


@pytest.mark.parametrize(("name", "at"), [("limit", 2), ("permits", 3), ("limit", 1)])
def test_the_state_of_another_boot_or_layout_is_none(place, limiter, permits, name, at, capsys):
    copy = unused(place / name)
    with open(copy, "r+b") as file:
        file.seek(8 * at)
        file.write(struct.pack("=Q", 7))
    assert shown(capsys, copy)["state"] == {}


def test_rm_removes_what_nobody_uses(place, limiter, capsys):
    copy = unused(place / "limit")
    assert main(["shm", "rm", str(copy)]) == 0
    assert capsys.readouterr().out == f"removed {copy}\n"
    assert not copy.exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="who uses a file stands in /proc")
def test_rm_spares_what_is_in_use(place, limiter, twin, capsys):
    path = place / "limit"
    copy = unused(path)
    assert main(["shm", "rm", str(copy), str(path)]) == 1
    assert f"{path} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert copy.exists()
    assert main(["shm", "rm", "--force", str(path)]) == 0
    assert not path.exists()
    assert limiter.allow("ann", 10)
    assert twin.ratelimit.RateLimiter("10/h; 100/day", max_keys=100, path=path).allow("ann", 10)


def test_rm_of_a_file_that_none_may_write(place, limiter, capsys):
    copy = unused(place / "limit")
    copy.chmod(0o400)
    main(["shm", "rm", str(copy)])
    captured = capsys.readouterr()
    assert captured.out == f"removed {copy}\n" or captured.err == f"headgate shm: {copy}: Permission denied\n"


@pytest.mark.parametrize("name", ["hello", "folder", "link"])
def test_other_files_are_left_alone(place, limiter, name, capsys):
    for action in ("show", "rm"):
        assert main(["shm", action, str(place / name)]) == 1
        assert capsys.readouterr().err == f"headgate shm: {place / name} is no file of a shared limit\n"
    assert (place / "hello").read_text() == "hello"


@pytest.mark.parametrize("action", ["show", "rm"])
def test_what_is_not_there(place, action, capsys):
    assert main(["shm", action, str(place / "none")]) == 1
    assert capsys.readouterr().err == f"headgate shm: {place / 'none'}: No such file or directory\n"


def test_files_that_cannot_be_read(place, limiter, monkeypatch, capsys):
    def forbidden(path, *_):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("pathlib.Path.open", forbidden)
    assert main(["shm", "show", str(place / "limit")]) == 1
    assert capsys.readouterr().err == f"headgate shm: {place / 'limit'}: Permission denied\n"
    assert main(["shm", "ls", str(place / "limit")]) == 0
    assert capsys.readouterr().err == f"headgate shm: {place / 'limit'} skipped: Permission denied\n"
    monkeypatch.setattr("pathlib.Path.iterdir", forbidden)
    assert main(["shm", "ls", str(place)]) == 1
    assert capsys.readouterr().err == f"headgate shm: {place}: Permission denied\n"


def truncate(file):
    file.truncate(4096 + 100)


def scribble(file):
    file.seek(64)
    file.write(b"limiter=(\nrate=\n")


@pytest.mark.parametrize("damage", [truncate, scribble])
def test_a_damaged_file_is_an_error(place, limiter, damage, capsys):
    copy = unused(place / "limit")
    with open(copy, "r+b") as file:
        damage(file)
    assert main(["shm", "ls", str(copy)]) == 0
    capsys.readouterr()
    assert main(["shm", "show", str(copy)]) == 1
    assert capsys.readouterr().err == f"headgate shm: {copy} is damaged\n"
