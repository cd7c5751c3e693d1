"""The C structures without Python: known cases, and the fuzzers on their seeds and on random inputs."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUZZERS = ROOT / "tests/fuzz"
HEADERS = sorted({path.parent for path in (ROOT / "src").rglob("*.h")})
INPUTS = 300


@pytest.fixture(scope="session")
def compiler():
    """The command of the C compiler; without one, skips, or fails if the compiled twin is required."""
    candidates = [shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]]
    for command in candidates:
        if command and shutil.which(command[0]):
            return command
    if os.environ.get("HEADGATE_PURE") == "0":
        pytest.fail("no C compiler")
    pytest.skip("no C compiler")


def output(command):
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compiled(compiler, program, *sources):
    include = [f"-I{folder}" for folder in (*HEADERS, FUZZERS)]
    warnings = ["-Wall", "-Werror", "-Wno-unused-function"]
    output([*compiler, "-g", "-O1", *warnings, *include, *map(str, sources), "-o", str(program)])
    return str(program)


@pytest.mark.parametrize("source", sorted(Path(__file__).parent.glob("*.c")), ids=lambda path: path.stem)
def test_known_cases(compiler, source, tmp_path):
    output([compiled(compiler, tmp_path / source.stem, source)])


@pytest.mark.parametrize("source", sorted(set(FUZZERS.glob("*.c")) - {FUZZERS / "replay.c"}),
                         ids=lambda path: path.stem)
def test_agrees_with_a_naive_model(compiler, source, tmp_path):
    program = compiled(compiler, tmp_path / source.stem, source, FUZZERS / "replay.c")
    seeds = sorted((FUZZERS / "seeds" / source.stem).iterdir())
    assert seeds
    output([program, str(INPUTS), *map(str, seeds)])
