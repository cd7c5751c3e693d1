"""The JSON Schema of documents, for editors."""

from __future__ import annotations

from headgate.config.fields import HTTP, SECTIONS
from headgate.config.fields._compounds import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a document. It refuses nothing that ``load`` accepts.

    What only ``load`` refuses: references, names that are not unique, fields that only some kinds of objects
    need or have, texts that are no size, duration, rate or key, what is wrong between fields, what cannot
    be substituted or opened, and documents that are too large.

    >>> schema()["properties"]["caches"]["description"]
    'caches in this process'
    """
    properties: dict[str, Any] = {"version": {"description": "of the format", "enum": [1, None]}}
    for section in SECTIONS.values():
        properties[section.name] = {
            "description": section.help,
            "type": ["object", "null"],
            "propertyNames": {"pattern": f"^{NAME.pattern}$"},
            "additionalProperties": {"anyOf": [section.record.schema(), {"type": "null"}]},
        }
    properties["http"] = {
        "description": "the middlewares of an application", "anyOf": [HTTP.schema(), {"type": "null"}],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headgate",
        "type": "object",
        "properties": properties,
        "patternProperties": {"^(?:x-|\\$schema)": True},
        "additionalProperties": False,
        "$defs": {"substituted": {"type": "string", "pattern": "\\$"}},
    }
