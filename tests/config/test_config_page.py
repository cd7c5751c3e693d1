"""docs/config.md: its tables are those of the fields, and every field is documented."""

import json
import re

import config_tables
import pytest

from headgate.config._nodes import node_of
from headgate.config._yaml import core_scalar
from headgate.config.fields import HTTP, REQUIRED, SECTIONS
from headgate.config.fields._kinds import Reports

RECORDS = [*[section.record for section in SECTIONS.values()], HTTP]
FIELDS = [(record.noun, field) for record in RECORDS for field in record.fields]


def test_the_tables_are_those_of_the_fields():
    text = config_tables.PAGE.read_text(encoding="utf-8")
    assert config_tables.page_with_tables(text) == text, "python tests/_support/config_tables.py writes them"


def test_the_schema_in_docs():
    text = config_tables.SCHEMA.read_text(encoding="utf-8")
    assert config_tables.schema_text() == text, "python tests/_support/config_tables.py writes it"


@pytest.mark.parametrize(("noun", "field"), FIELDS, ids=lambda part: getattr(part, "name", part))
def test_every_field_is_documented(noun, field):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", field.name)
    assert len(field.help) > 8 and not field.help.endswith("."), field.help
    assert field.kind.text
    assert field.schema()["description"] == field.help


@pytest.mark.parametrize(("noun", "field"), FIELDS, ids=lambda part: getattr(part, "name", part))
def test_defaults_are_of_their_kind(noun, field):
    """An object without a field is one that gives its default."""
    if field.default is REQUIRED or field.default is None or field.default in ((), {}):
        return
    written = config_tables.default_of(field).strip("`").strip('"')
    assert read_alone(field, written) == field.default


def read_alone(field, written):
    """A value of a field as the reader makes it of its text."""
    value = json.loads(written) if written.startswith("[") else core_scalar(written)
    reports = Reports()
    found = field.kind.read(node_of(written if field.name == "mode" else value), (), reports)
    assert not reports.problems
    return found
