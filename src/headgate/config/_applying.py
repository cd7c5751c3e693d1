"""What a new document changes in the objects that exist.

    plan     nothing is changed yet: fields that need a new object are refused, the others are tried out
    switch   limits take their new rates: private ones, then those in files, which wait for a lock. Nothing
             else can fail; if one of these does, those before it go back
    commit   caches, placements, balancers and rules: in memory, checked before
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import NamedTuple

from headgate.cache._listeners import report
from headgate.config._building import goes_on, nodes_of, rates_of
from headgate.config._errors import Problem, place_of
from headgate.config.fields import SECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from headgate.config._building import Building
    from headgate.config._document import Document, Fields
    from headgate.config._snapshot import Made, Snapshot


class Switch:
    """Another rate for a limit, which can be taken back: to what `read` returned before, since by hand or by
    another process it may have another one than the document says.
    """

    __slots__ = ("_after", "_before", "_read", "_reconfigure", "is_shared")

    def __init__(self, read: Callable[[], Any], reconfigure: Callable[[Any], object], after: Any,
                 is_shared: bool = False) -> None:
        self._read, self._reconfigure, self._after = read, reconfigure, after
        self.is_shared = is_shared

    def remember(self) -> None:
        self._before = self._read()

    def do(self) -> None:
        self._reconfigure(self._after)

    def undo(self, failure: BaseException) -> None:
        """Set the rate that was; where that fails too, as if another file is locked, the new one stays. What
        fails again as it did is not reported again.
        """
        try:
            self._reconfigure(self._before)
        except Exception as error:
            if str(error) != str(failure):
                report(error)


class Changed(NamedTuple):
    """An object whose fields change."""

    name: str
    made: Made
    before: Fields
    after: Fields

    @property
    def fields(self) -> list[str]:
        """The names of those that do."""
        return [
            each for each in self.after if each not in self.before or self.before[each] != self.after[each]
        ]


class Plan:
    """What is to be done for a document, found out without doing anything."""

    def __init__(self, present: Snapshot, document: Document, building: Building) -> None:
        self.problems: list[Problem] = []
        self.switches: list[Switch] = []
        self.commits: list[Callable[[], object]] = []
        self.building = building
        self._document = document
        for section, objects in document.sections.items():
            before = present.document.sections[section]
            for name, fields in objects.items():
                if name in before and before[name] != fields:
                    self._change(section, Changed(name, present.made[section, name], before[name], fields))
        self._change_http(present, document)

    def _change(self, section: str, each: Changed) -> None:
        refused = [name for field in _first(section, each.fields) for name in _refused(section, field, each)]
        if refused:
            self.problems += [self._refusal(section, each.name, field) for field in refused]
        else:
            self.building.attempt(section, each.name, _CHANGES[section], self, each)

    def _refusal(self, section: str, name: str, field: str) -> Problem:
        place = place_of((section, name, field))
        hint = f"as that needs a new object: give it a new name, such as {self._free_name(section, name)}"
        mark = self._document.mark(section, name, field)
        return Problem(place, "cannot change while it is in use", hint, mark)

    def _free_name(self, section: str, name: str) -> str:
        taken = {each for objects in self._document.sections.values() for each in objects}
        base, number = name.rstrip("0123456789"), 2
        while f"{base}{number}" in taken or f"{base}{number}" == name:
            number += 1
        return f"{base}{number}"

    def _change_http(self, present: Snapshot, document: Document) -> None:
        """The cache of the section http, if it goes on."""
        before, after = present.document.http["cache"], document.http["cache"]
        cache = present.http.cache
        if before == after or cache is None or not goes_on(before, after):
            return
        self.building.attempt("http", "", self.building.make, "http_caches", "", after)
        self.commits.append(partial(cache.reconfigure, **_settings_of(after)))

    def switch(self, limiter: Any, rates: Any, is_shared: bool) -> None:
        """Have a limit take another rate, if it can."""
        limiter._changed_rates(rates)
        self.switches.append(Switch(lambda: limiter.rates, limiter.reconfigure, rates, is_shared))

    def run_switches(self) -> None:
        """All rates, those in files last; none if one fails. That one is taken back too, as a limit may have
        several files.
        """
        begun: list[Switch] = []
        try:
            for switch in sorted(self.switches, key=lambda each: each.is_shared):
                switch.remember()
                begun.append(switch)
                switch.do()
        except BaseException as failure:
            for switch in reversed(begun):
                switch.undo(failure)
            raise


def adopt(plan: Plan, made: Made, fields: Fields) -> None:
    """A new limiter opens a file with the rate that this has; then it takes that of the document."""
    if fields.get("path") is not None and fields.get("kind") in ("keyed", "address"):
        wanted = rates_of(fields)
        if made.plain.rates != wanted:
            plan.switch(made.plain, wanted, True)


def _first(section: str, fields: list[str]) -> list[str]:
    """With another kind an object has other fields too, of which there is nothing more to say."""
    selector = SECTIONS[section].record.selector
    return [selector] if selector in fields else fields


def _refused(section: str, field: str, each: Changed) -> list[str]:
    """A field that changed, or the levels in it, unless the object that exists can change."""
    if section == "levels" and field == "levels":
        before, after = each.before[field], each.after[field]
        return [level for level in {**before, **after} if not _is_live(before.get(level), after.get(level))]
    return [] if SECTIONS[section].record.field(field).live and field in each.before else [field]


def _is_live(before: str | None, after: str | None) -> bool:
    """Whether a level stays what it is: the same limit, or one with a rate of its own."""
    return before == after or bool(before and after and _is_rate(before) and _is_rate(after))


def _is_rate(text: str) -> bool:
    """No name begins as a rate does."""
    return not text[0].isalpha()


def _settings_of(fields: Fields) -> dict[str, Any]:
    """What ``HTTPCache.reconfigure`` takes."""
    return {name: value for name, value in fields.items() if name not in ("policy", "path")}


def _change_cache(plan: Plan, each: Changed) -> None:
    plan.building.make("caches", each.name, each.after)
    plan.commits.append(partial(each.made.plain.resize, each.after["maxsize"]))


def _change_near(plan: Plan, each: Changed) -> None:
    plan.commits += [partial(cache.resize, each.after["maxsize"]) for cache in each.made.parts]


def _change_http_cache(plan: Plan, each: Changed) -> None:
    plan.building.make("http_caches", each.name, each.after)
    plan.commits.append(partial(each.made.plain.reconfigure, **_settings_of(each.after)))


def _change_limit(plan: Plan, each: Changed) -> None:
    rates = rates_of(each.after)
    for limiter in each.made.forms():
        plan.switch(limiter, rates, is_shared=each.after.get("path") is not None)


def _change_levels(plan: Plan, each: Changed) -> None:
    plan.building.make("levels", each.name, each.after)
    old, new = each.before["levels"], each.after["levels"]
    rates = {level: new[level] for level in new if new[level] != old[level]}
    if rates:
        plan.switches += [_switch_of_levels(limits, rates) for limits in each.made.forms()]
    limits = each.made.plain
    if "shadow" in each.fields:
        plan.commits.append(partial(limits.set_shadow, *each.after["shadow"]))
    if "deny" in each.fields or "exempt" in each.fields:
        plan.commits.append(partial(_change_rules, limits, each.before, each.after))


def _switch_of_levels(limits: Any, rates: Mapping[str, str]) -> Switch:
    return Switch(
        lambda: {level: limits.rates[level] for level in rates},
        lambda rates: limits.reconfigure(**rates),
        rates,
    )


def _change_rules(limits: Any, before: Fields, after: Fields) -> None:
    """Other keys and networks; a rule set by hand stays, unless the document has or had one there."""
    for rules in (before["deny"], before["exempt"]):
        for level, keys in rules.items():
            limits.restore(level, *keys)
    for level, keys in after["deny"].items():
        limits.deny(level, *keys)
    for level, keys in after["exempt"].items():
        limits.exempt(level, *keys)


def _change_placement(plan: Plan, each: Changed) -> None:
    trial = plan.building.make("placements", each.name, each.after).plain
    trial.get_node("")
    plan.commits.append(partial(each.made.plain.replace_nodes, nodes_of(each.after)))


def _change_balancer(plan: Plan, each: Changed) -> None:
    plan.building.make("balancers", each.name, each.after)
    balancer, after = each.made.plain, each.after
    settings = {field: after[field] for field in each.fields if field not in ("servers", "draining")}
    if settings:
        plan.commits.append(partial(balancer.reconfigure, **settings))
    if "servers" in each.fields:
        plan.commits.append(partial(_change_servers, balancer, each.before["servers"], after["servers"]))
    plan.commits += [
        partial(_drain, balancer, server, server in after["draining"])
        for server in after["servers"]
        if (server in after["draining"]) != (server in each.before["draining"])
    ]


def _change_servers(balancer: Any, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Add, weigh and remove servers, in this order, so that there is always one; then order them as the
    document does. What was done by hand to servers that did not change in the document stays.
    """
    for server, weight in after.items():
        if before.get(server) != weight:
            _weigh(balancer, server, weight)
    for server in before.keys() - after.keys():
        with suppress(KeyError):  # removed before, by hand
            balancer.remove_server(server)
    balancer._reorder(after)


def _drain(balancer: Any, server: str, draining: bool) -> None:
    with suppress(KeyError):  # removed before, by hand
        balancer.drain_server(server, draining)


def _weigh(balancer: Any, server: str, weight: float) -> None:
    """Give a server a weight, whether it is there or not; another thread may add or remove it meanwhile."""
    with suppress(ValueError):  # it is a member
        balancer.add_server(server, weight)
        return
    with suppress(KeyError):  # removed meanwhile, by hand
        balancer.set_weight(server, weight)


_CHANGES: dict[str, Callable[[Plan, Changed], None]] = {
    "caches": _change_cache,
    "near": _change_near,
    "http_caches": _change_http_cache,
    "limits": _change_limit,
    "levels": _change_levels,
    "placements": _change_placement,
    "balancers": _change_balancer,
}
