"""``headgate shm``: it lists and shows the files of shared limits, and removes those that are not in use."""

import io
import json
import os
import re
import shutil
import struct
from contextlib import redirect_stderr, redirect_stdout
from tempfile import TemporaryDirectory

import pytest
from damage import overwrite
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate import SLO, ConcurrencyLimiter, RateLimiter, TokenBucket
from headgate.cli import main
from headgate.cli.shm import files
from headgate.cli.shm.files import inspect_file, state
from headgate.cli.shm.headers import DamagedHeaderError, parse_header
from headgate.limit._generations import BLOCKS, SWITCHES
from headgate.slo import _files as objectives

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
    return twin.keyed.RateLimiter("10/h; 100/day", max_keys=100, path=place / "limit")


@pytest.fixture
def bucket(twin, place):
    return twin.bucket.TokenBucket(8, 0.001, path=place / "bucket")


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
    twin.keyed.RateLimiter(["1/s"] * 8, max_keys=100_000, path=place / "folder" / ("x" * 99))
    assert main(["shm", "ls", str(place), str(place / "folder")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Files")) <= 80
    assert lines[1] == f"Files of shared limits in {place}"
    assert [line.rsplit(maxsplit=3)[0].split(maxsplit=1) for line in lines[4:7]] == [
        ["bucket", "TokenBucket 8, 0.001/s"],
        ["limit", "RateLimiter 10/h; 100/day"],
        ["permits", "ConcurrencyLimiter gradient, 1-1000"],
    ]
    assert f"{'x' * 11}...{'x' * 10}  RateLimiter 1/s; ...s; 1/s; 1/s; 1/s  " in lines[-1]
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
    assert found[2]["settings"]["algorithm"] == "gradient"


def test_ls_of_nothing(tmp_path, capsys):
    assert main(["shm", "ls", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "No files of shared limits found.\n"
    assert main(["shm", "ls", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"headgate shm: {tmp_path / 'none'}: No such file or directory\n"


def test_show_counts_the_keys_that_owe(place, limiter, capsys):
    for key in range(7):
        assert limiter.allow(key)
    found = shown(capsys, place / "limit")
    assert found["state"] == {"owing": {"10/h": 7, "100/day": 7}, "evictions": 0}
    assert main(["shm", "show", str(place / "limit")]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["keys with debt at 10/h"].strip() == "7"


def test_ls_and_show_have_the_rate_in_force(place, limiter, capsys):
    for key in range(7):
        assert limiter.allow(key)
    limiter.reconfigure("20/h; 50/day")
    assert main(["shm", "ls", str(place)]) == 0
    assert "RateLimiter 20/h; 50/day " in capsys.readouterr().out
    found = shown(capsys, place / "limit")
    assert found["settings"]["rate"] == "20/h; 50/day"
    assert found["state"] == {"owing": {"20/h": 7, "50/day": 7}, "evictions": 0}


def test_show_of_a_switch_that_is_not_complete(place, twin, limiter, capsys):
    limiter.reconfigure("20/h; 50/day")
    overwrite(place / "limit", (SWITCHES // 8 + 1, 0))
    found = shown(capsys, place / "limit")
    assert found["settings"]["rate"] == "20/h; 50/day"
    assert list(found["state"]) == ["switch"]
    assert main(["shm", "show", str(place / "limit")]) == 0
    assert re.search("^switch +not complete: under way, or left to", capsys.readouterr().out, re.MULTILINE)
    twin.keyed.RateLimiter("20/h; 50/day", max_keys=100, path=place / "limit")
    assert shown(capsys, place / "limit")["state"] == {"owing": {"20/h": 0, "50/day": 0}, "evictions": 0}


def test_show_counts_the_keys_of_a_strict_limit(place, twin, capsys):
    limiter = twin.keyed.RateLimiter("2/h; 3/day", strict=True, max_keys=4, path=place / "limit")
    for key in range(6):
        assert limiter.allow(key)
    assert shown(capsys, place / "limit")["state"] == {"owing": {"2/h; 3/day": 6}, "evictions": 0}


def test_show_counts_evictions(place, twin, capsys):
    limiter = twin.keyed.RateLimiter("1/h", max_keys=4, path=place / "limit")
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


def test_show_of_an_objective(place, twin, capsys):
    slo = twin.slo.SLO(99.9, "1 d", latency="250 ms", path=place / "slo")
    slo.record(True, 900)
    slo.record(False, 100)
    before = (place / "slo").read_bytes()
    file = shown(capsys, place / "slo")
    assert file["settings"] == {
        "limiter": "SLO", "twin": twin.name, "window": 86400, "latency": 0.25}
    assert file["state"] == {"good": 900, "bad": 100, "availability": {"1 h": 0.9, "1 d": 0.9}}
    assert main(["shm", "show", str(place / "slo")]) == 0
    assert "availability over 1 d  90.000000%" in capsys.readouterr().out
    assert main(["shm", "ls", str(place)]) == 0
    assert "SLO 1 d" in capsys.readouterr().out
    assert (place / "slo").read_bytes() == before


def test_the_past_of_an_objective_that_no_process_moves_on(place, twin, clock):
    slo = twin.slo.SLO(99.9, "1 d", path=place / "slo", clock=clock)
    slo.record(False, 100)
    file = (place / "slo").read_bytes()
    header = objectives.header_of(file)
    hour = 3_600_000_000_000
    states = [objectives.state_of(file, header, clock.now + hours * hour) for hours in (0, 2, 30)]
    assert [state["availability"] for state in states] == [
        {"1 h": 0.0, "1 d": 0.0}, {"1 h": 1.0, "1 d": 0.0}, {"1 h": 1.0, "1 d": 1.0}]
    clock.now += 2 * hour
    assert (slo.availability(), slo.bad) == (0.0, states[1]["bad"])


def test_show_escapes_control_sequences(place, limiter, capsys):
    """The settings are written by the process that made the file."""
    content = (place / "limit").read_bytes()
    copy = place / "c\x1b[2Jopy"
    text = content[:BLOCKS].replace(b"twin='", b"twin='\x1b[2Jt")[:BLOCKS]
    copy.write_bytes(text + content[BLOCKS:])
    assert main(["shm", "show", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(r"c\x1b[2Jopy")
    assert [line for line in lines if line.startswith("twin") and r"  \x1b[2Jt" in line]


@pytest.mark.parametrize(("name", "at"), [("limit", 2), ("permits", 3), ("limit", 1)])
def test_the_state_of_another_boot_or_layout_is_none(place, limiter, permits, name, at, capsys):
    copy = unused(place / name)
    with open(copy, "r+b") as file:
        file.seek(8 * at)
        file.write(struct.pack("=Q", 7))
    assert shown(capsys, copy)["state"] == {}


def test_rm_removes_what_is_not_in_use(place, limiter, capsys):
    copy = unused(place / "limit")
    assert main(["shm", "rm", str(copy)]) == 0
    assert capsys.readouterr().out == f"removed {copy}\n"
    assert not copy.exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc shows which processes use a file")
def test_rm_spares_what_is_in_use(place, limiter, twin, capsys):
    path = place / "limit"
    copy = unused(path)
    assert main(["shm", "rm", str(copy), str(path)]) == 1
    assert f"{path} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert copy.exists()
    assert main(["shm", "rm", "--force", str(path)]) == 0
    assert not path.exists()
    assert limiter.allow("ann", 10)
    assert twin.keyed.RateLimiter("10/h; 100/day", max_keys=100, path=path).allow("ann", 10)


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
        assert capsys.readouterr().err == f"headgate shm: {place / name} is not a file of a shared limit\n"
    assert (place / "hello").read_text() == "hello"


@pytest.mark.parametrize("action", ["show", "rm"])
def test_what_is_not_there(place, action, capsys):
    assert main(["shm", action, str(place / "none")]) == 1
    assert capsys.readouterr().err == f"headgate shm: {place / 'none'}: No such file or directory\n"


def test_files_that_cannot_be_read(place, limiter, monkeypatch, capsys):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(files, "_opened", forbidden)
    assert main(["shm", "show", str(place / "limit")]) == 1
    assert capsys.readouterr().err == f"headgate shm: {place / 'limit'}: Permission denied\n"
    assert main(["shm", "ls", str(place / "limit")]) == 0
    assert capsys.readouterr().err == f"headgate shm: {place / 'limit'} skipped: Permission denied\n"
    monkeypatch.setattr("pathlib.Path.iterdir", forbidden)
    assert main(["shm", "ls", str(place)]) == 1
    assert capsys.readouterr().err == f"headgate shm: {place}: Permission denied\n"


# headers that no limiter has written

TEXT = 64
SETTING = [
    "", "limiter", "limiter='RateLimiter'", "limiter='TokenBucket'", "limiter={}", "limiter=['RateLimiter']",
    "rate=5", "rate=b'1/s'", "rate='nonsense'", "rate='1/s; 2/min'", "max_keys=-1", "max_keys=10**9",
    "max_keys=99", "max_keys='9'", "on_full=None", "on_full='evict'", "strict=[[]]", "strict=True",
    "capacity=1e999", "capacity=0.5", "refill_rate='x'", "refill_rate=-1", "refill_rate=5e-324", "a" * 5000,
    "capacity=" + "9" * 4000,
    "rate='\\x'", "rate=" + "(" * 3000, "rate=" + "-" * 3000 + "1", "\0" * 9, "limiter='\ud800'",
    "\x85a=1\u2028",
    "file=1", "bytes=2", "limiter='RateLimiter'\nrate='1/s'\nmax_keys=3\non_full='deny'\nstrict=False",
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """A file of each layout."""
    place = tmp_path_factory.mktemp("layouts")
    made = [
        RateLimiter("10/h; 100/day", max_keys=5, path=place / "limit"),
        RateLimiter("2/h", strict=True, max_keys=5, path=place / "strict"),
        TokenBucket(8, 0.5, path=place / "bucket"),
        ConcurrencyLimiter(5, path=place / "permits"),
        SLO(99.9, path=place / "slo"),
    ]
    made[-1].record(False, 5)
    contents = [path.read_bytes() for path in sorted(place.iterdir())]
    assert len(contents) == len(made)
    return contents


def words_at(content, at, word):
    return content[: 8 * at] + struct.pack("=Q", word) + content[8 * at + 8 :]


@st.composite
def damaged(draw, layouts):
    """A content of a layout, with other words, other bytes, another text, or cut off."""
    content = draw(st.sampled_from(layouts))
    edits = st.tuples(st.integers(0, 20), st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63]))
    for at, word in draw(st.lists(edits, max_size=3)):
        if at:
            content = words_at(content, at, word)
    if draw(st.booleans()):
        lines = draw(st.lists(st.sampled_from(SETTING) | st.text(max_size=20), max_size=6))
        text = "\n".join(lines).encode(errors=draw(st.sampled_from(["replace", "surrogatepass"])))
        content = content[:TEXT] + text[: len(content) - TEXT] + content[TEXT + len(text) :]
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return content


@given(st.data())
def test_any_header_has_settings_or_is_damaged(layouts, data):
    content = data.draw(damaged(layouts))
    try:
        found = parse_header(content)
    except DamagedHeaderError:
        return
    assert found is None or isinstance(found["limiter"], str)
    values = [] if found is None else found.values()
    assert all(value is None or type(value) in (str, int, float, bool) for value in values)


@given(st.data())
@settings(max_examples=25)
def test_any_file_is_listed_and_shown(layouts, data):
    """Through the command: a status and at most one line of error, and what is JSON stays JSON."""
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "limit")
        with open(path, "wb") as file:
            file.write(data.draw(damaged(layouts)))
        for action in (["ls", folder], ["ls", "--json", folder], ["show", path], ["show", "--json", path]):
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                status = main(["shm", *action])
            assert status == 0 or action[0] == "show"
            assert err.getvalue().count("\n") == status
            if status == 0 and "--json" in action:
                json.loads(out.getvalue(), parse_constant=pytest.fail)


@pytest.mark.parametrize("text", SETTING)
def test_a_damaged_file_hides_no_other(place, limiter, text, capsys):
    content = (place / "limit").read_bytes()
    text = text.encode(errors="surrogatepass")[: 4096 - TEXT].ljust(4096 - TEXT, b"\0")
    (place / "bad").write_bytes(content[:TEXT] + text + content[4096:])
    assert main(["shm", "ls", str(place)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("bad ", "limit "))] == ["bad", "limit"]


def test_headers_without_text(place, limiter, permits):
    content = (place / "limit").read_bytes()
    with pytest.raises(DamagedHeaderError, match="a damaged header: 'limiter'"):
        parse_header(content[:TEXT] + bytes(4096 - TEXT))
    ledger = (place / "permits").read_bytes()
    for at, word in ((4, 2**64 - 1), (5, 0), (8, struct.unpack("=Q", struct.pack("=d", float("nan")))[0])):
        with pytest.raises(DamagedHeaderError, match="a damaged header: no ConcurrencyLimiter has "):
            parse_header(words_at(ledger, at, word))


def test_settings_do_not_take_the_place_of_facts(place, limiter, capsys):
    content = (place / "limit").read_bytes()
    forged = content[:BLOCKS].replace(b"limiter='R", b"file='/x'\nprocesses=7\nlimiter='R")
    (place / "copy").write_bytes(forged[:BLOCKS] + content[BLOCKS:])
    assert main(["shm", "show", str(place / "copy")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["file"], lines["processes"]) == (str(place / "copy"), "none")


def test_a_pipe_is_not_waited_for(place, limiter, capsys):
    os.mkfifo(place / "pipe")
    assert inspect_file(place / "pipe") is None
    assert main(["shm", "ls", str(place)]) == 0
    assert "\npipe " not in capsys.readouterr().out


def test_a_file_that_is_cut_off_while_it_is_shown(place, limiter):
    """It is not mapped, as a page that is gone would end the process."""
    copy = unused(place / "limit")
    file = inspect_file(copy)
    os.truncate(copy, 5000)
    with pytest.raises(DamagedHeaderError, match="shorter than its header says"):
        state(file)
    os.truncate(copy, 0)
    with pytest.raises(DamagedHeaderError, match="the header is gone"):
        state(file)


def test_a_name_that_a_terminal_would_obey(place, limiter, capsys):
    name = place / "\x1b[2Jcopy"
    shutil.copy(place / "limit", name)
    assert main(["shm", "rm", str(name)]) == 0
    assert main(["shm", "show", str(name)]) == 1
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert r"\x1b[2Jcopy" in captured.out


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
