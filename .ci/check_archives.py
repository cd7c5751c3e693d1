"""Says what is wrong with the given sdists and wheels: ``python .ci/check_archives.py dist/*``."""

import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src/headgate"
COMPILED = {f"headgate/{path.relative_to(PACKAGE).with_suffix('').as_posix()}"
            for path in PACKAGE.rglob("*.pyx")}
MODULES = {f"headgate/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*")
           if path.suffix in (".py", ".pyi", ".typed", ".css", ".html", ".js", ".svg")}
SOURCES = {path.suffix for path in PACKAGE.rglob("*.*")} - {".pyc", ".so", ".pyd"}


def wheel_faults(path):
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]  # auditwheel lists folders
        carried = {name: archive.read(name) for name in names if ".dist-info/" not in name}
    binaries = sorted(name for name in carried if name.endswith((".so", ".pyd")))
    expected = [] if path.stem.endswith("-py3-none-any") else sorted(COMPILED)
    if [name.partition(".")[0] for name in binaries] != expected:
        yield f"has the binaries {binaries}, not one for each of {expected}"
    if difference := (carried.keys() - set(binaries)) ^ MODULES:
        yield f"lacks or should not have {sorted(difference)}"
    for name in binaries:
        if b".symtab" in carried[name] and "linux" in path.stem:
            yield f"{name} is not stripped"


def sdist_faults(path):
    with tarfile.open(path) as archive:
        carried = [name.partition("/")[2] for name in archive.getnames()]
    for tree in ("src/headgate", "tests", "bench", "docs"):
        if not any(name.startswith(f"{tree}/") for name in carried):
            yield f"lacks {tree}"
    if missing := SOURCES - {Path(name).suffix for name in carried}:
        yield f"has no {sorted(missing)}"
    built = [name for name in carried if name.endswith((".so", ".pyd", ".pyc"))]
    if built := built + [name for name in carried if name.startswith("src/") and name.endswith(".c")]:
        yield f"should not have {built}"


faults = [f"{name}: {fault}" for name in sys.argv[1:]
          for fault in (wheel_faults if name.endswith(".whl") else sdist_faults)(Path(name))]
sys.exit("\n".join(faults) or 0)
