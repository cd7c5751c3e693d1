"""Adapters without their packages: the error names the extra that brings them."""

import subprocess
import sys
import tomllib
from pathlib import Path

PACKAGES = {
    "aiohttp": "aiohttp", "django": "django", "fastapi": "fastapi", "flask": "flask", "httpx": "httpx",
    "httpx2": "httpx2", "limits": "limits", "opentelemetry": "opentelemetry",
    "prometheus": "prometheus_client", "requests": "requests",
}
"""The package that each adapter imports first."""
WITHOUT = """
import sys
from importlib import import_module


class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in sys.argv[2:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
for adapter in sys.argv[1].split():
    try:
        import_module(f"headgate.adapters.{adapter}")
    except ModuleNotFoundError as error:
        print(adapter, error.name.partition(".")[0], error, sep="|")
"""


def test_errors_name_the_extra():
    arguments = [" ".join(PACKAGES), *PACKAGES.values()]
    command = [sys.executable, "-c", WITHOUT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [line.split("|") for line in done.stdout.splitlines()]
    assert {adapter: package for adapter, package, _ in found} == PACKAGES
    assert all(text.endswith(f": pip install 'headgate[{adapter}]'") for adapter, _, text in found)


def test_the_rules_of_proxies_need_no_extra():
    script = WITHOUT.partition("for adapter")[0] + (
        "proxy = import_module('headgate.adapters.proxy')\n"
        "print(proxy.Hop('paris'), 'aiohttp' in sys.modules)\n"
        "proxy.ReverseProxy\n")
    command = [sys.executable, "-c", script, "", "aiohttp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "Hop('paris') False\n"
    assert done.stderr.splitlines()[-1].endswith(": pip install 'headgate[aiohttp]'")


def test_the_extras_exist():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert PACKAGES.keys() <= project["optional-dependencies"].keys()
