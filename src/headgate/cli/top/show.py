"""Tables of what files and dashboards say, for a terminal and for plain text."""

from collections.abc import Iterable, Mapping
from typing import Any

from headgate._base.durations import written_duration
from headgate._base.texts import escaped, shortened
from headgate.cli.tables import Row, Table

_LABEL = 40
_MOST_ROWS = 12

Line = Mapping[str, Any]


def tables_of_files(files: Iterable[Line]) -> list[Table]:
    """A table for each kind of file."""
    by_kind: dict[str, list[Line]] = {}
    for file in files:
        by_kind.setdefault(file["settings"]["limiter"], []).append(file)
    tables = [table(by_kind.pop(kind)) for kind, table in _OF_FILES.items() if kind in by_kind]
    rest = [file for files in by_kind.values() for file in files]
    if rest:
        rows = [Row((_label(file), file["settings"]["limiter"], _processes(file))) for file in rest]
        tables.append(Table("Other files", ("file", "kind", "processes"), rows, texts=2))
    return tables


def tables_of_document(document: Mapping[str, Any]) -> list[Table]:
    """A table for each section of a dashboard's document that has rows."""
    tables = []
    for section, table in _OF_DOCUMENT.items():
        rows = document.get(section) or []
        made = table(rows) if rows else None
        if made is not None and made.rows:
            tables.append(made)
    return tables


# ---- files --------------------------------------------------------------------------------------


def _limits(files: list[Line]) -> Table:
    rows = []
    for file in files:
        rate, owing = file["settings"]["rate"], file["state"].get("owing", {})
        debts = ", ".join(f"{count:,}" for count in owing.values()) or _unknown(file)
        evicted = _rate(file["per_second"].get("evictions"))
        rows.append(Row((_label(file), shortened(rate, _LABEL), debts,
                         f"{file['settings']['max_keys']:,}", evicted, _processes(file))))
    columns = ("limit", "rate", "keys\nwith debt", "max keys", "evicted", "processes")
    return Table("Rate limits in files", columns, rows, texts=2)


def _buckets(files: list[Line]) -> Table:
    rows = []
    for file in files:
        capacity, available = file["settings"]["capacity"], file["state"].get("available")
        tokens = _unknown(file) if available is None else f"{available:,.1f}"
        share = "" if available is None else _percent(available / capacity)
        rows.append(Row((_label(file), tokens, f"{capacity:,}", share,
                         f"{file['settings']['refill_rate']:,}/s", _processes(file))))
    return Table("Buckets in files", ("bucket", "tokens", "of", "full", "refill", "processes"), rows)


def _permits(files: list[Line]) -> Table:
    rows = []
    for file in files:
        found = file["state"]
        if "limit" not in found:
            rows.append(Row((_label(file), _unknown(file), "", "", _processes(file))))
            continue
        used = found["inflight"] / found["limit"]
        rows.append(Row((_label(file), f"{found['inflight']:,}", f"{found['limit']:,.0f}", _percent(used),
                         _processes(file)), used >= 1))
    return Table("Concurrency in files", ("limiter", "in flight", "limit", "used", "processes"), rows)


def _objectives(files: list[Line]) -> Table:
    rows = []
    for file in files:
        found, rates = file["state"], file["per_second"]
        windows = list(found.get("availability", {}).values())
        events = sum(rates.values()) if rates else None
        rows.append(Row((
            _label(file), _fine_percent(windows[0]) if windows else _unknown(file),
            _fine_percent(windows[-1] if windows else None), written_duration(file["settings"]["window"]),
            _rate(events), _rate(rates.get("bad")), _processes(file))))
    columns = ("objective", "available\nlast hour", "whole\nwindow", "window", "events", "bad", "processes")
    return Table("Objectives in files", columns, rows)


def _label(file: Line) -> str:
    return shortened(file["path"].rpartition("/")[2], _LABEL)


def _unknown(file: Line) -> str:
    """Why a file has no state: those from before the last boot begin again when they are opened, and debts
    are not counted while the rate is switched.
    """
    if "switch" in file["state"]:
        return "rate is switched"
    return "damaged" if file["state"].get("damaged") else "not since boot"


def _processes(file: Line) -> str:
    return f"{len(file['processes']):,}"


_OF_FILES = {
    "RateLimiter": _limits, "TokenBucket": _buckets, "ConcurrencyLimiter": _permits, "SLO": _objectives,
}

# ---- documents ----------------------------------------------------------------------------------


def _problems(rows: list[Line]) -> Table:
    lines = [
        Row((escaped(row["severity"]), shortened(row["text"], 2 * _LABEL)), row["severity"] == "critical")
        for row in rows[:_MOST_ROWS]
    ]
    return Table("Needs attention", ("severity", ""), lines, texts=2)


def _caches(rows: list[Line]) -> Table:
    lines = [
        Row((_name(row), _percent(_share(row.get("hits_per_second"), row.get("misses_per_second"))),
             _percent(_share(row.get("hits"), row.get("misses"))),
             _rate(_sum(row.get("hits_per_second"), row.get("misses_per_second"))),
             _of(row.get("size", row.get("entries")), row.get("max_size")),
             _rate(row.get("evictions_per_second"))))
        for row in rows
    ]
    return Table("Caches", ("cache", "hit ratio\nnow", "since\nstart", "lookups", "size", "evicted"), lines)


def _http_caches(rows: list[Line]) -> Table:
    lines = []
    for row in rows:
        rates = row.get("requests_per_second", {})
        hits, misses = _hits_and_misses(rates)
        lines.append(Row((
            _name(row), _percent(_share(hits, misses)),
            _percent(_share(*_hits_and_misses(row.get("requests", {})))), _rate(_sum(hits, misses)),
            _rate(rates.get("pass")), _of(row.get("size"), row.get("max_size")))))
    columns = ("cache", "hit ratio\nnow", "since\nstart", "lookups", "passed", "bytes")
    return Table("HTTP caches", columns, lines)


def _hits_and_misses(requests: Mapping[str, float]) -> tuple[float | None, float | None]:
    """What was served, and what was not, of the requests that were not passed."""
    found = _sum(requests.get("hit"), requests.get("stale"))
    return found, _sum(requests.get("miss"), requests.get("revalidation"))


def _document_limits(rows: list[Line]) -> Table:
    lines = []
    for row in rows:
        counts, rates = row.get("requests"), row.get("requests_per_second", {})
        if counts:
            lines.append(Row((_name(row), _rate(rates.get("allowed")), _rate(rates.get("denied")),
                              _percent(_share(rates.get("denied"), rates.get("allowed"))),
                              _count(counts.get("denied")))))
    return Table("Rate limits", ("limit", "allowed", "denied", "share\ndenied", "denied since\nstart"), lines)


def _keys(title: str, rows: list[Line]) -> Table:
    lines = [Row((shortened(key["key"], _LABEL), _name(row), _count(key["count"])))
             for row in rows for key in row["keys"][: max(3, _MOST_ROWS // len(rows))]]
    return Table(title, ("key", "counted by", "count"), lines, texts=2)


def _denied(rows: list[Line]) -> Table:
    return _keys("Who is denied", rows)


def _hotkeys(rows: list[Line]) -> Table:
    return _keys("Hottest keys", rows)


def _balancers(rows: list[Line]) -> Table:
    """Requests are counted by the adapters of HTTP clients, so there is a column where one is used."""
    counts = any("requests_per_second" in row for row in rows)
    lines = []
    for row in rows:
        for server in sorted(row.get("weight", {}))[:_MOST_ROWS]:
            is_healthy = row.get("healthy", {}).get(server) == 1
            requests = (_rate(row.get("requests_per_second", {}).get(server)),) if counts else ()
            lines.append(Row((
                shortened(server, _LABEL), _name(row), "healthy" if is_healthy else "out",
                _count(row.get("inflight", {}).get(server)), *requests,
                _milliseconds(row.get("latency", {}).get(server))), not is_healthy))
    columns = ("server", "balancer", "state", "in flight", *(("requests",) if counts else ()), "latency")
    return Table("Balance of servers", columns, lines, texts=3)


def _document_objectives(rows: list[Line]) -> Table:
    lines = []
    for row in rows:
        rules = row.get("alert_firing", {})
        firing = sorted({rule.rsplit(" ", 2)[0] for rule, fires in rules.items() if fires})
        burns = row.get("burn_rate", {})
        shortest = min(burns, key=float, default=None)
        burn = "-" if shortest is None else f"{burns[shortest]:.1f} in {written_duration(float(shortest))}"
        cells = (_name(row), _fine_percent(row.get("availability")), _fine_percent(row.get("target")),
                 _percent(row.get("error_budget")), burn, escaped(", ".join(firing)) or "none")
        lines.append(Row(cells, bool(firing)))
    columns = ("objective", "availability", "target", "budget\nleft", "burn rate", "alerts")
    return Table("Objectives", columns, lines)


def _concurrency(rows: list[Line]) -> Table:
    lines = []
    for row in rows:
        used = _quotient(row.get("inflight"), row.get("limit"))
        lines.append(Row((_name(row), _count(row.get("inflight")), _count(row.get("limit")), _percent(used),
                          _rate(row.get("denied_per_second"))), used is not None and used >= 1))
    return Table("Concurrency", ("limiter", "in flight", "limit", "used", "denied"), lines)


def _stores(rows: list[Line]) -> Table:
    lines = [Row((_name(row), _rate(row.get("calls_per_second")), _rate(row.get("failures_per_second")),
                  _rate(row.get("degraded_per_second")), _count(row.get("open_breakers"))),
                 bool(row.get("open_breakers"))) for row in rows]
    return Table("Stores", ("limit", "calls", "failures", "degraded", "breakers\nopen"), lines)


def _shedding(rows: list[Line]) -> Table:
    lines = []
    for row in rows:
        rates = row.get("requests_per_second", {})
        for priority in sorted({counted.rpartition(" ")[0] for counted in row.get("requests", {})}):
            name, before = (f"{row['name']}: {priority}", f"{priority} ") if priority else (row["name"], "")
            admitted, shed = rates.get(f"{before}admitted"), rates.get(f"{before}shed")
            lines.append(Row((shortened(name, _LABEL), _rate(admitted), _rate(shed),
                              _percent(_share(shed, admitted)))))
    return Table("Shedding", ("priority", "admitted", "shed", "share\nshed"), lines)


def _placements(rows: list[Line]) -> Table:
    """The nodes with the largest shares."""
    lines = []
    for row in rows:
        shares = row.get("share", {})
        nodes = sorted(shares, key=shares.__getitem__, reverse=True)[:_MOST_ROWS]
        lines += [Row((shortened(node, _LABEL), _name(row), _percent(shares[node]))) for node in nodes]
    return Table("Placement of keys", ("node", "placement", "share of keys"), lines, texts=2)


def _document_buckets(rows: list[Line]) -> Table:
    lines = [Row((_name(row), _fraction(row.get("available")), _fraction(row.get("capacity")),
                  _percent(_quotient(row.get("available"), row.get("capacity"))))) for row in rows]
    return Table("Buckets", ("bucket", "tokens", "of", "full"), lines)


def _throttles(rows: list[Line]) -> Table:
    lines = [Row((_name(row), _count(row.get("requests")), _count(row.get("accepts")),
                  _percent(row.get("rejection_probability")))) for row in rows]
    return Table("Throttles", ("throttle", "requests", "accepted", "rejected\nhere"), lines)


def _retry_budgets(rows: list[Line]) -> Table:
    lines = [Row((_name(row), _fraction(row.get("balance")))) for row in rows]
    return Table("Retry budgets", ("budget", "retries left"), lines)


_OF_DOCUMENT = {
    "problems": _problems, "caches": _caches, "near": _caches, "http_caches": _http_caches,
    "limits": _document_limits, "denied": _denied, "balancers": _balancers,
    "objectives": _document_objectives, "concurrency": _concurrency, "shedding": _shedding,
    "stores": _stores, "hotkeys": _hotkeys, "placements": _placements, "buckets": _document_buckets,
    "throttles": _throttles, "retry_budgets": _retry_budgets,
}

# ---- numbers ------------------------------------------------------------------------------------


def _name(row: Line) -> str:
    level = row.get("level")
    return shortened(f"{row['name']}: {level}" if level else row["name"], _LABEL)


def _sum(*numbers: float | None) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _quotient(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _share(part: float | None, rest: float | None) -> float | None:
    return _quotient(part, _sum(part, rest))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _fine_percent(share: float | None) -> str:
    """With the digits that tell availabilities apart."""
    return "-" if share is None else f"{100 * share:.6g}%"


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _fraction(number: float | None) -> str:
    return "-" if number is None else f"{number:,.1f}"


def _of(part: float | None, whole: float | None) -> str:
    return _count(part) if whole is None else f"{_count(part)} of {_count(whole)}"


def _rate(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.1f}/s" if 0 < number < 10 else f"{number:,.0f}/s"


def _milliseconds(seconds: float | None) -> str:
    return "-" if not seconds else f"{1000 * seconds:,.3g} ms"
