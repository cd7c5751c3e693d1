"""The command itself, and what its subcommands share."""

import argparse
import gzip
import io
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

import headgate
from headgate.cli import doctor, keylog, main, options, selfcheck, sizes, tables
from headgate.cli.errors import CommandError
from headgate.cli.progress import Progress

PACKAGE = Path(headgate.__file__).parent


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(*arguments, **environment):
    command = [sys.executable, "-m", "headgate", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


def test_the_module_is_the_command():
    assert run("--version").stdout == f"headgate {headgate.__version__}\n"


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def parsers(parser):
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


@pytest.mark.parametrize("parser", list(parsers(headgate.cli._parser())), ids=lambda parser: parser.prog)
def test_every_command_and_option_says_what_it_is(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert re.fullmatch(r"[A-Z].*\.", parser.description)
    assert "`" not in parser.format_help()
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert (action.help or "(")[0] != "(", action.dest


def test_an_interrupt_is_not_a_traceback(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "diagnose", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "headgate doctor: interrupted\n"
    monkeypatch.setattr(headgate.cli, "import_module", lambda name: interrupt())
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "headgate: interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="only POSIX reports a pipe without a reader by errno")
def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "headgate", "doctor"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"]])
def test_a_full_disk_is_a_message(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "headgate", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == "headgate doctor: [Errno 28] No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("arguments, message", [
    (["slo", "x"], "TARGET: must be a number, got x"),
    (["slo", "0.999"], "TARGET: must be in percent, as 99.9, got 0.999"),
    (["slo", "99", "--window", "soon"],
     "--window: must be a duration such as \"30 d\" or \"5 min\", got 'soon'"),
    (["slo", "--each", "99", "--replicas", "2.5"], "--replicas: must be a whole number, got 2.5"),
    (["top", "--every", "often"], "--every: must be a number, got often"),
])
def test_an_option_is_refused_without_names_of_the_code(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.endswith(f"error: argument {message}\n")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf"])
def test_a_scale_is_positive_and_finite(text):
    with pytest.raises(ArgumentTypeError, match=f"must be positive and finite, got {text}"):
        options.positive_float(text)


# doctor


@pytest.mark.parametrize("wish", ["0", "1"])
def test_doctor_says_which_twin_is_active(wish, both_twins):
    done = run("doctor", "--json", HEADGATE_PURE=wish)
    findings = json.loads(done.stdout)
    assert done.returncode == 0
    assert findings["backend"] == ("compiled" if wish == "0" else "pure")
    assert findings["backend_reason"] == f"HEADGATE_PURE={wish}"
    assert findings["HEADGATE_PURE"] == wish
    assert findings["problems"] == []
    assert findings["build"]["flags"]
    assert {"hashing", "cache", "placement", "bucket"} <= findings["modules"].keys()


def test_doctor_in_words(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["headgate", headgate.__version__]
    assert any(line.startswith("backend") and headgate.backend in line for line in lines)
    assert lines[-1].startswith("self-check")


def test_doctor_without_a_compiled_twin(tmp_path):
    binaries = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "headgate", ignore=binaries)
    required = run("doctor", PYTHONPATH=str(tmp_path), HEADGATE_PURE="0")
    assert required.returncode != 0
    assert required.stderr.endswith("HEADGATE_PURE=0 requires the compiled twin, which is not installed\n")
    fallen_back = run("doctor", "--json", PYTHONPATH=str(tmp_path), HEADGATE_PURE="")
    findings = json.loads(fallen_back.stdout)
    assert (findings["backend"], findings["build"]) == ("pure", None)
    assert findings["backend_reason"] == "the compiled twin is not installed"


def test_doctor_fails_when_the_twins_disagree(both_twins, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "backend", "compiled")
    monkeypatch.setattr(selfcheck, "_twin", lambda name: lambda module: name)
    monkeypatch.setattr(selfcheck, "_CHECKS", (lambda load: load("hashing"),))
    assert main(["doctor"]) == 1
    assert "'compiled' compiled, 'pure' pure" in capsys.readouterr().err


# key logs and sizes


def zstd_compress(data):
    return pytest.importorskip("zstandard", reason="the cli extra is not installed").compress(data)


COMPRESSIONS = [bytes, gzip.compress, lzma.compress, zstd_compress]


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_lines_are_keys(tmp_path, compress):
    log = tmp_path / "keys.log"
    log.write_bytes(compress("user:1\r\n\n/path?q=é\nuser:1\nthe last".encode()))
    assert list(keylog.read_keys(log)) == ["user:1", "/path?q=é", "user:1", "the last"]


def test_long_lines_and_many_lines(tmp_path):
    keys = ["a" * 3_000_000, *(f"user:{number}" for number in range(300_000)), "b" * 3_000_000]
    log = tmp_path / "keys.log"
    log.write_text("\n".join(keys))
    assert list(keylog.read_keys(log)) == keys


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_records_are_keys(tmp_path, compress):
    keys = [1, 70_000, -1, 2**31 - 1, *range(100_000)]
    log = tmp_path / "keys.bin"
    log.write_bytes(compress(struct.pack(f">{len(keys)}i", *keys)))
    assert list(keylog.read_keys(log)) == keys


def test_the_format_can_be_forced(tmp_path):
    log = tmp_path / "keys"
    log.write_bytes(b"abcdefgh")
    assert list(keylog.read_keys(log)) == ["abcdefgh"]
    assert list(keylog.read_keys(log, "int32be")) == [0x61626364, 0x65666768]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        (b"\0\0\0\1\0", "auto", "ends in the middle of a 32-bit record"),
        (gzip.compress(b"user:1\n" * 1000, mtime=0)[:-20], "auto", "cannot read"),
        (lzma.compress(b"user:1\n" * 1000)[:-20], "auto", "cannot read"),
    ],
)
def test_a_broken_log_is_named(tmp_path, content, form, message):
    log = tmp_path / "broken.log"
    log.write_bytes(content)
    with pytest.raises(CommandError, match=message) as error:
        list(keylog.read_keys(log, form))
    assert str(log) in str(error.value)


def test_a_broken_zstd_log_is_named(tmp_path):
    log = tmp_path / "broken.zst"
    log.write_bytes(zstd_compress(b"user:1")[:4] + b"nonsense")
    with pytest.raises(CommandError, match="cannot read"):
        list(keylog.read_keys(log))


def test_a_zstd_log_without_zstandard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("headgate.cli.errors.find_spec", lambda name: None)
    log = tmp_path / "keys.zst"
    log.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(CommandError, match=r"a zstd log needs zstandard: pip install 'headgate\[cli\]'"):
        list(keylog.read_keys(log))


def test_a_missing_log_is_named(tmp_path):
    with pytest.raises(CommandError, match=r"cannot read .*absent\.log"):
        list(keylog.read_keys(tmp_path / "absent.log"))


@pytest.mark.parametrize(
    ("text", "entries"), [("7", 7), ("10k", 10_000), ("1.5M", 1_500_000), ("5%", 50), ("0.01%", 1)]
)
def test_sizes(text, entries):
    assert sizes.entries(sizes.size(text), 1_000) == entries


@pytest.mark.parametrize("text", ["", "0", "-5", "ten", "5%%", "1g", "0%"])
def test_what_is_no_size(text):
    with pytest.raises(ArgumentTypeError, match="a size is a positive number"):
        sizes.size(text)


# tables and progress

TABLE = tables.Table(
    "Title",
    ["", "first\nns", "second"],
    [tables.Row(["a row", "1.0", "-"], True), tables.Row(["b", "10.0", "x"])],
)


def test_plain_table():
    assert tables.aligned(TABLE) == [
        "       first",
        "          ns  second",
        "--------------------",
        "a row    1.0       -",
        "b       10.0       x",
    ]


def test_columns_of_text_are_aligned_left():
    two = tables.Table("Title", ["a", "text", "n"], [tables.Row(["x", "long text", "10"])], texts=2)
    assert tables.aligned(two)[0] == "a  text        n"
    out = io.StringIO()
    tables.Markdown(out).table(two)
    assert "|---|---|---:|\n" in out.getvalue()


def test_markdown_table():
    out = io.StringIO()
    tables.Markdown(out).table(TABLE)
    assert out.getvalue().split("\n\n")[1:] == [
        "|  | first<br>ns | second |\n|---|---:|---:|\n| **a row** | **1.0** | **-** |\n| b | 10.0 | x |\n"
    ]


def test_prose_is_wrapped_to_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = io.StringIO()
    tables.Plain(out).text("word " * 30)
    assert max(map(len, out.getvalue().splitlines())) <= 40


def test_rich_table(monkeypatch):
    pytest.importorskip("rich", reason="the cli extra is not installed")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal()
    tables.printer(coloured).table(TABLE)
    monkeypatch.setenv("NO_COLOR", "1")
    bare = Terminal()
    tables.printer(bare).table(TABLE)
    assert "36m" in coloured.getvalue()
    assert "36m" not in bare.getvalue()
    assert "a row" in bare.getvalue()


def test_progress_is_silent_where_nobody_looks(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(2) as progress:
        progress.step("one")
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("rich", [True, False])
def test_progress_on_a_terminal(monkeypatch, rich):
    if rich:
        pytest.importorskip("rich", reason="the cli extra is not installed")
    else:
        monkeypatch.setattr("headgate.cli.progress.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(2) as progress:
        progress.step("one")
        progress.step("two")
        with progress.hidden():
            sys.stderr.write("a table\n")
        progress.step("three")
    assert "two" in sys.stderr.getvalue()
    assert "three" in sys.stderr.getvalue().partition("a table\n")[2]


def test_progress_is_one_line_that_is_rewritten(monkeypatch):
    monkeypatch.setattr("headgate.cli.progress.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "20")
    with Progress(2) as progress:
        progress.step("one")
        with progress.hidden():
            sys.stderr.write("a table\n")
        progress.step("a longer description")
    clear = "\r\x1b[K"
    written = sys.stderr.getvalue()
    assert written == f"{clear}[1/2] one{clear}a table\n{clear}[2/2] a ...cription{clear}"
