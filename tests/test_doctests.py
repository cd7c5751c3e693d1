"""Every example in a docstring of either twin or of a shared module, and in the pages, holds."""

import doctest
import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from twins import homes

import headgate
from headgate.cli.twins import IDEAS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"^```yaml\n# (\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
TWINS = ("._compiled", "._pure")
SHARED = [name for _, name, _ in walk_packages(headgate.__path__, "headgate.")
          if not name.endswith(TWINS) and not name.endswith("__main__")]


def documented(module):
    """The docstrings of `module` and of all that it defines, by qualified name."""
    found, known = {"": module}, homes(module)
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) in known:
            found[name] = value
            if isinstance(value, type):
                found |= {f"{name}.{member}": item for member, item in vars(value).items()
                          if not is_borrowed(item, value)}
    return {f"{module.__name__}.{name}": item.__doc__ for name, item in found.items()
            if isinstance(getattr(item, "__doc__", None), str)}


def is_borrowed(item, owner):
    """Whether a member of a class is another class's method; its examples are run there."""
    home = getattr(item, "__module__", None) or owner.__module__
    return home != owner.__module__ or getattr(item, "__objclass__", owner) is not owner


def run_examples(text, names, where):
    output = []
    test = doctest.DocTestParser().get_doctest(text, dict(names), where, None, 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test, out=output.append)
    assert not output, "".join(output)


def public_names(twin):
    """All public names of a twin, as users have them after their imports."""
    modules = [vars(getattr(twin, idea)) for idea in IDEAS]
    return {name: value for module in modules for name, value in module.items() if not name.startswith("_")}


@pytest.mark.parametrize("idea", IDEAS)
def test_examples_of_a_twin(twin, idea):
    names = public_names(twin)
    for where, text in documented(getattr(twin, idea)).items():
        run_examples(text, names, where)


@pytest.mark.parametrize("name", SHARED)
def test_examples_of_a_shared_module(name):
    module = import_module(name)
    for where, text in documented(module).items():
        run_examples(text, vars(headgate) | vars(module), where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_of_a_page(page, tmp_path, monkeypatch):
    """They find the files that a page shows with their names."""
    names, text = {"__name__": page.stem}, page.read_text(encoding="utf-8")
    for name, content in FILE.findall(text):
        (tmp_path / name).write_text(content, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
    for number, block in enumerate(BLOCK.findall(text)):
        if ">>> " in block:
            run_examples(block, names, f"{page.name}, block {number}")
        else:
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    names.clear()  # their functions hold them: a gate of theirs would be watched on, in another folder
