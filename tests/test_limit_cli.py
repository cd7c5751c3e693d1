"""``headgate limit simulate``: logs of every kind, denials exact to a naive model, and what is shown."""

import gzip
import io
import json
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from headgate import Rate
from headgate.cli import main
from headgate.cli.bench.workload import zipf_ranks
from headgate.cli.limit.engine import Timeline
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
    assert "1 lines were older" in simulate(capsys, path, "--rate", "1/s").out


def test_too_many_keys_are_told(log, capsys):
    text = simulate(capsys, log, "--rate", "1/h, burst 3", "--max-keys", "1").out
    assert "times a key gave way to another: raise --max-keys" in text


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
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_logs_of_every_kind(tmp_path, capsys, name, content, options, compress):
    path = tmp_path / (name + (".gz" if compress is gzip.compress else ""))
    path.write_bytes(compress(content.encode()))
    found = simulate_json(capsys, path, "--rate", "2/s", *options)
    assert (found["requests"], found["keys"], found["bad_lines"]) == (3, 2, 0)
    assert found["start"] in (1788220800.5, 1788220800.0)
    assert found["rates"][0]["top"] == [{"key": "a", "requests": 2, "denied": 1}]


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
    assert "3 lines were skipped." in captured.out
    assert main(["limit", "simulate", str(path), "--rate", "1/s", "--strict"]) == 1
    assert f"{path}, line 3: a time is a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("log", "", [], "has no requests"),
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


@pytest.mark.parametrize("arguments", [["limit"], ["limit", "simulate", "log"]])
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "required" in capsys.readouterr().err


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


@pytest.mark.parametrize("time", ["", "nan", "inf", "yesterday", "9999-01-01", None, [], "24/Nov/2026"])
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
    assert "Who: 6/s; 40/10s" in lines
    assert "When: 6/s; 40/10s, in spans of 5 s" in lines
    assert not any(line.startswith("Who: 1000/s") for line in lines)
    assert sum(line.startswith("user:") for line in lines) == 3


def test_long_keys_are_cut(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text(f"1 {'k' * 90}\n1 {'k' * 90}\n")
    assert f"\n{'k' * 37}...  " in simulate(capsys, path, "--rate", "1/s").out


def test_plot(log, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    path = tmp_path / "denied.svg"
    simulate(capsys, log, "--rate", "6/s", "--rate", "3/s", "--plot", str(path))
    texts = {text.strip() for text in ElementTree.parse(path).getroot().itertext()}
    assert {"requests", "denied by 6/s", "denied by 3/s", "in 1 s", "UTC"} <= texts
