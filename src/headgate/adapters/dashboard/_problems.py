"""What in a document needs attention."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Row = dict[str, Any]
    Problem = tuple[str, str, str]


def problems_in(
    sections: Mapping[str, list[Row]], errors: Iterable[tuple[str, str]]
) -> list[dict[str, str]]:
    """Each with its severity, the section and name of the row, and a sentence; critical ones first.

    >>> rows = {"objectives": [{"name": "checkout", "error_budget": -0.1}]}
    >>> [problem["text"] for problem in problems_in(rows, [])]
    ['The error budget of checkout is overspent.']
    """
    found = [(severity, section, name, text) for section, find in _FINDERS.items()
             for row in sections.get(section, ()) for severity, name, text in find(row)]
    found += [("warning", "errors", name, f"{name} could not be read: {error}.") for name, error in errors]
    fields = "severity", "section", "name", "text"
    return [dict(zip(fields, problem, strict=True)) for problem in sorted(found, key=_severity)]


def _severity(problem: tuple[str, ...]) -> bool:
    return problem[0] != "critical"


def _of_objective(row: Row) -> Iterator[Problem]:
    name = row["name"]
    rules = row.get("alert_firing", {}).items()  # named by severity, long and short window
    for severity in dict.fromkeys(rule.rsplit(" ", 2)[0] for rule, fires in rules if fires):
        kind = "critical" if severity == "page" else "warning"
        yield kind, name, f"An alert of {name} is firing ({severity})."
    budget = row.get("error_budget")
    if budget is not None and budget < 0:
        yield "critical", name, f"The error budget of {name} is overspent."


def _of_balancer(row: Row) -> Iterator[Problem]:
    servers, name = row.get("servers", {}), row["name"]
    out = {health: servers[health] for health in ("ejected", "down") if servers.get(health)}
    if out and not servers.get("healthy"):
        yield "critical", name, f"No server of {name} is healthy."
        return
    for health, count in out.items():
        yield "warning", name, f"{count} of {sum(servers.values())} servers of {name} are {health}."


def _of_store(row: Row) -> Iterator[Problem]:
    if row.get("open_breakers"):
        yield "critical", row["name"], f"The store of {row['name']} does not respond."
    elif row.get("degraded_per_second"):
        yield "warning", row["name"], f"{row['name']} decides without its store."


def _of_concurrency(row: Row) -> Iterator[Problem]:
    limit = row.get("limit")
    if limit is not None and row.get("inflight", 0) >= limit:
        yield "warning", row["name"], f"{row['name']} is at its limit of requests in flight."


def _of_limit(row: Row) -> Iterator[Problem]:
    if row.get("evictions_per_second"):
        yield "warning", row["name"], f"{row['name']} forgets debts of keys: max_keys is too small."


def _of_near(row: Row) -> Iterator[Problem]:
    if row.get("fresh_servers") == 0:
        yield "warning", row["name"], f"{row['name']} hears of no server, so nothing is served from it."


_FINDERS = {
    "objectives": _of_objective, "balancers": _of_balancer, "stores": _of_store,
    "concurrency": _of_concurrency, "limits": _of_limit, "near": _of_near,
}
