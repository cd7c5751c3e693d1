"""What a gate has at one moment: a document, and the objects that it names."""

from __future__ import annotations

from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from headgate.config._document import Document
    from headgate.config._http import Http

    Key = tuple[str, str]


class Made:
    """An object of a document: the form for threads, and that for event loops, which is the same object if
    it waits for no other process. `parts` are what changes besides.
    """

    __slots__ = ("asynchronous", "parts", "plain")

    def __init__(self, plain: Any, asynchronous: Any = None, parts: tuple[Any, ...] = ()) -> None:
        self.plain = plain
        self.asynchronous = plain if asynchronous is None else asynchronous
        self.parts = parts

    def forms(self) -> list[Any]:
        """All that has the same settings: both forms, and the parts."""
        return list(dict.fromkeys((self.plain, self.asynchronous, *self.parts)))


class Snapshot:
    """All objects of a document by section and name, in read-only mappings."""

    __slots__ = ("asynchronous", "document", "extensions", "http", "made", "sections")

    def __init__(self, document: Document, sections: Iterable[str], made: Mapping[Key, Made],
                 http: Http, extensions: Mapping[str, Any]) -> None:
        self.document = document
        self.made = made
        self.http = http
        self.extensions = MappingProxyType(extensions)
        self.sections: dict[str, Mapping[str, Any]] = {}
        self.asynchronous: dict[str, Mapping[str, Any]] = {}
        for section in sections:
            found = {name: each for (owner, name), each in made.items() if owner == section}
            plain = {name: each.plain for name, each in found.items()}
            asynchronous = {name: each.asynchronous for name, each in found.items()}
            self.sections[section] = MappingProxyType(plain)
            self.asynchronous[section] = MappingProxyType(asynchronous)
