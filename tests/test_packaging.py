"""What the sdist and the wheels carry, and how a build without a compiler ends."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import headgate

ROOT = Path(__file__).parents[1]
TREES = ["src/headgate", "tests", "bench", "docs"]
PAGES = {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "setup.py", "pyproject.toml"}
CARRIED = (".py", ".pyi", ".typed", ".css", ".html", ".js", ".svg")
BUILT = (".pyc", *EXTENSION_SUFFIXES)
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
MESSAGE = r"headgate: no C compiler[^\n.]*: set HEADGATE_PURE=1 to install the pure-Python twin\."


def files(tree, root=ROOT):
    """The paths of all files beneath `tree`, relative to `root`."""
    return {path.relative_to(root).as_posix() for path in (root / tree).rglob("*") if path.is_file()}


def is_cython_output(name):
    return name.startswith("src/") and name.endswith(".c")


def modules(suffix, root=ROOT / "src/headgate"):
    """The modules beneath `root` that have a file of this suffix."""
    paths = [path.relative_to(root) for path in root.rglob(f"*{suffix}")]
    return {path.with_name(path.name.partition(".")[0]) for path in paths}


def build(kind, tree, out, **environment):
    """The archive that `kind` ("sdist" or "wheel") of `tree` makes in `out`, by the build backend itself."""
    done = run_build(kind, tree, out, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]


def run_build(kind, tree, out, **environment):
    env = {name: value for name, value in os.environ.items() if name not in ("HEADGATE_PURE", "LD_PRELOAD")}
    return subprocess.run([sys.executable, "-c", BUILD, f"build_{kind}", out], cwd=tree,
                          env=env | environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of the source tree, so that no build leaves a trace in it.

    What other interpreters cache in the meantime is left out; one such file represents all.
    """
    copy = tmp_path_factory.mktemp("tree") / "headgate"
    binaries = [f"*{suffix}" for suffix in EXTENSION_SUFFIXES]
    alien = [".*", "__pycache__", "build", "dist", "*.egg-info", *binaries]
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*alien))
    for folder in TREES:
        cached = copy / folder / "__pycache__" / "cached.pyc"
        cached.parent.mkdir()
        cached.touch()
    return copy


@pytest.fixture(scope="session")
def sdist(tree, tmp_path_factory):
    with tarfile.open(build("sdist", tree, tmp_path_factory.mktemp("sdist"), HEADGATE_PURE="1")) as archive:
        archive.extractall(where := tmp_path_factory.mktemp("unpacked"), filter="data")
    return next(where.iterdir())


@pytest.fixture(scope="session")
def pure_wheel(sdist, tmp_path_factory):
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"), HEADGATE_PURE="1")


def test_sdist_has_every_source(sdist):
    carried = files(".", sdist)
    present = {name for tree in TREES for name in files(tree) if "/__pycache__/" not in name}
    built = {name for name in present | carried if name.endswith(BUILT) or is_cython_output(name)}
    assert ((present - built) | PAGES) - carried == set()
    assert carried & built == set()


def test_pure_wheel_fits_every_platform(pure_wheel):
    assert pure_wheel.name == f"headgate-{headgate.__version__}-py3-none-any.whl"


def test_pure_wheel_is_modules_stubs_pages_and_the_marker(pure_wheel):
    with zipfile.ZipFile(pure_wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {name for name in files("src/headgate") if name.endswith(CARRIED)}
    assert carried == {name.removeprefix("src/") for name in wanted}


def test_installed_package_has_all_binaries_or_none():
    installed = Path(headgate.__file__).parent
    binaries = modules(EXTENSION_SUFFIXES[0], installed)
    assert binaries == (modules(".pyx") if binaries else set())
    assert modules(".pyx") <= modules(".pyi", installed)
    assert list(installed.rglob("*.c")) == []


def test_build_without_a_compiler_names_the_alternative(tree, tmp_path):
    one_module = shutil.copytree(tree, tmp_path / "tree")
    for source in one_module.rglob("*.pyx"):
        if source.parent.name != "hashing":
            source.unlink()
    done = run_build("wheel", one_module, tmp_path, CC="no-such-compiler", PATH=str(tmp_path))
    assert done.returncode != 0
    assert re.fullmatch(MESSAGE, done.stderr.splitlines()[-1])


@pytest.mark.parametrize(("widest", "libraries"), [(2**63 - 1, []), (2**31 - 1, ["atomic"])])
def test_libatomic_is_linked_where_words_are_short(tree, monkeypatch, widest, libraries):
    """Some of these machines have no 64-bit atomics of their own, armel for one."""
    found = []
    monkeypatch.chdir(tree)
    monkeypatch.delenv("HEADGATE_PURE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "maxsize", widest)
    monkeypatch.setattr("Cython.Build.cythonize", lambda extensions, **_: extensions)
    monkeypatch.setattr("setuptools.setup", lambda ext_modules, **_: found.extend(ext_modules))
    runpy.run_path("setup.py")
    assert found
    assert all(extension.libraries == libraries for extension in found)


def said_of(archive):
    """What the script of CI reports about an archive."""
    command = [sys.executable, ROOT / ".ci/check_archives.py", archive]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="an sdist has no CI")
def test_ci_takes_wheels_with_entries_for_folders(pure_wheel, tmp_path):
    """auditwheel writes them when it repairs a wheel."""
    repaired = tmp_path / pure_wheel.name
    with zipfile.ZipFile(pure_wheel) as old, zipfile.ZipFile(repaired, "w") as new:
        for folder in ("headgate/", "headgate/cache/"):
            new.mkdir(folder.rstrip("/"))
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert said_of(pure_wheel) == said_of(repaired) == ""
    with zipfile.ZipFile(repaired, "a") as archive:
        archive.writestr("headgate/extra.c", "")
    assert "lacks or should not have ['headgate/extra.c']" in said_of(repaired)


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_keep_no_credentials_and_end(path):
    text = path.read_text()
    actions = re.findall(r"uses: (\S+)", text)
    assert [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert text.count("runs-on:") == text.count("timeout-minutes:")


def test_runtime_needs_nothing(pure_wheel):
    with zipfile.ZipFile(pure_wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        needed = re.findall(r"^Requires-Dist: .*", archive.read(name).decode(), re.MULTILINE)
    assert [line for line in needed if "extra ==" not in line] == []
