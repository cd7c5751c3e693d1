"""What changes from one document to another."""

from __future__ import annotations

import json
from typing import NamedTuple

from headgate.config.fields import HTTP, SECTIONS
from headgate.config.fields._compounds import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from headgate.config._document import Document


HIDDEN = "***"


class Change(NamedTuple):
    """One change: of a field of an object, or of a whole object, whose `field` is then None.

    `old` and `new` are the texts of the values as they were written, without secrets; an empty `old` means
    that it is new, an empty `new` that it is removed. `live` is whether a reload makes the change in the
    objects that exist. `name` is empty in the section http. Of an extension, which is a section too, the
    texts are ``***``.
    """

    section: str
    name: str
    field: str | None
    old: str
    new: str
    live: bool

    @property
    def place(self) -> str:
        """What changes, as ``"caches.pages.maxsize"``."""
        return ".".join(filter(None, (self.section, self.name, self.field)))


def diff(old: Document, new: Document) -> tuple[Change, ...]:
    """The changes from `old` to `new`, by section and name; none if the documents are equal.

    >>> from headgate.config import read
    >>> old = read({"caches": {"pages": {"maxsize": 10}, "users": {"maxsize": 5}}})
    >>> new = read({"caches": {"pages": {"maxsize": 20}}})
    >>> [(change.place, change.old, change.new, change.live) for change in diff(old, new)]
    [('caches.pages.maxsize', '10', '20', True), ('caches.users', '{"maxsize": 5}', '', True)]
    """
    return tuple(_changes(old, new))


def _changes(old: Document, new: Document) -> Iterator[Change]:
    for section in SECTIONS:
        before, after = old.sections[section], new.sections[section]
        for name in {**before, **after}:
            if name not in after:
                yield Change(section, name, None, _text(old, section, name), "", True)
            elif name not in before:
                yield Change(section, name, None, "", _text(new, section, name), True)
            else:
                yield from _field_changes(old, new, (section, name), before[name], after[name])
    yield from _field_changes(old, new, ("http",), old.http, new.http)
    for name in dict.fromkeys((*old.extensions, *new.extensions)):
        was, is_now = (HIDDEN if each.part(name) != "null" else "" for each in (old, new))
        if old.part(name) != new.part(name):
            yield Change(name, "", None, was, is_now, True)


def _field_changes(old: Document, new: Document, path: tuple[str, ...], before: Mapping[str, Any],
                   after: Mapping[str, Any]) -> Iterator[Change]:
    record = HTTP if path == ("http",) else SECTIONS[path[0]].record
    name = path[1] if len(path) > 1 else ""
    if record.selector and before[record.selector] != after[record.selector]:
        yield Change(path[0], name, record.selector, before[record.selector], after[record.selector], False)
        return
    for field in before:
        if before[field] == after[field]:
            continue
        if field == record.collected:
            for key in {**before[field], **after[field]}:
                if before[field].get(key) != after[field].get(key):
                    live = not any(NAME.fullmatch(each[field].get(key, "none")) for each in (before, after))
                    yield Change(path[0], name, key, _text(old, *path, key), _text(new, *path, key), live)
            continue
        live = record.field(field).live
        yield Change(path[0], name, field, _text(old, *path, field), _text(new, *path, field), live)


def _text(document: Document, *path: str) -> str:
    value = document.shown(*path)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
