"""References between the objects of a document, to objects that exist and that serve there, and what two of
them share.
"""

from __future__ import annotations

from headgate.config._hints import listed, meant
from headgate.config._nodes import Node
from headgate.config.fields import SECTIONS
from headgate.config.fields._kinds import Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Sections = Mapping[str, Mapping[str, Mapping[str, Any]]]


def check_references(root: Node, sections: Sections, http: Mapping[str, Any], reports: Reports) -> None:
    """Report references to what is not there or does not serve, names that two objects have, and files that
    would have two rates.
    """
    names = {section: _names(root, section) for section in SECTIONS}
    for found in reports.references:
        if not any(found.name in names[section] for section in found.sections):
            known = [name for section in found.sections for name in names[section]]
            message = f"there is no {found.node.kind} in {' or '.join(found.sections)}"
            hint = meant(found.name, known) or (f"known are {listed(known)}" if known else "")
            reports.add(found.path, found.node, message, hint)
    for name in names["limits"].keys() & names["levels"].keys():
        reports.add_key(("levels", name), root.at(("levels", name)), "the name of a limit too",
                        "so a reference would have two meanings")
    _check_local(root, sections, reports)
    _check_files(root, sections["limits"], reports)
    _check_keys(root, sections, http, reports)


def _check_local(root: Node, sections: Sections, reports: Reports) -> None:
    """What decides for a store, and what has bounded loads, must be of the plain kind."""
    for section, field, target, wanted in (
        ("stores", "fallback", "limits", ("keyed",)),
        ("placements", "placement", "placements", ("ring", "rendezvous", "maglev")),
    ):
        for name, fields in sections[section].items():
            found = sections[target].get(fields.get(field) or "")
            if found is not None and found["kind"] not in wanted:
                path = (section, name, field)
                message = f"expected one of the kind {' or '.join(wanted)}"
                reports.add(path, root.at(path), message, f"which is of the kind {found['kind']}")


def _check_files(root: Node, limits: Mapping[str, Mapping[str, Any]], reports: Reports) -> None:
    """The file of a limit has one rate."""
    firsts: dict[str, str] = {}
    for name, fields in limits.items():
        if fields.get("path") is None:
            continue
        first = firsts.setdefault(fields["path"], name)
        if any(fields[field] != limits[first][field] for field in ("rate", "burst")):
            path = ("limits", name, "path")
            reports.add(path, root.at(path), f"the file of limits.{first} too, which has another rate")


def _check_keys(root: Node, sections: Sections, http: Mapping[str, Any], reports: Reports) -> None:
    """The keys of requests are those of the levels, or one for a limit."""
    path, limit, keys = ("http", "keys"), http["limit"], http["keys"]
    if limit in sections["levels"]:
        levels = sections["levels"][limit]["levels"]
        if not isinstance(keys, dict):
            reports.add(path, root.at(path), f"expected a key for each level of {limit}",
                        f"levels are {listed(list(levels))}")
            return
        for level in keys:
            if level not in levels:
                reports.unknown((*path, level), root.at((*path, level)), list(levels))
    elif limit in sections["limits"] and isinstance(keys, dict):
        reports.add(path, root.at(path), f"expected one key, as {limit} has no levels",
                    "write for example keys: client")


def _names(root: Node, section: str) -> dict[str, None]:
    """The names of a section, in order, those of objects that are wrong included."""
    node = root.value.get(section)
    if node is None or not isinstance(node.value, dict):
        return {}
    return {name: None for name, child in node.value.items() if child.value is not None}
