"""``headgate simulate``: logs of every kind, hit ratios exact to a naive cache, and the advice."""

import csv
import gzip
import io
import json
import tracemalloc
from collections import OrderedDict
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from headgate.cli import main
from headgate.cli.bench.workload import zipf_ranks
from headgate.cli.simulate import engine
from headgate.cli.simulate.advice import advice
from headgate.cli.simulate.engine import Point

RANKS = zipf_ranks(distinct=300, requests=4_000)


def naive_lru_hits(requests, maxsize):
    """(hits, hit weight) of an LRU cache bounded by weight; too heavy an entry is not kept."""
    cache, hits, hit_weight = OrderedDict(), 0, 0
    for key, weight in requests:
        if key in cache:
            hits, hit_weight = hits + 1, hit_weight + weight
            cache.move_to_end(key)
        elif weight <= maxsize:
            cache[key] = weight
            while sum(cache.values()) > maxsize:
                cache.popitem(last=False)
    return hits, hit_weight


def simulate(capsys, log, *arguments):
    assert main(["simulate", str(log), *arguments]) == 0
    return capsys.readouterr()


def simulate_json(capsys, log, *arguments):
    return json.loads(simulate(capsys, log, *arguments, "--json", "-").out)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "keys.log"
    path.write_text("".join(f"user:{rank}\n" for rank in RANKS))
    return path


# hit ratios


def test_lru_is_exact(log, capsys):
    found = simulate_json(capsys, log, "--policy", "lru", "--sizes", "5,50,10%,1k")
    distinct = len(set(RANKS))
    assert (found["schema"], found["version"]) == ("headgate.simulate", 1)
    assert (found["requests"], found["distinct"], found["bad_lines"]) == (4_000, distinct, 0)
    assert [point["maxsize"] for point in found["points"]] == sorted([5, 50, round(distinct / 10), 1_000])
    for point in found["points"]:
        assert point["hits"] == naive_lru_hits(((rank, 1) for rank in RANKS), point["maxsize"])[0]
        assert point["hit_ratio"] == point["hits"] / 4_000
        assert point["ns_per_request"] > 0


def test_weights(tmp_path, capsys):
    requests = [(rank, rank % 7 * 10) for rank in RANKS]
    path = tmp_path / "keys.csv"
    path.write_text("path,size\n" + "".join(f"/item/{key},{weight}\n" for key, weight in requests))
    found = simulate_json(
        capsys, path, "--key", "path", "--weight", "size", "--policy", "lru", "--sizes", "55,2k,20%"
    )
    assert found["weighted"]
    assert found["distinct"] == sum(rank % 7 * 10 for rank in set(RANKS))
    for point in found["points"]:
        hits, hit_weight = naive_lru_hits(requests, point["maxsize"])
        assert point["hits"] == hits
        assert point["weight_hit_ratio"] == pytest.approx(hit_weight / sum(weight for _, weight in requests))


def test_every_policy_that_needs_only_a_size_takes_part(log, capsys):
    found = simulate_json(capsys, log, "--sizes", "20")
    assert [point["policy"] for point in found["points"]] == list(engine.policies())
    assert "lru" in engine.policies()
    assert "ttl" not in engine.policies()


@pytest.mark.parametrize(
    ("trace", "size", "hit_ratio"),
    [("web07.trace.xz", 16_384, 0.7245), ("loop.trace.gz", 512, 0.0)],
)
def test_published_hit_ratios(capsys, shared, trace, size, hit_ratio):
    found = simulate_json(capsys, shared / "traces" / trace, "--policy", "lru", "--sizes", str(size))
    assert round(found["points"][0]["hit_ratio"], 4) == hit_ratio


def naive_timed_hits(requests, maxsize, ttl):
    """The hits of an LRU cache whose entries end `ttl` after they were stored."""
    cache, hits = OrderedDict(), 0
    for now, key in requests:
        for known in [known for known, due in cache.items() if due <= now]:
            del cache[known]
        if key in cache:
            hits += 1
            cache.move_to_end(key)
        else:
            cache[key] = now + ttl
            if len(cache) > maxsize:
                cache.popitem(last=False)
    return hits


@pytest.mark.parametrize(
    "options", [["--key", "k", "--time", "t"], ["--pattern", r"(?P<time>\d+),(?P<key>.+)"]]
)
def test_entries_that_live_for_some_time(tmp_path, capsys, options):
    requests = [(at * 250, rank) for at, rank in enumerate(RANKS)]
    path = tmp_path / "keys.csv"
    path.write_text("t,k\n" + "".join(f"{now},{key}\n" for now, key in requests))
    found = simulate_json(
        capsys, path, *options, "--time-unit", "ms", "--ttl", "20", "--policy", "lru", "--sizes", "5,50,1k"
    )
    assert found["ttl"] == 20
    assert [point["hits"] for point in found["points"]] == [
        naive_timed_hits(requests, size, 20_000) for size in (5, 50, 1_000)
    ]


def test_a_ttl_takes_weights_too(tmp_path, capsys):
    path = tmp_path / "keys.csv"
    path.write_text("k,t,w\na,0,3\na,1,3\na,9,3\nb,9,8\n")
    columns = ["--key", "k", "--time", "t", "--weight", "w"]
    found = simulate_json(capsys, path, *columns, "--ttl", "5", "--policy", "lru,tinylfu", "--sizes", "7")
    assert [(point["hits"], point["weight_hit_ratio"]) for point in found["points"]] == [(1, 3 / 17)] * 2


def test_bad_lines_alone_do_not_make_a_cache_forget_weights(tmp_path, capsys):
    path = tmp_path / "keys.csv"
    path.write_text("k,w\n" + "a\n" * 20_000 + "a,3\nb,3\na,3\n")
    found = simulate_json(
        capsys, path, "--key", "k", "--weight", "w", "--policy", "lru", "--sizes", "5"
    )
    assert (found["requests"], found["points"][0]["hits"]) == (3, 0)


# logs


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("log.csv", "path,bytes\n/a,3\n/b,5\n/a,3\n", ["--key", "path", "--weight", "bytes"]),
        (
            "log.csv",
            'bytes;path\n3;/a\n5;"/b"\n3;/a\n',
            ["--key", "path", "--weight", "bytes", "--delimiter", ";"],
        ),
        ("log.csv", "/a,3\n/b,5\n/a,3\n", ["--key", "1", "--weight", "2"]),
        (
            "log.jsonl",
            '{"r": {"p": "/a"}, "n": 3}\n{"r": {"p": "/b"}, "n": 5}\n\n{"r": {"p": "/a"}, "n": 3}\n',
            ["--key", "r.p", "--weight", "n"],
        ),
        (
            "access.log",
            '- "GET /a" 3\n- "GET /b" 5\n- "GET /a" 3\n',
            ["--pattern", r'"GET (?P<key>\S+)" (?P<weight>\d+)'],
        ),
        ("log", "/a,3\n/b,5\n/a,3\n", ["--format", "csv", "--key", "1", "--weight", "2"]),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_structured_logs(tmp_path, capsys, name, content, options, compress):
    path = tmp_path / (name + (".gz" if compress is gzip.compress else ""))
    path.write_bytes(compress(content.encode()))
    found = simulate_json(capsys, path, *options, "--sizes", "3,100%")
    assert (found["requests"], found["distinct"], found["weighted"]) == (3, 8, True)
    assert [point["hits"] for point in found["points"] if point["policy"] == "lru"] == [1, 1]


def test_a_pattern_without_names_takes_its_group(tmp_path, capsys):
    path = tmp_path / "access.log"
    path.write_text("GET /a\nGET /b\nGET /a\n")
    assert simulate_json(capsys, path, "--pattern", r"GET (\S+)", "--sizes", "100%")["distinct"] == 2
    assert simulate_json(capsys, path, "--pattern", r"/\w", "--sizes", "100%")["distinct"] == 2


@pytest.mark.parametrize("sizes", ["2", "100%"])
def test_standard_input(monkeypatch, capsys, sizes):
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"a\nb\na\n")))
    monkeypatch.setattr("sys.stdin", stdin)
    found = simulate_json(capsys, "-", "--sizes", sizes)
    assert [(point["maxsize"], point["hits"]) for point in found["points"] if point["policy"] == "lru"] == [
        (2, 1)
    ]


BAD = '{"k": "a"}\nnonsense\n{"x": 1}\n{"k": [1]}\n{"k": "a"}\n'


def test_bad_lines_are_named_and_skipped(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_text(BAD)
    captured = simulate(capsys, path, "--key", "k", "--sizes", "50%")
    assert [line.partition(":")[2] for line in captured.err.splitlines()] == [
        " line 2 skipped: Expecting value: line 1 column 1 (char 0)",
        " line 3 skipped: no field 'k'",
        " line 4 skipped: a key is a string or a whole number, got [1]",
    ]
    assert "Lines skipped: 3." in captured.out


def test_strict_stops_at_the_first_bad_line(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_text(BAD)
    assert main(["simulate", str(path), "--key", "k", "--strict", "--sizes", "5"]) == 1
    assert f"{path}, line 2: Expecting value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("log", "", [], "has no keys"),
        ("log.csv", "a,b\n1,2\n", ["--key", "c"], "no column 'c': the log has a, b"),
        ("log.jsonl", "{}\n", [], "needs --key"),
        ("log", "a\n", ["--format", "regex"], "needs --pattern"),
        ("log", "a\n", ["--ttl", "5"], "--ttl needs the times of the requests"),
        (
            "log.csv",
            "a,b\n1,-2\n",
            ["--weight", "b", "--strict"],
            "line 2: a weight is a whole number, 0 or more",
        ),
        ("log.csv", "a,b\n1\n", ["--weight", "b", "--strict"], "line 2: expected 2 columns or more, got 1"),
        ("log", "a\n", ["--pattern", "b", "--strict"], "line 1: does not match the pattern"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, capsys, name, content, options, message):
    path = tmp_path / name
    path.write_text(content)
    assert main(["simulate", str(path), *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--policy", "lru,mru"], "unknown: mru (choose from "),
        (["--sizes", "5,many"], "a size is a positive number"),
        (["--pattern", "("], "no regular expression"),
    ],
)
def test_options_are_checked(log, capsys, option, message):
    with pytest.raises(SystemExit) as raised:
        main(["simulate", str(log), *option])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_memory_does_not_grow_with_the_log(tmp_path, capsys):
    """With absolute sizes: the log would take 25 MB if it were held."""
    path = tmp_path / "keys.log"
    path.write_text("".join(f"{number:0200}\n" for number in range(100_000)))
    tracemalloc.start()
    try:
        simulate(capsys, path, "--sizes", "100", "--policy", "lru")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000


# what is shown


def test_the_text_fits_80_columns(log, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    text = simulate(capsys, log).out
    assert text.splitlines()[1] == "keys.log: hit ratio of 4,000 requests"
    assert max(map(len, text.splitlines())) <= 80


def test_csv(log, tmp_path, capsys):
    path = tmp_path / "points.csv"
    simulate(capsys, log, "--policy", "lru", "--sizes", "5,50", "--csv", str(path))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], row["maxsize"]) for row in rows] == [("lru", "5"), ("lru", "50")]


def test_plot(log, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    path = tmp_path / "curves.svg"
    simulate(capsys, log, "--sizes", "5,50,500", "--plot", str(path))
    texts = {text.strip() for text in ElementTree.parse(path).getroot().itertext()}
    assert {"lru", "entries", "hit ratio, %"} <= texts


# advice


def curve(policy, *points):
    return [Point(policy, size, 1_000, hits, 1_000, hits, 50.0) for size, hits in points]


def test_advice_names_the_policy_that_saves_most():
    lru = curve("lru", (100, 200), (400, 400), (1_600, 600))
    assert advice([*lru, *curve("sieve", (100, 300), (400, 390), (1_600, 600))]) == (
        "sieve with 100 hits as often (30.00%) as LRU with 200."
    )
    assert advice([*lru, *curve("s3fifo", (100, 250), (400, 700), (1_600, 700))]) == (
        "s3fifo with 400 hits as often (70.00%) as LRU with more than 1,600."
    )


def test_advice_prefers_the_better_of_those_that_save_as_much():
    lru = curve("lru", (100, 0), (400, 0))
    assert advice([*lru, *curve("rr", (100, 1), (400, 9)), *curve("tinylfu", (100, 90), (400, 490))]) == (
        "tinylfu with 100 hits as often (9.00%) as LRU with more than 400."
    )


def test_advice_names_the_size_that_is_enough():
    assert advice(curve("lru", (100, 200), (400, 595), (1_600, 600))) == (
        "lru with 400 hits 59.50%, within a point of the best (60.00% with 1,600)."
    )


def test_advice_when_size_still_pays_or_nothing_hits():
    assert advice(curve("lru", (100, 200), (400, 500))) == (
        "lru still gains with size, 30.00% more hits from 100 to 400: try larger sizes."
    )
    assert advice(curve("lru", (100, 0), (400, 0))) == (
        "No cache hits even once with 400 or less: try larger sizes."
    )
    assert advice(curve("lru", (100, 250))) == "lru with 100 hits 25.00%."


def test_advice_when_lru_is_the_best():
    lru = curve("lru", (100, 200), (400, 400))
    assert advice([*lru, *curve("fifo", (100, 100), (400, 300))]).startswith("lru still gains")
