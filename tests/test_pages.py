"""The pages name only files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
PATH = re.compile(r"`((?:src|tests|bench|docs)/[\w./-]*)`")
FILE = re.compile(r"`([\w./]*\w\.(?:h|pyx?i?|pxi|pxd|c))`")
FILES = [f"/{path.relative_to(ROOT).as_posix()}" for tree in ("src", "tests", "bench")
         for path in (ROOT / tree).rglob("*.*")]
EXAMPLES = {"x.h", "_x.py", "_x.pxi", "_x.pxd"}  # in CONTRIBUTING


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_paths_of_a_page(page):
    text = page.read_text(encoding="utf-8")
    links = [page.parent / link for link in LINK.findall(text)]
    paths = [ROOT / path for path in PATH.findall(text)]
    assert [str(path) for path in links + paths if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_source_files_of_a_page(page):
    """The end of a path suffices, such as `_c/slots.h`. The changelog names files of earlier versions too."""
    named = set() if page.name == "CHANGELOG.md" else set(FILE.findall(page.read_text(encoding="utf-8")))
    assert [name for name in named - EXAMPLES if not any(file.endswith(f"/{name}") for file in FILES)] == []
