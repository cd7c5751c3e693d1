"""``headgate limit simulate``: logs of every kind, denials exact to a naive model, and what is shown."""

import gzip
import io
import json
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from headgate import Rate
from headgate.cli import main
from headgate.cli.bench.workload import zipf_ranks
from headgate.cli.limit.engine import Timeline, Trial, feed
from headgate.cli.limit.plot import draw
from headgate.cli.limit.show import Simulation
from headgate.cli.simulate.records import Chunk
from headgate.cli.times import nanoseconds

START = 1_790_000_000
REQUESTS = [(START * 10 + number // 3, f"user:{rank}", 1 + rank % 3)
            for number, rank in enumerate(zipf_ranks(distinct=50, requests=2_000))]
"""Tenths of a second, key, cost: thirty a second."""


def naive_denials(rates, requests):
    """How often each key is denied by buckets of exact tokens."""
    tiers = [Rate.parse(rate) for rate in rates.split(";")]
    levels, denied = {}, Counter()
    for tenths, key, cost in requests:
        now, left = Fraction(tenths, 10), []
        for tier in tiers:
            before, tokens = levels.get((tier, key), (now, Fraction(tier.burst)))
            left.append(min(Fraction(tier.burst), tokens + (now - before) * tier.limit / tier.period))
        allowed = all(tokens >= cost for tokens in left)
        denied[key] += not allowed
        for tier, tokens in zip(tiers, left, strict=True):
            levels[tier, key] = now, tokens - cost * allowed
    return +denied


def simulate(capsys, log, *arguments):
    assert main(["limit", "simulate", str(log), *arguments]) == 0
    return capsys.readouterr()


def simulate_json(capsys, log, *arguments):
    return json.loads(simulate(capsys, log, *arguments, "--json", "-").out)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "requests.log"
    path.write_text("".join(f"{tenths / 10:.1f} {key} {cost}\n" for tenths, key, cost in REQUESTS))
    return path


# what is denied


def test_denials_are_exact(log, capsys):
    rates = ["10/s", "6/s; 40/10s", "100/min, burst 20"]
    found = simulate_json(capsys, log, *(word for rate in rates for word in ("--rate", rate)), "--top", "99")
    assert (found["schema"], found["version"]) == ("headgate.limit.simulate", 1)
    assert (found["requests"], found["start"], found["seconds"]) == (2_000, START, 66.6)
    assert (found["late_lines"], found["bad_lines"], found["span_seconds"]) == (0, 0, 1)
    assert [each["rate"] for each in found["rates"]] == rates
    for each in found["rates"]:
        denials = naive_denials(each["rate"], REQUESTS)
        assert {key["key"]: key["denied"] for key in each["top"]} == denials
        assert (each["denied"], each["denied_keys"]) == (denials.total(), len(denials))
        assert sum(each["denied_by_tier"].values()) == denials.total()
        assert each["denied_by_tier"].keys() <= set(each["rate"].split("; "))
        spans = each["spans"]
        assert [span["start"] for span in spans] == [START + second for second in range(67)]
        assert sum(span["requests"] for span in spans) == 2_000
        assert sum(span["denied"] for span in spans) == denials.total()
    assert found["rates"][1]["denied_by_tier"].keys() == {"6/s", "40/10s"}


def naive_strict_denials(rates, requests):
    """How often each key is denied where no window of any tier may have more than its limit."""
    tiers = [Rate.parse(rate) for rate in rates.split(";")]
    passed, denied = {}, Counter()
    for tenths, key, cost in requests:
        log = passed.setdefault(key, [])
        used = [sum(tenths - at < 10 * tier.period for at in log) for tier in tiers]
        if any(count + cost > tier.limit for count, tier in zip(used, tiers, strict=True)):
            denied[key] += 1
        else:
            log += [tenths] * cost
    return denied


@pytest.mark.parametrize("rate", ["7/s", "4/s; 30/min"])
def test_denials_of_every_window_are_exact(log, capsys, rate):
    found = simulate_json(capsys, log, "--rate", rate, "--every-window", "--top", "50")["rates"][0]
    assert {row["key"]: row["denied"] for row in found["top"]} == naive_strict_denials(rate, REQUESTS)


def test_a_cost_above_the_burst_is_denied(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text("1 ann 5\n1 ann\n")
    found = simulate_json(capsys, path, "--rate", "2/s")["rates"][0]
    assert found["denied_by_tier"] == {"cost above the burst": 1}


def test_late_lines_count_as_of_the_time_before(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text("100 ann\n50 ann\n100.5 ann\n101 ann\n")
    found = simulate_json(capsys, path, "--rate", "1/s")
    assert (found["late_lines"], found["rates"][0]["denied"], found["seconds"]) == (1, 2, 1)
    assert "Lines older than one before: 1." in simulate(capsys, path, "--rate", "1/s").out


def test_too_many_keys_are_reported(log, capsys):
    text = simulate(capsys, log, "--rate", "1/h, burst 3", "--max-keys", "1").out
    assert "Raise --max-keys for exact numbers." in " ".join(text.split())


# logs

LINES = [
    ("2026-09-01T00:00:00.5", "a", 1),
    ("2026-09-01T00:00:00.75", "a", 2),
    ("2026-09-01T00:00:03", "b", 1),
]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("log", "1788220800.5 a\n1788220800.75 a 2\n\t1788220803 b 1 \n\n", []),
        ("log", "1788220800500 a\n1788220800750 a 2\n1788220803000 b\n", ["--time-unit", "ms"]),
        ("log.csv", "time,key,n\n" + "".join(f"{t},{k},{n}\n" for t, k, n in LINES), ["--cost", "n"]),
        ("log.csv", "".join(f"{k};{n};{t}Z\n" for t, k, n in LINES),
         ["--key", "1", "--cost", "2", "--time", "3", "--delimiter", ";"]),
        ("log.jsonl", "".join(json.dumps({"at": {"t": t}, "key": k, "n": n}) + "\n" for t, k, n in LINES),
         ["--time", "at.t", "--cost", "n"]),
        ("access.log",
         '[01/Sep/2026:02:00:00 +0200] "GET /a"\n[01/Sep/2026:00:00:00 +0000] "GET /a" 2\n'
         '[01/Sep/2026:00:00:02 +0000] "GET /b"\n',
         ["--pattern", r'\[(?P<time>[^]]+)\] "GET /(?P<key>\w+)" ?(?P<cost>\d+)?']),
        ("access.log",
         'a - - [01/Sep/2026:02:00:00 +0200] "GET /[1] HTTP/1.1" 200 5 "-" "curl/8"\n'
         'a - ann [01/Sep/2026:00:00:00 +0000] "-" 400 0\n'
         'b - - [01/Sep/2026:00:00:02 +0000] "GET / HTTP/1.1" 200 5\n',
         ["--format", "access", "--rate", "1/s"]),
        ("log.csv", "\ufefftime\tkey\n1788220800.5\ta\n1788220800.6\ta\n1788220803\tb\n",
         ["--delimiter", r"\t", "--rate", "1/s"]),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_logs_of_every_kind(tmp_path, capsys, name, content, options, compress):
    path = tmp_path / (name + (".gz" if compress is gzip.compress else ""))
    path.write_bytes(compress(content.encode()))
    found = simulate_json(capsys, path, "--rate", "2/s", *options)
    assert (found["requests"], found["keys"], found["bad_lines"]) == (3, 2, 0)
    assert found["start"] in (1788220800.5, 1788220800.0)
    assert found["rates"][-1]["top"] == [{"key": "a", "requests": 2, "denied": 1}]


def test_standard_input(monkeypatch, capsys):
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"1 a\n1 a\n")))
    monkeypatch.setattr("sys.stdin", stdin)
    assert simulate_json(capsys, "-", "--rate", "1/s")["rates"][0]["denied"] == 1


def test_bad_lines_are_named_and_skipped(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("time,key\n1,a\nnoon,a\n1e99,a\n2,\n3,a\n")
    captured = simulate(capsys, path, "--rate", "1/s")
    assert [line.partition(" skipped: ")[2][:28] for line in captured.err.splitlines()] == [
        "a time is a number, ISO 8601", "a time is within 140 years o", "a key is a string or a whole",
    ]
    assert captured.err.startswith("headgate limit: line 3 skipped")
    assert "Lines skipped: 3." in captured.out
    assert main(["limit", "simulate", str(path), "--rate", "1/s", "--strict"]) == 1
    assert f"{path}, line 3: a time is a number" in capsys.readouterr().err


def test_bad_records_are_named_and_skipped(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    times = [("null", 1), ("1e5000000", 1), ("1e99", 1), (1, "null"), (1, 2)]
    path.write_text("".join(f'{{"time": {time}, "key": "a", "n": {cost}}}\n' for time, cost in times))
    captured = simulate(capsys, path, "--rate", "2/s", "--cost", "n")
    assert [line.partition(" skipped: ")[2][:28] for line in captured.err.splitlines()] == [
        "the field 'time' is null", "a time is within 140 years o", "a time is within 140 years o",
        "the field 'n' is null",
    ]
    assert "log.jsonl: 1 requests" in captured.out


def test_bad_rows_are_named_and_skipped(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text(f"time,key\n1,{'x' * 200_000}\n2,a\n")
    captured = simulate(capsys, path, "--rate", "2/s")
    assert captured.err == "headgate limit: line 2 skipped: field larger than field limit (131072)\n"
    assert "1 requests" in captured.out


def test_a_line_that_has_no_time(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text("1 a\n- a\n")
    captured = simulate(capsys, path, "--rate", "2/s", "--pattern", r"^(?P<time>\d+)?.* (?P<key>\w)")
    assert captured.err == "headgate limit: line 2 skipped: has no time\n"


def test_keys_that_are_no_text(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_bytes(b"1 \xff\x1b[2J\n1 \xff\x1b[2J\n1 \xfe\n1 caf\xc3\xa9\n1 caf\xc3\xa9\n")
    text = simulate(capsys, path, "--rate", "1/s").out
    assert r"\udcff\x1b[2J         2       1  50.0%" in text
    assert "caf\u00e9" in text
    found = simulate_json(capsys, path, "--rate", "1/s")
    assert [each["key"] for each in found["rates"][0]["top"]] == ["\udcff\x1b[2J", "caf\u00e9"]


def test_an_output_that_cannot_have_all_characters(tmp_path):
    path = tmp_path / "log"
    path.write_bytes("1 caf\u00e9\n1 caf\u00e9\n".encode())
    command = [sys.executable, "-m", "headgate", "limit", "simulate", str(path), "--rate", "1/s"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert rb"caf\xe9" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("log", "", [], "has no requests"),
        ("log", "nothing\n", [], "line 1 skipped: is not TIME KEY [COST]; see --format"),
        ("log", "1 a\n", ["--format", "access"], "line 1 skipped: is not a line of an access log"),
        ("log.csv", "x" * 200_000, [], "no names of columns in the first line: field larger"),
        ("log", "1 a\n", ["--max-keys", "5000000000"], "max_keys must be in [1, 2**32], got 5000000000"),
        ("log.csv", "at,key\n1,a\n", [], "no column 'time': the log has at, key"),
        ("log", "1 a\n", ["--pattern", "(?P<key>a)"], "needs --pattern with groups named time and key"),
        ("log", "1 a\n", ["--format", "regex"], "needs --pattern with groups named time and key"),
        ("log", "1 a\n", ["--rate", "often"], "rate must be like"),
    ],
)
def test_what_cannot_be_done_is_named(tmp_path, capsys, name, content, options, message):
    path = tmp_path / name
    path.write_text(content)
    assert main(["limit", "simulate", str(path), "--rate", "1/s", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["simulate", "log"], "required"),
        (["simulate", "log", "--rate", "1/s", "--delimiter", ";;"], "must be one character"),
        (["simulate", "log", "--rate", "1/s", "--delimiter", ""], "must be one character"),
    ],
)
def test_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["limit", *arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_networks_of_addresses(tmp_path, capsys):
    path = tmp_path / "log"
    keys = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::2", "unix:", "unix:"]
    path.write_text("".join(f"1 {key}\n" for key in keys))
    for options, denied in (
        ([], ["unix:"]),
        (["--v6", "64"], ["2001:db8::/64", "unix:"]),
        (["--v4", "24"], ["192.0.2.0/24", "2001:db8::/64", "unix:"]),
        (["--v4", "24", "--v6", "128"], ["192.0.2.0/24", "unix:"]),
    ):
        found = simulate_json(capsys, path, "--rate", "1/s", *options)["rates"][0]
        assert [each["key"] for each in found["top"]] == denied
    assert main(["limit", "simulate", str(path), "--rate", "1/s", "--v4", "33"]) == 1
    assert capsys.readouterr().err == "headgate limit: v4 must be in [0, 32], got 33\n"


# times


@pytest.mark.parametrize(
    ("time", "unit", "moment"),
    [
        ("0.1", "s", 100_000_000),
        (1_790_000_000.25, "s", 1_790_000_000_250_000_000),
        ("1790000000123456789", "ns", 1_790_000_000_123_456_789),
        ("17", "us", 17_000),
        ("2026-11-24", "s", 1_795_478_400 * 10**9),
        ("2026-11-24 01:00:00+01:00", "ms", 1_795_478_400 * 10**9),
        ("24/Nov/2026:00:00:00 +0000", "s", 1_795_478_400 * 10**9),
    ],
)
def test_times(time, unit, moment):
    assert nanoseconds(time, unit) == moment


NO_TIMES = [
    "", "nan", "inf", "1e999999", "1e5000000", "yesterday", "9999-01-01", None, [], "24/Nov/2026",
]


@pytest.mark.parametrize("time", NO_TIMES)
def test_what_is_no_time(time):
    with pytest.raises(ValueError, match="a time is"):
        nanoseconds(time)


def test_a_timeline_stays_small_and_forgets_nothing():
    timeline = Timeline()
    for second in range(0, 40_000, 7):
        timeline.add(second * 10**9)
    assert timeline.width == 60
    assert len(timeline.bins) <= 1_000
    assert timeline.bins.total() == len(range(0, 40_000, 7))
    assert timeline.widened(600)[0] == len(range(0, 600, 7))


# what is shown


def test_the_text(log, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    text = simulate(capsys, log, "--rate", "6/s; 40/10s", "--rate", "1000/s", "--top", "3").out
    lines = text.splitlines()
    assert lines[1] == "requests.log: 2,000 requests of 50 keys in 66.6 s"
    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines[5:7]] == [["6/s;", "40/10s"], ["6/s", lines[6].split()[1]]]
    assert "Denied by 6/s; 40/10s, by key" in lines
    assert "Denied by 6/s; 40/10s, in spans of 5 s" in lines
    assert not any(line.startswith("Denied by 1000/s") for line in lines)
    assert sum(line.startswith("user:") for line in lines) == 3


def test_long_keys_lose_their_middle(tmp_path, capsys):
    """Addresses of pages and secrets of one issuer differ at the end."""
    path = tmp_path / "log"
    path.write_text("".join(f"1 {'k' * 90}/{page}\n" * 2 for page in (1, 2)))
    text = simulate(capsys, path, "--rate", "1/s").out
    for page in (1, 2):
        assert f"\n{'k' * 19}...{'k' * 16}/{page}  " in text


def test_files_are_written_though_nobody_reads_the_text(log, tmp_path):
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "headgate", "limit", "simulate", str(log), "--rate", "1/s"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*command, "--json", str(path)], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    assert json.loads(path.read_text())["requests"] == 2_000


def test_pictures_of_no_known_kind(log, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    assert main(["limit", "simulate", str(log), "--rate", "1/s", "--plot", str(tmp_path / "x.foo")]) == 1
    assert "--plot must end in one of" in capsys.readouterr().err


def test_the_picture_shows_the_last_span_too():
    figure = pytest.importorskip("matplotlib.figure", reason="the cli extra is not installed").Figure()
    trial = Trial("1/s", 9, False)
    traffic = feed([Chunk(["a", "a", "a"], None, [10**9, 3 * 10**9, 3 * 10**9])], [trial], str, str)
    draw(Simulation("log", traffic, [trial], 1, 0), figure)
    requests, denied = (patch.get_data() for patch in figure.axes[0].patches)
    assert list(requests.edges) == [1, 2, 3, 4]
    assert (list(requests.values), list(denied.values)) == ([1, 0, 2], [0, 0, 1])


def test_plot(log, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    path = tmp_path / "denied.svg"
    simulate(capsys, log, "--rate", "6/s", "--rate", "3/s", "--plot", str(path))
    texts = {text.strip() for text in ElementTree.parse(path).getroot().itertext()}
    assert {"requests", "denied by 6/s", "denied by 3/s", "requests in 1 s", "UTC"} <= texts
