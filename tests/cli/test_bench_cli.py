"""``headgate bench``: a tiny run looked at from all sides, and the parts it is made of."""

import contextlib
import gzip
import io
import json
import lzma
import os
import re
import struct
import subprocess
import sys
from collections import Counter, OrderedDict
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

import headgate
from headgate.cli import main
from headgate.cli.bench import (
    budgets,
    child,
    command,
    export,
    interleave,
    limiter,
    lru,
    memo,
    memory,
    peers,
    report,
    show,
    textbook,
    workload,
)
from headgate.cli.bench.benchmark import QUICK, Benchmark, Result, subject
from headgate.cli.bench.child import Failures
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, Ratio, Timing, always
from headgate.cli.bench.peers import missing_peers
from headgate.cli.bench.worker import SUITES, measure

TINY = ["--quick", "--rounds", "3", "--scale", "0.01"]
BENCHMARKS = [
    "lru.get_hit", "lru.put_evict", "lru.put_evict_20", "lru.put_evict_200",
    "lru.read_through_users", "lru.read_through_paths", "lru.read_through_addresses",
    "memo.hit",
    "ring.get_node", "ring.build", "ring.add_node",
    "bucket.allow",
    "bucket.deny",
    "limiter.allow_hot",
    "limiter.allow_many",
]


def bench(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["bench", *TINY, *arguments]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of everything: its text and its JSON."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        text = bench("--json", str(path))
    return SimpleNamespace(text=text, json=json.loads(path.read_text()))


# the report


def test_plain_text_fits_80_columns(whole):
    assert max(map(len, whole.text.splitlines())) <= 80


def test_the_text_names_machine_twin_and_method(whole):
    paragraphs = re.split(r"\n\n", whole.text)
    assert paragraphs[0].startswith("headgate ")
    assert "Python" in paragraphs[0]
    assert "interleaved rounds in 1 process (" in " ".join(paragraphs[-2].split())
    assert paragraphs[-1].startswith(f"{subject()} is no slower than any peer in ")
    assert paragraphs[-1].endswith(".\n")


def test_json_has_every_benchmark_and_candidate(whole):
    found = whole.json
    assert (found["schema"], found["version"]) == (export.SCHEMA, export.SCHEMA_VERSION)
    assert [benchmark["benchmark"] for benchmark in found["benchmarks"]] == BENCHMARKS
    assert found["subject"] == subject()
    for benchmark in found["benchmarks"]:
        assert subject() in benchmark["candidates"]
        for timing in benchmark["candidates"].values():
            assert len(timing["samples"]) == 3
            assert 0 < timing["q1"] <= timing["median"] <= timing["q3"]
        assert benchmark["candidates"][subject()]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}


def test_installed_peers_are_measured(whole):
    present = {name for benchmark in whole.json["benchmarks"] for name in benchmark["candidates"]}
    assert {"functools", "text OrderedDict", "text md5 + bisect", "text float bucket"} <= present
    assert present.issuperset(whole.json["peers"])
    assert present.isdisjoint(missing_peers())


def test_bytes_an_entry_are_plausible(whole):
    found = whole.json["bytes_per_entry"]
    assert found.keys() == {cache.name for cache in lru.caches()}
    assert all(abs(size) < 2_000 for size in found.values())


def test_bytes_a_key_are_plausible(whole):
    found = whole.json["bytes_per_key"]
    assert found.keys() == {limiter.name for limiter in limiter.limiters()}
    assert all(abs(size) < 20_000 for size in found.values())


def test_budgets_follow_the_measurements(whole):
    ours = {budget["what"]: budget for budget in whole.json["budgets"]}
    if subject() == "headgate pure":
        assert ours == {}
        assert "Budgets are those of the compiled twin" in " ".join(whole.text.split())
        return
    assert {"LRU get, hit, times dict", "ring get_node, times dict.get", "import headgate, ms"} <= ours.keys()
    assert {"lru_cache, hit, times functools", "allow, hot, times one TokenBucket"} <= ours.keys()
    assert {"path=, times headgate compiled", "limiter, bytes a key"} <= ours.keys()
    assert all(budget["met"] == (budget["measured"] <= budget["limit"]) for budget in ours.values())


def test_markdown_tables():
    text = bench("--only", "ring", "--markdown")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table[:6]} == {5}
    assert table[1] == "|---|---:|---:|---:|"
    assert any(line.startswith(f"| **{subject()}** |") for line in table)


def test_only_some_suites():
    found = json.loads(bench("--only", "ring", "--only", "ring", "--json", "-"))
    assert {benchmark["benchmark"].partition(".")[0] for benchmark in found["benchmarks"]} == {"ring"}
    assert found["bytes_per_entry"] == found["bytes_per_key"] == {}


def test_an_unknown_suite_is_named(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["bench", "--only", "lru,hedge"])
    assert raised.value.code == 2
    assert f"unknown: hedge (choose from {', '.join(SUITES)})" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--scale", "-1"], ["--trace-size", "0"]])
def test_sizes_are_checked(arguments, capsys):
    with pytest.raises(SystemExit):
        main(["bench", *arguments])
    assert "positive" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--trace-size", "5"], "--trace-size needs --trace"),
    (["--trace-format", "lines"], "--trace-format needs --trace"),
    (["--trace", "log", "--only", "lru"], "--only has no effect with --trace"),
    (["--json", "-", "--markdown"], "--markdown has no effect with --json -"),
])
def test_options_that_would_do_nothing(arguments, message, capsys):
    assert main(["bench", *arguments]) == 1
    assert capsys.readouterr().err == f"headgate bench: {message}\n"


def test_rich_tables_on_a_terminal(monkeypatch):
    pytest.importorskip("rich", reason="the cli extra is not installed")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench", *TINY, "--only", "ring"]) == 0
    bare = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert bare != out.getvalue()
    assert "…" not in bare
    assert max(map(len, bare.splitlines())) <= 80


def test_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    path = tmp_path / "bench.svg"
    bench("--only", "ring", "--plot", str(path))
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert subject() in " ".join(root.itertext())


def test_plot_without_matplotlib_fails_before_the_work(monkeypatch, capsys):
    monkeypatch.setattr("headgate.cli.errors.find_spec", lambda name: None)
    assert main(["bench", "--plot", "bench.svg"]) == 1
    assert capsys.readouterr().err == (
        "headgate bench: --plot needs matplotlib: pip install 'headgate[cli]'\n"
    )


def test_an_output_that_cannot_be_written_fails_before_the_work(tmp_path, capsys):
    assert main(["bench", "--json", str(tmp_path / "absent" / "bench.json")]) == 1
    assert "is not a directory" in capsys.readouterr().err


# while it runs


@pytest.fixture
def sections(monkeypatch):
    """A function that is called with what is printed so far before each section of a run is measured."""

    def watch(before):
        def watched(*arguments):
            before(sys.stdout.getvalue())
            measure(*arguments)

        monkeypatch.setattr(command, "measure", watched)

    return watch


def test_each_table_is_printed_as_soon_as_it_is_measured(sections):
    printed = []
    sections(printed.append)
    text = bench("--only", "memo,ring,bucket")
    for at, title in enumerate(("Memoizing decorator", "Hash ring", "Token bucket")):
        assert [title in each for each in [*printed, text]] == [number > at for number in range(4)]
    assert printed[0].startswith("headgate ")


def interrupt_at(title):
    def before(printed):
        if title in printed:
            raise KeyboardInterrupt

    return before


@pytest.mark.parametrize("title", ["Memoizing decorator", "Hash ring"])
def test_an_interrupt_leaves_what_was_measured(sections, title, tmp_path, capsys, monkeypatch):
    path = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    sections(interrupt_at(title))
    assert main(["bench", *TINY, "--only", "memo,ring,bucket", "--json", str(path)]) == 130
    assert capsys.readouterr().err == "headgate bench: interrupted\n"
    text = sys.stdout.getvalue()
    assert title in text
    assert "Token bucket" not in text
    assert "no slower than any peer in" in " ".join(text.split())
    found = json.loads(path.read_text())
    assert found["interrupted"]
    suites = {benchmark["benchmark"].partition(".")[0] for benchmark in found["benchmarks"]}
    assert suites == {"memo"} | ({"ring"} if title == "Hash ring" else set())
    assert found["start_ns"] == {}


def test_an_interrupt_before_the_first_measurement(sections, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    sections(interrupt_at("headgate "))
    path = tmp_path / "bench.json"
    assert main(["bench", *TINY, "--only", "memo", "--json", str(path)]) == 130
    assert capsys.readouterr().err == "headgate bench: interrupted\n"
    assert not path.exists()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX reports a pipe without a reader by errno")
@pytest.mark.parametrize("writes", [True, False])
def test_a_reader_that_leaves_does_not_cost_the_files(writes, tmp_path):
    path = tmp_path / "bench.json"
    options = [*TINY, "--only", "memo,bucket", *(["--json", str(path)] if writes else [])]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "headgate", "bench", *options],
                          stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    assert path.exists() == writes
    if writes:
        found = json.loads(path.read_text())
        assert not found["interrupted"]
        assert {each["benchmark"] for each in found["benchmarks"]} >= {"memo.hit", "bucket.deny"}


# peers that fail, and folders that hold files of their names

HOSTILE = ("lru", "limits", "throttled", "cachebox", "json", "csv", "argparse")
ONE_ROUND = QUICK.times(0.001)._replace(rounds=1, processes=1, starts=1)
HOME = str(Path(headgate.__file__).parents[1])


@pytest.fixture
def fake_peer(tmp_path, monkeypatch):
    """Put a module in the place of a peer's, for this process and for its children."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), HOME]))
    monkeypatch.syspath_prepend(tmp_path)

    fakes = []

    def put(module, source):
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(source)
        fakes.append(module)

    yield put
    for module in fakes:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("safe", [[], ["-P"]])
def test_files_of_the_working_directory_are_not_run(tmp_path, safe):
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text(f"print('{name}'); raise SystemExit('{name} was run')")
    command = [sys.executable, *safe, "-m", "headgate", "bench", *TINY, "--only", "bucket", "--json", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=os.environ | {"PYTHONPATH": HOME},
                          text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["left_out"] == {}


FAILING = [
    ("raise ImportError('no such library')", "ImportError: no such library"),
    ("print('hello')", "AttributeError: module 'cachebox' has no attribute 'cached'"),
    ("import os\nprint('hello', end='', flush=True)\nos._exit(3)", "it ended with status 3"),
    ("LRUCache = print\ndef cached(cache): return lambda function: function.absent",
     "AttributeError: 'function' object has no attribute 'absent'"),
]


@pytest.mark.parametrize(("source", "problem"), FAILING)
def test_a_peer_that_fails_is_left_out_and_the_others_continue(fake_peer, source, problem):
    fake_peer("cachebox", source)
    failures = Failures()
    results = {}
    scale = ONE_ROUND._replace(processes=2)
    measure(memo.benchmarks(ONE_ROUND), scale, always(None), failures, results)
    assert failures == {"cachebox": problem}
    names = {timing.name for timing in results["memo.hit"].timings}
    assert {subject(), "functools"} <= names
    assert "cachebox" not in names


def test_a_peer_that_fails_is_named_in_one_line(fake_peer, tmp_path, capsys):
    fake_peer("cachebox", "raise ImportError('no such library')")
    (tmp_path / "keys.log").write_text("a\nb\na\n")
    assert main(["bench", *TINY, "--trace", str(tmp_path / "keys.log"), "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "headgate bench: cachebox is left out: ImportError: no such library\n"
    found = json.loads(captured.out)
    assert found["left_out"] == {"cachebox": "ImportError: no such library"}
    assert {subject(), "functools"} <= found["replay"]["candidates"].keys()
    assert "cachebox" not in found["replay"]["candidates"]


@pytest.mark.skipif(os.name != "posix", reason="the size of a process is not known")
def test_a_peer_that_fails_in_the_memory_measurement(fake_peer, monkeypatch):
    fake_peer("cachebox", "def LRUCache(maxsize): raise MemoryError(maxsize)")
    monkeypatch.setitem(memory._FILLERS, "lru", always(["cachebox", subject()]))
    failures = Failures()
    assert memory.bytes_per_entry("lru", 250, failures).keys() == {subject()}
    assert failures == {"cachebox": "MemoryError: 1"}


def test_a_peer_that_turns_the_gil_on_fails(fake_peer, monkeypatch):
    fake_peer("cachebox", "import sys\nsys.modules['headgate.cli.bench.peers'].gil_enabled = lambda: True")
    monkeypatch.setattr(peers, "gil_enabled", always(False))
    with pytest.raises(RuntimeError, match="importing it enables the GIL"):
        peers.load("cachebox")


def test_a_module_with_the_name_of_a_peer_has_no_version(fake_peer, monkeypatch):
    fake_peer("uhashring", "")
    monkeypatch.setattr("importlib.metadata.distribution", unknown_distribution)
    assert peers.peer_versions()["uhashring"] == "of unknown version"


def unknown_distribution(name):
    raise PackageNotFoundError(name)


def test_headgate_itself_must_not_fail(monkeypatch, capsys):
    monkeypatch.setattr(child, "_PREAMBLE", "raise SystemExit('no');")
    assert main(["bench", *TINY, "--only", "ring"]) == 1
    assert capsys.readouterr().err == "headgate bench: a process that measures failed: no\n"


# replaying a log


def naive_lru_hits(keys, maxsize):
    cache, hits = OrderedDict(), 0
    for key in keys:
        hits += key in cache
        cache[key] = None
        cache.move_to_end(key)
        if len(cache) > maxsize:
            cache.popitem(last=False)
    return hits


def as_lines(keys):
    return gzip.compress("\n".join(f"user:{key}" for key in keys).encode())


def as_records(keys):
    return lzma.compress(struct.pack(f">{len(keys)}i", *keys))


@pytest.mark.parametrize("write", [as_lines, as_records])
@pytest.mark.parametrize(("size", "maxsize"), [("20", 20), ("25%", None)])
def test_every_cache_hits_as_a_naive_lru_does(tmp_path, write, size, maxsize):
    keys = workload.zipf_ranks(distinct=200, requests=3_000)
    distinct = len(set(keys))
    log = tmp_path / "keys.log"
    log.write_bytes(write(keys))
    found = json.loads(bench("--trace", str(log), "--trace-size", size, "--json", "-"))["replay"]
    assert (found["requests"], found["distinct"]) == (3_000, distinct)
    assert found["maxsize"] == (maxsize or round(distinct / 4))
    hits = {name: candidate["hits"] for name, candidate in found["candidates"].items()}
    assert hits.pop(lru.BASELINE) == 3_000 - distinct
    assert set(hits.values()) == {naive_lru_hits(keys, found["maxsize"])}


def test_replay_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    log = tmp_path / "keys.log"
    log.write_text("a\nb\na\na\n")
    text = bench("--trace", str(log), "--trace-size", "2")
    assert "keys.log: 4 requests for 2 distinct keys" in text
    assert "hits on 50.00% of the requests in keys.log" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_an_empty_log_is_an_error(tmp_path, capsys):
    log = tmp_path / "empty.log"
    log.touch()
    assert main(["bench", "--trace", str(log)]) == 1
    assert capsys.readouterr().err == f"headgate bench: {log} has no keys\n"


# the workload


def test_zipf_ranks_follow_the_law():
    ranks = workload.zipf_ranks(distinct=1_000, requests=200_000, skew=1.0)
    counts = Counter(ranks)
    harmonic = sum(1 / rank for rank in range(1, 1_001))
    assert set(counts) <= set(range(1_000))
    for rank in (0, 1, 9, 99):
        assert counts[rank] == pytest.approx(200_000 / harmonic / (rank + 1), rel=0.1)


def test_zipf_ranks_are_the_same_in_every_run():
    assert workload.zipf_ranks(100, 50) == workload.zipf_ranks(100, 50)
    assert workload.zipf_ranks(100, 50, seed=1) != workload.zipf_ranks(100, 50, seed=2)


@pytest.mark.parametrize("shape", workload.SHAPES.values())
def test_key_shapes_are_distinct(shape):
    assert len({shape(number) for number in range(50_000)}) == 50_000


def test_equal_keys_are_distinct_objects():
    keys = workload.request_keys(workload.user_id, 10, 1_000)
    assert len(set(keys)) == 10
    assert len(set(map(id, keys))) == 1_000


def test_textbook_lru():
    cache = textbook.LRU(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_textbook_ring_moves_only_what_it_must():
    ring = textbook.Ring(["a", "b", "c"], 40)
    before = {key: ring.get_node(key) for key in map(str, range(500))}
    ring.add_node("d")
    assert {ring.get_node(key) for key in before} == {"a", "b", "c", "d"}
    assert all(ring.get_node(key) in (node, "d") for key, node in before.items())
    ring.remove_node("d")
    assert {key: ring.get_node(key) for key in before} == before


def test_textbook_bucket(monkeypatch):
    now = 100.0
    monkeypatch.setattr(textbook.time, "monotonic", lambda: now)
    bucket = textbook.TokenBucket(2, 1)
    assert [bucket.consume() for _ in range(3)] == [True, True, False]
    now += 1
    assert [bucket.consume() for _ in range(2)] == [True, False]


# limiters and functions that remember


@pytest.mark.parametrize("candidate", limiter.limiters(), ids=lambda candidate: candidate.name)
def test_every_limiter_allows_all_keys_again_and_again(candidate):
    keys = [workload.user_id(number) for number in range(50)]
    target = limiter.filled(candidate, 100, keys)
    decisions = [bool(eval(candidate.decide, {"target": target, "key": key})) for key in keys * 3]
    assert decisions == [True] * 150


def test_the_shared_limiter_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(limiter, "MEMORY", tmp_path)
    shared = [candidate for candidate in limiter.limiters() if candidate.name == limiter.SHARED]
    assert all(candidate.make(10).allow("ann") for candidate in shared)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memoizer", memo.memoizers(), ids=lambda memoizer: memoizer.name)
def test_every_memoizer_remembers(memoizer):
    calls = []
    function = memoizer.make(10)(lambda key: calls.append(key) or key.upper())
    assert [function(key) for key in ("a", "b", "a", "b")] == ["A", "B", "A", "B"]
    assert calls == ["a", "b"]


# timing


def test_a_loop_goes_through_the_keys_as_often_as_it_takes(monkeypatch):
    now = 0

    def ticking_clock():
        nonlocal now
        now += 100
        return now

    monkeypatch.setattr(interleave, "clock", ticking_clock)
    loop = Loop("target.append(key)", [1, 2, 3, 4], list, trial_ns=1_000)
    loop()
    assert loop.target == [1, 2, 3, 4] * 2
    loop()
    assert loop.target == [1, 2, 3, 4] * 10


@pytest.mark.parametrize("count", [7, 8, 100])
def test_a_slow_loop_takes_the_keys_in_parts(monkeypatch, count):
    """A key takes 100 ns, and a trial at most 400."""
    monkeypatch.setattr(interleave, "_LONGEST_NS", 400)
    now = 0
    seen = []

    def slow(key):
        nonlocal now
        now += 100
        seen.append(key)

    monkeypatch.setattr(interleave, "clock", lambda: now)
    loop = Loop("target(key)", list(range(count)), always(slow), trial_ns=200)
    loop()
    seen.clear()
    while len(seen) < 2 * count:
        already = len(seen)
        assert loop() == 100
        assert 1 <= len(seen) - already <= 4
    assert seen == [*range(count)] * 2


def test_a_loop_counts_misses():
    loop = Loop("if target.get(key) is None: misses += 1", ["a", "b", "c"], always({"b": 1}))
    assert loop() > 0
    assert loop.misses == 2


def test_candidates_are_interleaved_and_the_empty_loop_is_subtracted():
    calls = []

    def trial(name, value):
        return lambda: calls.append(name) or value

    candidates = [
        Candidate("a", "peer", always(trial("a", 5.0))),
        Candidate("b", "peer", always(trial("b", 9.0))),
    ]
    comparison = Comparison(candidates, trial("-", 2.0))
    timings = interleave.compare(comparison, rounds=3, seconds=60)
    assert "".join(calls) == "ab-" + "ab-" + "b-a" + "-ab"
    assert [timing.median for timing in timings] == [3.0, 7.0]


def test_a_comparison_out_of_time_still_runs_the_fewest_rounds():
    comparison = Comparison([Candidate("a", "peer", always(lambda: 1.0))])
    assert len(interleave.compare(comparison, rounds=50, seconds=0)[0].samples) == 3


def test_ratios_are_paired_by_round():
    slow = Timing("slow", "peer", [20.0, 40.0, 60.0])
    fast = Timing("fast", "peer", [10.0, 20.0, 30.0])
    assert slow.over(fast) == Ratio(2.0, 2.0, 2.0)
    assert slow.spread == pytest.approx(0.25)


@pytest.mark.parametrize(("samples", "spread"), [
    ([10.0], "-"), ([9.0, 10.0, 11.0], "±5%"), ([1.0, 10.0, 20.8], "±50%"), ([1.0, 10.0, 900.0], ">99%"),
])
def test_a_spread_takes_four_characters_at_most(samples, spread):
    timing = Timing("slow", "peer", samples)
    cell = show._timing_cell(timing, timing.over(timing), 1.0, reference=True)
    assert cell.split() == ["10.0", spread, "1.00x"]
    assert len(cell) == len("10.0 ±10%  1.00x ")


def test_noise_wider_than_the_difference():
    assert Ratio(1.02, 0.98, 1.05).straddles(1)
    assert not Ratio(1.02, 1.01, 1.05).straddles(1)


@pytest.mark.parametrize(("kind", "said"), [("peer", "0 of 1"), ("pure", "1 of 1"), ("baseline", "1 of 1")])
def test_neither_a_twin_nor_a_baseline_is_a_peer(kind, said):
    timings = [Timing(subject(), "compiled", [2.0] * 3), Timing("other", kind, [1.0] * 3)]
    timings.append(Timing("headgate pure", "pure", [9.0] * 3))
    result = Result(Benchmark("lru.get_hit", "get", "", dict), timings, "")
    found = report.Report(QUICK, {}, {"lru.get_hit": result})
    assert f"is no slower than any peer in {said} benchmarks" in report.summary(found)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (budgets.Verdict("x", 1.0, 0.9), "met"),
        (budgets.Verdict("x", 1.0, 1.1), "missed"),
        (budgets.Verdict("x", 1.0, 1.1, straddled=True), "missed, within noise"),
    ],
)
def test_verdicts(verdict, words):
    assert show.budget_table([verdict]).rows[0].cells[-1] == words
