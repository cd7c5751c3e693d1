"""``headgate simulate``: logs of every kind, hit ratios exact to a naive cache, and the advice."""

import csv
import gzip
import io
import json
import re
import struct
import sys
import tracemalloc
from collections import OrderedDict
from itertools import pairwise
from random import Random
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from headgate.cli import keylog, main, tables
from headgate.cli.bench.workload import zipf_ranks
from headgate.cli.simulate import belady, engine
from headgate.cli.simulate.advice import advice
from headgate.cli.simulate.engine import Point
from headgate.cli.simulate.plot import draw
from headgate.cli.simulate.records import Chunk
from headgate.cli.simulate.show import Simulation

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
        ("log.csv", "a,b\n1,2\n", ["--ttl", "5"], "--ttl needs the times of the requests"),
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
        (["--pattern", "("], "not a regular expression"),
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


# formats and what they cannot honour

ORACLE = struct.Struct("<IQIq")


def oracle(requests, never=-1):
    """libCacheSim's records of (time, key, size)."""
    following, records = {}, []
    for number, (time, key, size) in reversed(list(enumerate(requests, 1))):
        records.append(ORACLE.pack(time, key, size, following.get(key, never)))
        following[key] = number
    return b"".join(reversed(records))


SIZED = [(1_000 + at // 3, rank + 2**40, rank % 7 * 10 + 1) for at, rank in enumerate(RANKS)]


@pytest.mark.parametrize("never", [-1, 2**63 - 1])
@pytest.mark.parametrize(("name", "options"), [
    ("log", []), ("trace.oracleGeneral.gz", []), ("log.bin", ["--format", "oracleGeneral"]),
])
def test_oracle_general_with_its_sizes(tmp_path, capsys, name, options, never):
    path = tmp_path / name
    content = oracle(SIZED, never)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = simulate_json(capsys, path, *options, "--policy", "lru", "--sizes", "300,5k,20%")
    assert (found["requests"], found["weighted"]) == (len(SIZED), True)
    assert found["distinct"] == sum({key: size for _, key, size in SIZED}.values())
    for point in found["points"]:
        hits, hit_weight = naive_lru_hits([(key, size) for _, key, size in SIZED], point["maxsize"])
        assert (point["hits"], round(point["weight_hit_ratio"] * point["weight"])) == (hits, hit_weight)


def test_oracle_general_has_times(tmp_path, capsys):
    requests = [(at // 3, rank, 1) for at, rank in enumerate(RANKS)]
    path = tmp_path / "trace.oracleGeneral"
    path.write_bytes(oracle(requests))
    found = simulate_json(capsys, path, "--ttl", "20", "--policy", "lru", "--sizes", "50,1k")
    timed = [(time, key) for time, key, _ in requests]
    assert [point["hits"] for point in found["points"]] == [
        naive_timed_hits(timed, size, 20) for size in (50, 1_000)
    ]


def test_keys_of_32_bits_are_not_taken_for_oracle_general(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_bytes(struct.pack(f">{len(RANKS)}i", *RANKS))
    found = simulate_json(capsys, path, "--sizes", "50", "--policy", "lru")
    assert (found["requests"], found["weighted"]) == (len(RANKS), False)
    assert found["points"][0]["hits"] == naive_lru_hits([(rank, 1) for rank in RANKS], 50)[0]


def test_oracle_general_for_other_commands(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_bytes(oracle(SIZED))
    assert list(keylog.read_keys(path)) == [key for _, key, _ in SIZED]


@pytest.mark.parametrize("option", ["--time=t", "--time-unit=ms"])
def test_times_are_of_use_for_lifetimes_only(tmp_path, capsys, option):
    path = tmp_path / "log.csv"
    path.write_text("t,k\n1,a\n")
    assert main(["simulate", str(path), "--key", "k", option]) == 1
    name = option.partition("=")[0]
    assert capsys.readouterr().err == f"headgate simulate: {name} needs --ttl\n"


def test_a_record_that_is_cut_off(tmp_path, capsys):
    path = tmp_path / "log.oracleGeneral"
    path.write_bytes(oracle(SIZED)[:-5])
    assert main(["simulate", str(path), "--sizes", "5"]) == 1
    assert capsys.readouterr().err == (
        f"headgate simulate: cannot read {path}: it ends in the middle of a 192-bit record\n"
    )


@pytest.mark.parametrize(("content", "options", "message"), [
    (b"a\n", ["--ttl", "5"], "--ttl needs the format csv or jsonl or regex or oracleGeneral, not lines"),
    (b"a\n", ["--time", "t", "--ttl", "5"], "--time needs the format csv or jsonl, not lines"),
    (b"a\n", ["--weight", "w"], "--weight needs the format csv or jsonl, not lines"),
    (b"a\n", ["--key", "k"], "--key needs the format csv or jsonl, not lines"),
    (b"a\n", ["--time-unit", "ms", "--ttl", "5"],
     "--time-unit needs the format csv or jsonl or regex, not lines"),
    (b"a\n", ["--delimiter", ";"], "--delimiter needs the format csv, not lines"),
    (b"a\n", ["--no-header"], "--header needs the format csv, not lines"),
    (b"a\n", ["--format", "lines", "--pattern", "a"], "--pattern needs the format regex, not lines"),
    (b"\0\0\0\1", ["--weight", "w"], "--weight needs the format csv or jsonl, not int32be"),
    (b"\0\0\0\1", ["--ttl", "5"],
     "--ttl needs the format csv or jsonl or regex or oracleGeneral, not int32be"),
    (oracle(SIZED), ["--key", "k"],
     "--key needs the format csv or jsonl, not oracleGeneral, whose records have all fields"),
    (b"a\n", ["--pattern", "a", "--key", "k"],
     "--key needs the format csv or jsonl, not regex, whose pattern names the groups"),
    (b'{"k": 1}\n', ["--format", "jsonl", "--key", "k", "--delimiter", ";"],
     "--delimiter needs the format csv, not jsonl"),
])
@pytest.mark.parametrize("sizes", ["5", "5%"])
def test_options_that_a_format_cannot_honour(tmp_path, capsys, content, options, message, sizes):
    path = tmp_path / "log"
    path.write_bytes(content)
    assert main(["simulate", str(path), *options, "--sizes", sizes]) == 1
    assert capsys.readouterr().err == f"headgate simulate: {message}\n"


@pytest.mark.parametrize(("content", "options", "requests"), [
    ("path,bytes\n/a,3\n/b,5\n", ["--key", "1"], 2),
    ("path,bytes\n/a,3\n/b,5\n", ["--key", "1", "--weight", "2"], 2),
    ("path,bytes\n/a,3\n/b,5\n", ["--key", "1", "--weight", "bytes"], 2),
    ("path,bytes\n/a,3\n/b,5\n", ["--key", "1", "--no-header"], 3),
    ("user,page\nann,/a\nbob,/b\n", ["--key", "1"], 2),
    ("/a,3\n/b,5\n", ["--key", "1"], 2),
    ("ann,bob\nbob,cid\n", ["--key", "1", "--no-header"], 2),
    ("1,2\n3,4\n", ["--key", "1", "--header"], 1),
    ("1,2\n3,4\n", [], 1),
    ("1,2\n3,4\n", ["--no-header"], 2),
])
def test_the_header_of_a_csv_is_no_request(tmp_path, capsys, content, options, requests):
    path = tmp_path / "log.csv"
    path.write_text(content)
    assert simulate_json(capsys, path, *options, "--sizes", "3")["requests"] == requests


def test_names_of_columns_need_a_header(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("a,b\n1,2\n")
    assert main(["simulate", str(path), "--key", "b", "--no-header"]) == 1
    assert capsys.readouterr().err == (
        "headgate simulate: no column 'b': the log has no names of columns\n"
    )


def test_policies_in_any_case(log, capsys):
    found = simulate_json(capsys, log, "--policy", "LRU,S3Fifo", "--sizes", "5")
    assert [point["policy"] for point in found["points"]] == ["lru", "s3fifo"]


# absurd numbers


@pytest.mark.parametrize(("options", "message"), [
    (["--sizes", "9999999999m"], "no lru cache of size 9,999,999,999,000,000: maxsize must be at most"),
    (["--sizes", "100000000000000%"], "no lru cache of size "),
])
def test_sizes_that_no_cache_can_have(log, capsys, options, message):
    assert main(["simulate", str(log), "--policy", "lru", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"headgate simulate: {message}")


@pytest.mark.parametrize("size", ["9" * 400, "9" * 30 + "k", "9" * 30 + "%", "9223372036854775808"])
def test_sizes_that_are_no_numbers_of_entries(log, capsys, size):
    with pytest.raises(SystemExit):
        main(["simulate", str(log), "--sizes", size])
    assert "a size is a positive number less than 2**63" in capsys.readouterr().err


@pytest.mark.parametrize("weight", ["9" * 5000, "9" * 30, str(2**63), "-1", "1.5", "x"])
def test_absurd_weights_are_bad_lines(tmp_path, capsys, weight):
    (tmp_path / "log.csv").write_text(f"k,w\na,{weight}\nb,{2**63 - 1}\nb,3\n")
    captured = simulate(capsys, tmp_path / "log.csv", "--weight", "w", "--policy", "lru", "--json", "-")
    assert "line 2 skipped: a weight is a whole number, 0 or more, and less than 2**63" in captured.err
    found = json.loads(captured.out)
    assert (found["requests"], found["distinct"], found["bad_lines"]) == (2, 2**63 - 1, 1)


# Belady's choice


def best_hits(keys, size):
    """The most hits of any cache that may also decline to store a key: by trying everything."""
    best = {frozenset(): 0}
    for key in keys:
        after = {}
        for stored, hits in best.items():
            hits += key in stored
            choices = [stored] if key in stored else [
                stored, *([stored | {key}] if len(stored) < size else []),
                *(stored - {gone} | {key} for gone in stored),
            ]
            for choice in choices:
                after[choice] = max(after.get(choice, 0), hits)
        best = after
    return max(best.values())


@pytest.mark.parametrize("seed", range(20))
def test_belady_hits_as_often_as_anything_can(seed):
    random = Random(seed)
    keys = random.choices("abcdef", k=25)
    optimum = belady.Belady(None)
    assert len(list(optimum.record([Chunk(keys[:9]), Chunk(keys[9:])]))) == 2
    sizes = (1, 2, 3, 6)
    assert [optimum.hits(size)[0] for size in sizes] == [best_hits(keys, size) for size in sizes]


def test_belady_is_the_ceiling_of_all(log, capsys):
    policies = ",".join([*engine.policies(), belady.NAME])
    found = simulate_json(capsys, log, "--policy", policies, "--sizes", "5,50,150")
    for size in (5, 50, 150):
        hits = {point["policy"]: point["hits"] for point in found["points"] if point["maxsize"] == size}
        assert hits[belady.NAME] == max(hits.values()) > hits["lru"]
    assert belady.NAME not in found["advice"]


def test_belady_with_weights_and_with_lifetimes():
    chunks = [Chunk(["a", "b", "a", "c", "a", "b"], [2, 2, 2, 9, 2, 2], [0, 1, 2, 3, 9 * 10**9, 10 * 10**9])]
    lasting, ending = belady.Belady(None), belady.Belady(5)
    for optimum in (lasting, ending):
        list(optimum.record(chunks))
    assert [lasting.hits(size) for size in (1, 2, 4)] == [(0, 0), (2, 4), (3, 6)]
    assert [ending.hits(size) for size in (1, 2, 4)] == [(0, 0), (1, 2), (1, 2)]


def test_the_published_optimum(capsys, shared):
    found = simulate_json(capsys, shared / "traces/loop.trace.gz", "--policy", "belady", "--sizes", "512")
    (point,) = found["points"]
    assert round(point["hit_ratio"], 4) == 0.5054
    assert point["ns_per_request"] is None


# what is shown


@pytest.mark.parametrize("width", [16, 60, 70, 100, 200])
@pytest.mark.parametrize("kind", [tables.Plain, tables.Rich])
def test_no_number_is_cut(log, monkeypatch, capsys, width, kind):
    if kind is tables.Rich:
        pytest.importorskip("rich", reason="the cli extra is not installed")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("headgate.cli.outputs.printer", lambda: kind(sys.stdout))
    found = simulate_json(capsys, log, "--sizes", "5,50%")
    deterministic = {point["hit_ratio"] for point in found["points"] if point["policy"] in ("fifo", "lru")}
    text = simulate(capsys, log, "--sizes", "5,50%").out
    assert "…" not in text
    shown = re.findall(r"(?<= )\d+\.\d\d%", text)
    assert len(shown) >= len(found["points"])
    assert {f"{ratio:.2%}" for ratio in deterministic} <= set(shown)
    if width >= 60:
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width


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
    assert {*engine.policies(), "belady", "entries", "hit ratio, %"} <= texts


def drawn(*points):
    """What a plot of these points draws."""
    figure = pytest.importorskip("matplotlib.figure", reason="the cli extra is not installed").Figure()
    draw(Simulation("log", False, None, None, 0, points), figure)
    return figure.axes[0]


def test_the_range_of_a_plot_is_that_of_the_data():
    curves = *curve("lru", (100, 400), (400, 450)), *curve("belady", (100, 500), (400, 600))
    low, high = drawn(*curves).get_ylim()
    assert 38 < low < 40
    assert 60 < high < 62
    assert drawn(*curve("lru", (100, 0), (400, 1_000))).get_ylim() == (0, 100)


def test_the_names_of_curves_stand_at_their_ends_and_apart():
    policies = ["fifo", "lru", "sieve", "belady"]
    axes = drawn(*(point for policy in policies for point in curve(policy, (100, 400), (400, 600))),
                 *curve("rr", (100, 300), (400, 350)))
    low, high = axes.get_ylim()
    names = {text.get_text(): low + text.xyann[1] * (high - low) for text in axes.texts}
    assert names.keys() == {*policies, "rr"}
    assert names["rr"] == pytest.approx(35)
    places = sorted(names.values())
    assert min(above - below for below, above in pairwise(places)) > 0.04 * (high - low)
    assert places[-1] <= high


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
        "No cache has a hit with a size of 400 or less: try larger sizes."
    )
    assert advice(curve("lru", (100, 250))) == "lru with 100 hits 25.00%."


def test_advice_when_lru_is_the_best():
    lru = curve("lru", (100, 200), (400, 400))
    assert advice([*lru, *curve("fifo", (100, 100), (400, 300))]).startswith("lru still gains")
