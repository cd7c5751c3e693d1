"""The tables of fields in docs/config.md, made of the one description of a document.

``python tests/_support/config_tables.py`` writes them, and docs/headgate.schema.json.
"""

import json
from pathlib import Path

from headgate._base.durations import written_duration
from headgate.config import schema
from headgate.config.fields import HTTP, REQUIRED, SECTIONS
from headgate.config.fields._kinds import Duration, Mode, Size

DOCS = Path(__file__).parents[2] / "docs"
PAGE, SCHEMA = DOCS / "config.md", DOCS / "headgate.schema.json"
BEGIN, END = "<!-- fields -->\n", "<!-- end of fields -->"
SIZES = {"MiB": 2**20, "KiB": 2**10}


def tables():
    """A table for each section, in Markdown."""
    parts = [table(section.name, section.help, section.record) for section in SECTIONS.values()]
    return "\n".join([*parts, table("http", "the middlewares of an application", HTTP)])


def table(name, about, record):
    rows = "".join([row(field) for field in record.fields])
    head = "| field | value | default | live | meaning |\n|---|---|---|---|---|\n"
    return f"### `{name}`\n\n{about[0].upper()}{about[1:]}.\n\n{head}{rows}"


def row(field):
    only = f" (only {', '.join(field.only)})" if field.only else ""
    cells = [f"`{field.name}`", field.kind.text, default_of(field), "yes" if field.live else "",
             f"{field.help}{only}"]
    return "| " + " | ".join([cell.replace("|", r"\|") for cell in cells]) + " |\n"


def default_of(field):
    """A default as a document has it."""
    value = field.default
    if value is REQUIRED:
        return "**needed**"
    if value is None or value in ((), {}):
        return ""
    if isinstance(field.kind, Duration):
        return f"`{written_duration(value) if value else 0}`"
    if isinstance(field.kind, Size):
        unit, size = next((unit, size) for unit, size in SIZES.items() if value % size == 0)
        return f"`{value // size} {unit}`"
    if isinstance(field.kind, Mode):
        return f'`"{value:04o}"`'
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def page_with_tables(text):
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"


def schema_text():
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
