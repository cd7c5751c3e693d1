"""``headgate slo``: what is shown, in every width and form, and what is refused."""

import json

import pytest

from headgate import k_of_n, nines
from headgate.cli import main
from headgate.cli.slo.analysis import level_of
from headgate.cli.slo.show import written_percent, written_time


def shown(capsys, *arguments):
    assert main(["slo", *arguments]) == 0
    found = capsys.readouterr()
    assert not found.err
    return found.out


def cells(text):
    """The cells of the lines of text, by their first one."""
    rows = [line.split("  ") for line in text.splitlines()]
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows if len(row) > 1}


@pytest.mark.parametrize(("target", "year"), [
    ("99", "87.7 h"), ("99.9", "8.8 h"), ("99.99", "52.6 min"), ("99.999", "5.3 min"), ("99.95%", "4.4 h"),
])
def test_downtime(capsys, target, year):
    assert cells(shown(capsys, target))["year"] == [year]


def test_alerts_are_those_of_the_workbook(capsys):
    out = shown(capsys, "99.9")
    rows = [line.split() for line in out.splitlines() if line.startswith(("page", "ticket"))]
    assert rows == [
        ["page", "1", "h", "5", "min", "14.4", "1.44%", "2%"],
        ["page", "6", "h", "30", "min", "6", "0.6%", "5%"],
        ["ticket", "3", "d", "6", "h", "1", "0.1%", "10%"],
    ]


def test_what_replicas_buy(capsys):
    found = cells(shown(capsys, "--replicas", "3", "--each", "99.5"))
    assert found["1 of 3"] == ["99.9999875%", "6.9", "3.9 s"]
    assert found["2 of 3"] == ["99.992525%", "4.13", "39.3 min"]
    assert found["3 of 3"] == ["98.5074875%", "1.83", "5.5 days"]


def test_how_many_replicas_are_enough(capsys):
    found = cells(shown(capsys, "99.99"))
    assert {each: found[each][0] for each in ("90%", "95%", "99%", "99.5%", "99.9%")} == {
        "90%": "4", "95%": "4", "99%": "2", "99.5%": "2", "99.9%": "2"}


def test_replicas_and_a_target(capsys):
    found = cells(shown(capsys, "99.995", "--replicas", "3", "--each", "99.5"))
    assert [found[f"{needed} of 3"][-1] for needed in (1, 2, 3)] == ["yes", "no", "no"]


@pytest.mark.parametrize("columns", [60, 100, 200])
@pytest.mark.parametrize("arguments", [
    ["99.95"], ["99.999", "--window", "7 d"], ["99.99", "--replicas", "12", "--each", "99.5"], ["60"],
])
def test_every_width(capsys, monkeypatch, columns, arguments):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = shown(capsys, *arguments)
    assert max(map(len, out.splitlines())) <= columns
    assert "Downtime of" in out


def test_windows_scale_the_alerts(capsys):
    out = shown(capsys, "99.9", "--window", "90 d")
    assert [line.split()[1:5] for line in out.splitlines() if line.startswith("page")] == [
        ["3", "h", "15", "min"], ["18", "h", "90", "min"]]


def test_a_target_without_alerts(capsys):
    out = " ".join(shown(capsys, "90").split())
    assert "No default alerts: target must be more than 93.06 for a burn of 14.4" in out


def test_json(capsys, tmp_path):
    found = json.loads(shown(capsys, "99.9", "--replicas", "3", "--each", "99.5", "--json", "-"))
    assert (found["schema"], found["version"]) == ("headgate.slo", 1)
    assert (found["target_percent"], found["nines"], found["window_seconds"]) == (99.9, 3.0, 2_592_000)
    assert found["downtime_seconds"]["year"] == pytest.approx(31_557.6)
    assert [(rule["burn"], rule["long"], rule["short"], rule["severity"]) for rule in found["alerts"]] == [
        (14.4, 3600, 300, "page"), (6, 21_600, 1800, "page"), (1, 259_200, 21_600, "ticket")]
    assert [row["availability"] for row in found["replicas"]] == [k_of_n(0.995, k, 3) for k in (1, 2, 3)]
    file = tmp_path / "slo.json"
    assert "Downtime" in shown(capsys, "99.9", "--json", str(file))
    assert json.loads(file.read_text())["nines"] == 3.0


def test_no_infinity_in_json(capsys):
    """A hundred replicas are available to all digits of a float."""
    found = json.loads(shown(capsys, "--replicas", "100", "--each", "99.9", "--json", "-"))
    assert found["replicas"][0]["nines"] is None and found["target_percent"] is None


def test_markdown(capsys):
    out = shown(capsys, "99.9", "--replicas", "2", "--each", "99", "--markdown")
    assert "| year | 8.8 h |" in out and "| **1 of 2** | **99.99%** | **4** | **52.6 min** | **yes** |" in out


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "TARGET, or --replicas with --each, is needed"),
    (["--replicas", "3"], "TARGET, or --replicas with --each, is needed"),
    (["99", "--replicas", "3"], "--replicas and --each need each other"),
    (["99", "--each", "99"], "--replicas and --each need each other"),
    (["--replicas", "101", "--each", "99"], "--replicas must be at most 100, got 101"),
    (["99", "--window", "1 h"], "window must be from \"12 h\" to \"3660 d\", got '1 h'"),
    (["99", "--markdown", "--json", "-"], "--markdown has no effect with --json -"),
])
def test_what_is_refused(capsys, arguments, message):
    assert main(["slo", *arguments]) == 1
    assert capsys.readouterr().err == f"headgate slo: {message}\n"


@pytest.mark.parametrize("arguments", [["100"], ["0"], ["x"], ["nan"], ["99", "--window", "soon"]])
def test_bad_options(capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        main(["slo", *arguments])
    assert raised.value.code == 2
    assert "headgate slo: error: argument" in capsys.readouterr().err


def test_levels():
    level = level_of(0.999)
    assert (level.availability, level.nines, round(level.downtime)) == (0.999, nines(0.999), 31_558)
    assert written_percent(1.0) == "100%" and written_time(59.9) == "59.9 s"
