"""The page about metrics: its table has each family, as it is exported."""

from pathlib import Path

from headgate.adapters._families import FAMILIES
from headgate.adapters.prometheus import metric_name

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
SUFFIXES = {"counter": "_total", "info": "_info"}


def row(name):
    terms = FAMILIES[name]
    labels = ", ".join(f"`{label}`" for label in terms.labels)
    unit = f"`{terms.unit}`" if terms.unit else ""
    exported = f"{metric_name(name)}{SUFFIXES.get(terms.kind, '')}"
    return f"| `{name}` | `{exported}` | {terms.kind} | {unit} | {labels} | {terms.help} |"


def test_the_table_has_every_family():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `headgate.") and "_" in line]
    assert [line for line in rows if line.count("|") == 7] == [row(name) for name in FAMILIES]
