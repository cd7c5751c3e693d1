"""``headgate ring``: nodes from every kind of file, loads, changes, and the report on them."""

import io
import json
import re
import sys
from collections import Counter
from copy import copy
from itertools import cycle
from xml.etree import ElementTree

import pytest

from headgate import HashRing, Maglev, Rendezvous
from headgate.cli import main
from headgate.cli.errors import CommandError
from headgate.cli.ring.analysis import analyse, sample_keys
from headgate.cli.ring.names import short_names
from headgate.cli.ring.nodes import read_nodes, split_weight
from headgate.cli.ring.plot import draw

SAMPLE = ["--sample", "5000"]


@pytest.fixture
def nodes(tmp_path):
    path = tmp_path / "nodes.txt"
    path.write_text("a\nb 2\nc\nd\n")
    return path


def ring(capsys, nodes, *arguments):
    sample = [] if "--keys" in arguments else SAMPLE
    assert main(["ring", str(nodes), *sample, *arguments]) == 0
    return capsys.readouterr().out


def ring_json(capsys, nodes, *arguments):
    return json.loads(ring(capsys, nodes, *arguments, "--json", "-"))


# nodes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nodes", "# fleet\na\n\nb  2.5 # big\n"),
        ("nodes.json", '["a", {"node": "b", "weight": 2.5}]'),
        ("nodes.json", '[{"node": "a"}, {"node": "b", "weight": "2.5"}]'),
        ("nodes.json", ' {"a": 1, "b": 2.5}'),
        ("nodes.yaml", "- a\n- node: b\n  weight: 2.5\n"),
        ("nodes.yml", "a: 1\nb: 2.5\n"),
    ],
)
def test_nodes_from_a_file(tmp_path, name, content):
    if ".y" in name:
        pytest.importorskip("yaml", reason="the cli extra is not installed")
    path = tmp_path / name
    path.write_text(content)
    assert read_nodes(path) == {"a": 1, "b": 2.5}


@pytest.mark.parametrize(("name", "content"), [
    ("nodes", "1\n2 256\n"),
    ("nodes.json", '[1, {"node": 2, "weight": 256}]'),
    ("nodes.yaml", "1: 1\n2: 256\n"),
])
def test_nodes_may_be_numbers(tmp_path, name, content):
    """As the ids of HAProxy's servers are."""
    if ".y" in name:
        pytest.importorskip("yaml", reason="the cli extra is not installed")
    path = tmp_path / name
    path.write_text(content)
    assert read_nodes(path) == {"1": 1, "2": 256}


@pytest.mark.parametrize(("reader", "content"), [
    ("json", "a:80\nb:80 2 # b: twice\n"),
    ("json", '["a:80", {"node": "b:80", "weight": 2}]'),
    ("yaml", "a:80: 1\nb:80: 2\n"),
    ("yaml", "# fleet\n- a:80\n- node: b:80\n  weight: 2\n"),
    ("yaml", "---\n{'a:80': 1, 'b:80': 2}\n"),
])
def test_nodes_from_standard_input(monkeypatch, capsys, reader, content):
    pytest.importorskip(reader, reason="the cli extra is not installed")
    monkeypatch.setattr("sys.stdin", io.StringIO(content))
    nodes = ring_json(capsys, "-")["nodes"]
    assert {node["node"]: node["weight"] for node in nodes} == {"a:80": 1, "b:80": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nodes", "", "has no nodes"),
        ("nodes", "a\na 2\n", "duplicate name 'a'"),
        ("nodes", "a heavy\n", "line 1: expected a positive weight, got 'heavy'"),
        ("nodes", "a 1 2\n", "line 1: expected a node and optionally its weight"),
        ("nodes", '{"a": 1, "a": 2}', "duplicate name 'a'"),
        ("nodes", '{"a": -1}', r"\$\.a: expected a positive weight, got -1"),
        ("nodes", '{"a": true}', r"\$\.a: expected a positive weight, got True"),
        ("nodes", '["a", 7.5]', r"\$\[1\]: expected the name of a node, got 7\.5"),
        ("nodes", '[{"node": "a", "wait": 2}]', r"\$\[0\]: expected the name of a node"),
        ("nodes", '["a", "b"', "cannot read nodes"),
        ("nodes.json", '"a"', r"\$: expected a list or a mapping of nodes, got 'a'"),
        ("nodes.yaml", "a: 1\na: 2\n", "duplicate name 'a'"),
        ("nodes.yaml", "no: 1\n", r"\$: expected the name of a node, got False"),
        ("nodes.yaml", "a: [\n", "cannot read nodes"),
        ("nodes.yaml", "7\n", "expected a list or a mapping of nodes, got 7"),
    ],
)
def test_wrong_nodes_are_named(tmp_path, name, content, message):
    if ".y" in name:
        pytest.importorskip("yaml", reason="the cli extra is not installed")
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(CommandError, match=message):
        read_nodes(path)


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["ring", str(tmp_path / "absent")]) == 1
    assert "cannot read nodes from" in capsys.readouterr().err


def test_weights_on_the_command_line():
    assert split_weight("cache-1:11211") == ("cache-1:11211", 1)
    assert split_weight("cache=1=0.5") == ("cache=1", 0.5)


# loads and changes


def test_loads_are_those_of_the_ring(nodes, capsys):
    found = ring_json(capsys, nodes)
    expected = HashRing({"a": 1, "b": 2, "c": 1, "d": 1})
    assert (found["schema"], found["version"]) == ("headgate.ring", 1)
    assert (found["scheme"], found["replicas"], found["requests"]) == ("headgate", 150, 5_000)
    assert found["change"] is None
    for load in found["nodes"]:
        assert load["owned"] == pytest.approx(expected.ownership()[load["node"]])
        assert load["share"] == pytest.approx(load["owned"], rel=0.15)
        assert load["ideal"] == (0.4 if load["node"] == "b" else 0.2)
    assert sum(load["requests"] for load in found["nodes"]) == 5_000


def test_keys_from_a_log_count_as_often_as_they_come(nodes, tmp_path, capsys):
    log = tmp_path / "keys.log"
    log.write_text("hot\n" * 99 + "cold\n")
    found = ring_json(capsys, nodes, "--keys", str(log))
    owner = HashRing({"a": 1, "b": 2, "c": 1, "d": 1}).get_node("hot")
    requests = {load["node"]: load["requests"] for load in found["nodes"]}
    assert requests[owner] >= 99
    assert sum(requests.values()) == found["requests"] == 100


def test_a_new_node_takes_its_share_from_all_and_nobody_else_moves(nodes, capsys):
    change = ring_json(capsys, nodes, "--add", "e=5")["change"]
    assert {move["to"] for move in change["moves"]} == {"e"}
    assert {move["from"] for move in change["moves"]} == {"a", "b", "c", "d"}
    assert change["minimum"] == pytest.approx(0.5)
    assert change["moved"] == pytest.approx(sum(move["share"] for move in change["moves"]))
    assert change["moved_requests"] / 5_000 == pytest.approx(change["moved"], abs=0.03)
    new = next(load for load in change["nodes"] if load["node"] == "e")
    assert new["owned"] == pytest.approx(change["moved"])


def test_removed_and_reweighted_nodes(nodes, capsys):
    change = ring_json(capsys, nodes, "--remove", "a", "--weight", "b=1", "--weight", "c=4")["change"]
    assert {load["node"]: load["weight"] for load in change["nodes"]} == {"b": 1, "c": 4, "d": 1}
    assert change["minimum"] == pytest.approx(0.2 + (0.4 - 1 / 6) + (0.2 - 1 / 6))
    assert {move["from"] for move in change["moves"]} >= {"a", "b"}


@pytest.mark.parametrize("scheme", ["envoy", "haproxy", "libmemcached", "nginx", "twemproxy", "uhashring"])
def test_the_schemes_of_other_programs(tmp_path, capsys, scheme):
    path = tmp_path / "nodes"
    path.write_text("1\n2 2\n3 1.0\n")
    found = ring_json(capsys, path, "--scheme", scheme, "--add", "4")
    expected = HashRing({1: 1, 2: 2, 3: 1}, scheme=scheme, node_key=int if scheme == "haproxy" else str)
    assert found["scheme"] == scheme
    assert [load["owned"] for load in found["nodes"]] == list(expected.ownership().values())
    assert "--replicas" not in found["summary"]


def test_rendezvous_and_maglev(nodes, capsys):
    weights = {"a": 1, "b": 2, "c": 1, "d": 1}
    for options, expected, settings in [
        (["--placement", "rendezvous"], Rendezvous(weights), ("rendezvous", "headgate", None, None)),
        (["--placement", "maglev", "--size", "1009"], Maglev(weights, 1009), ("maglev", None, None, 1009)),
    ]:
        found = ring_json(capsys, nodes, *options, "--add", "e")
        assert tuple(found[name] for name in ("placement", "scheme", "replicas", "size")) == settings
        assert {load["node"]: load["owned"] for load in found["nodes"]} == expected.ownership()
        assert found["change"]["exact"]
        assert found["change"]["moved"] == pytest.approx(sum(
            expected.diff(type(expected)({**weights, "e": 1}, *([1009] if settings[3] else []))).values()))
    nodes.write_text("a\nb\n")
    found = ring_json(capsys, nodes, "--placement", "rendezvous", "--scheme", "pymemcache")
    assert (found["placement"], found["scheme"]) == ("rendezvous", "pymemcache")


@pytest.mark.parametrize(("old", "new", "exact"), [
    (["--scheme", "twemproxy"], ["--to-scheme", "nginx"], False),
    (["--scheme", "nginx"], ["--to-scheme", "headgate", "--add", "e"], False),
    ([], ["--to-placement", "rendezvous"], False),
    (["--placement", "maglev"], ["--to-placement", "ring", "--to-replicas", "40"], False),
    (["--placement", "maglev"], ["--to-size", "1009"], False),
    (["--replicas", "40"], ["--to-replicas", "160"], True),
    (["--replicas", "40"], ["--to-scheme", "nginx"], False),
])
def test_a_migration_between_schemes(nodes, capsys, old, new, exact):
    found = ring_json(capsys, nodes, *old, *new)
    change = found["change"]
    assert change["exact"] is exact
    if not exact:
        assert change["moved"] == pytest.approx(change["moved_requests"] / found["requests"])
    assert sum(move["share"] for move in change["moves"]) == pytest.approx(change["moved"])
    assert 0.1 < change["moved"] < 0.9
    text = ring(capsys, nodes, *old, *new)
    assert ("about" in text) is not exact
    assert "The same after the change (nodes: " in text


def test_moves_between_schemes_are_those_of_the_requests(nodes, capsys):
    change = ring_json(capsys, nodes, "--scheme", "twemproxy", "--to-scheme", "nginx")["change"]
    weights = {"a": 1, "b": 2, "c": 1, "d": 1}
    old, new = (HashRing(weights, scheme=scheme) for scheme in ("twemproxy", "nginx"))
    moves = Counter((old.get_node(key), new.get_node(key)) for key in sample_keys(5_000))
    found = {(move["from"], move["to"]): move["share"] for move in change["moves"]}
    assert found == {move: count / 5_000 for move, count in moves.items() if move[0] != move[1]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--placement", "maglev", "--scheme", "x"], "--scheme is for ring or rendezvous, not for maglev"),
        (["--placement", "rendezvous", "--replicas", "9"], "--replicas is for ring, not for rendezvous"),
        (["--size", "1009"], "--size is for maglev, not for ring"),
        (["--to-size", "1009"], "--size is for maglev, not for ring"),
        (["--placement", "maglev", "--size", "10"], "size must be a prime"),
        (["--to-scheme", "nonsense"], "nonsense"),
        (["--replicas", "7", "--scheme", "nginx"], "--replicas is for the scheme headgate, not for nginx"),
        (["--to-replicas", "7", "--to-scheme", "nginx"], "--replicas is for the scheme headgate, not"),
        (["--scheme", "nginx", "--to-replicas", "7"], "--replicas is for the scheme headgate, not for nginx"),
        (["--keys", "log"], "--sample has no effect with --keys"),
        (["--keys-format", "lines"], "--keys-format needs --keys"),
        (["--markdown", "--json", "-"], "--markdown has no effect with --json -"),
        (["--remove", "z"], "z"),
        (["--scheme", "haproxy"], "node must be a server id under the scheme haproxy, got 'a'"),
        (["--add", "a"], "a"),
        (["--add", "=3"], "=3: expected the name of a node, got ''"),
        (["--weight", "a"], "a: expected NODE=WEIGHT"),
        (["--json", "."], "cannot write .: "),
        (["--weight", "a=none"], "a=none: expected a positive weight, got 'none'"),
        (["--scheme", "nonsense"], "nonsense"),
        (["--remove", "a", "--remove", "b", "--remove", "c", "--remove", "d"], "leaves no node"),
    ],
)
def test_wrong_changes_are_named(nodes, capsys, arguments, message):
    assert main(["ring", str(nodes), *SAMPLE, *arguments]) == 1
    assert re.match(rf"headgate ring: .*{re.escape(message)}", capsys.readouterr().err)


def test_a_weight_too_small_for_a_point_is_reported(tmp_path, capsys):
    path = tmp_path / "nodes"
    path.write_text("heavy 5000\nlight\n")
    assert main(["ring", str(path), *SAMPLE, "--scheme", "libmemcached"]) == 0
    assert capsys.readouterr().err == (
        "headgate ring: weight 1 of 5001 in total is too small for a point under the scheme libmemcached: "
        "the node has no keys\n")


def test_a_log_without_keys(nodes, tmp_path, capsys):
    log = tmp_path / "keys.log"
    log.touch()
    assert main(["ring", str(nodes), "--keys", str(log)]) == 1
    assert capsys.readouterr().err == f"headgate ring: {log} has no keys\n"


# the report


@pytest.mark.parametrize("width", [40, 56, 80])
def test_no_name_is_cut(tmp_path, monkeypatch, capsys, width):
    rich = pytest.importorskip("headgate.cli.tables").Rich
    pytest.importorskip("rich", reason="the cli extra is not installed")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("headgate.cli.outputs.printer", lambda: rich(sys.stdout))
    path = tmp_path / "nodes"
    names = [f"cache-{number:02}:11211" for number in range(1, 5)]
    path.write_text("\n".join(names))
    text = ring(capsys, path, "--add", "cache-05:11211")
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert all(text.count(f"\n{name} ") >= 3 for name in names)


@pytest.mark.parametrize("count", [1, 4, 200])
def test_the_text_fits_80_columns(tmp_path, monkeypatch, capsys, count):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "nodes"
    names = [f"memcached-in-the-cellar-{number}:11211" for number in range(count)]
    weighted = zip(names, cycle((1, 2, 0.5)), strict=False)
    path.write_text("\n".join(f"{name} {weight}" for name, weight in weighted))
    text = ring(capsys, path, "--add", "one-more")
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"memcach~\S+:11211 ", text)


LONG_NAMES = [f"cache-in-the-cellar-{number:03}.eu-central-1.example.com:11211" for number in range(30)]


def test_long_names_with_one_end_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "nodes"
    path.write_text("\n".join(LONG_NAMES))
    text = ring(capsys, path, "--add", "one-more")
    assert len(set(re.findall(r"^cache-i~-cellar-\d{3}~", text, re.MULTILINE))) > 20
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("names", "shown"), [
    (["a" * 20, "b"], ["a" * 20, "b"]),
    (["a-cache-in-the-cellar-1", "b"], ["a-cache~the-cellar-1", "b"]),
    (["x" * 20 + ".eu", "y" * 20 + ".eu"], ["xxxxxxx~xxxxxxxxx.eu", "yyyyyyy~yyyyyyyyy.eu"]),
    (["a-cache-11.eu.example.com:80", "a-cache-21.eu.example.com:80"], ["a-cache-11~", "a-cache-21~"]),
    ([f"the-same-head-{number}-of-all-in-{place}" for number in "12" for place in ("east", "west")], None),
    (["same-head-1-same-tail-of-all", "same-head-2-same-tail-of-all"], ["same-head-1~", "same-head-2~"]),
])
def test_short_names(names, shown):
    found = short_names(names)
    assert list(found.values()) == (shown or names)
    assert len(set(found.values())) == len(names)


def test_the_matrix_in_words(nodes, capsys):
    lines = ring(capsys, nodes, "--add", "e").splitlines()
    start = lines.index("Moves, in shares of all keys")
    assert lines[start + 2].split() == ["from", "stays", "e"]
    assert [line.split()[0] for line in lines[start + 4 : start + 8]] == ["a", "b", "c", "d"]


def test_many_moves_are_listed_by_size(tmp_path, capsys):
    path = tmp_path / "nodes"
    path.write_text("\n".join(f"node-{number}" for number in range(50)))
    lines = ring(capsys, path, "--remove", "node-7").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("Moves: the 24 largest of"))
    shares = [float(line.split()[2].rstrip("%")) for line in lines[start + 3 : start + 27]]
    assert shares == sorted(shares, reverse=True)


def test_the_sentence_names_the_fullest_and_what_would_help(nodes, capsys):
    found = ring_json(capsys, nodes, "--replicas", "10")
    fullest = max(found["nodes"], key=lambda load: load["relative_load"])
    named = f"{fullest['node']} has the highest load, {fullest['relative_load']:.2f} times its ideal share"
    assert found["summary"].startswith(named)
    assert "with --replicas 40 no node would own more than" in found["summary"]


def test_markdown(nodes, capsys):
    nodes.write_text("a|b\nc\n")
    text = ring(capsys, nodes, "--markdown", "--add", "d")
    assert "|---|---:|" in text
    assert r"| a\|b |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("change", [[], ["--add", "e"]])
def test_plot(nodes, tmp_path, capsys, change):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    path = tmp_path / "ring.svg"
    ring(capsys, nodes, *change, "--plot", str(path))
    texts = [text.strip() for text in ElementTree.parse(path).getroot().itertext()]
    assert {"a", "b", "c", "d"} <= set(texts)
    assert ("e" in texts) == bool(change)


def test_the_colours_of_the_moves_start_at_none(nodes):
    figures = pytest.importorskip("matplotlib.figure", reason="the cli extra is not installed")
    ring = HashRing(read_nodes(nodes))
    changed = HashRing({**ring.weights, "e": 1})
    figure = figures.Figure()
    draw(analyse(ring, changed, sample_keys(1_000)), figure)
    (image,) = [image for axes in figure.axes for image in axes.images]
    assert image.get_clim()[0] == 0


def test_a_picture_of_a_thousand_nodes_names_the_extremes(nodes):
    figures = pytest.importorskip("matplotlib.figure", reason="the cli extra is not installed")
    ring = HashRing([f"cache-{number:04}.example.com:11211" for number in range(1_000)])
    changed = copy(ring)
    changed.remove_node("cache-0007.example.com:11211")
    figure = figures.Figure()
    found = analyse(ring, changed, sample_keys(20_000))
    draw(found, figure)
    assert figure.get_size_inches()[1] < 16
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [len(axes.get_yticks()) for axes in panels] == [40, 40, 1]
    fullest = max(found.loads, key=lambda load: load.relative_load).node.removesuffix(".example.com:11211")
    assert panels[0].get_yticklabels()[0].get_text() == f"{fullest}~"
    assert panels[0].get_title(loc="left").endswith("20 most, 20 least loaded of 1,000")
    assert panels[2].get_xlabel().startswith("to: the first 24 of ")
    spread = [axes for axes in figure.axes if axes.get_ylabel() == "nodes"]
    assert [sum(bar.get_height() for bar in axes.patches) for axes in spread] == [1_000, 999]


def test_small_shares_have_more_digits(tmp_path, capsys):
    path = tmp_path / "nodes"
    path.write_text("\n".join(f"n{number}" for number in range(1_000)))
    assert re.search(r"^n\d+ +1  0\.1000%  0\.\d{4}%", ring(capsys, path), re.MULTILINE)


def test_a_picture_of_no_known_format(nodes, capsys):
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    assert main(["ring", str(nodes), *SAMPLE, "--plot", "load.doc"]) == 1
    report = capsys.readouterr()
    assert report.out == ""
    assert report.err.startswith("headgate ring: --plot must end in one of ")
