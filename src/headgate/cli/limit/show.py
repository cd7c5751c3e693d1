"""The report of a simulation as tables and as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from headgate._base.texts import shortened
from headgate.cli.limit.engine import Traffic, Trial, next_width
from headgate.cli.tables import Printer, Row, Table
from headgate.cli.times import written, written_span

SCHEMA = "headgate.limit.simulate"
SCHEMA_VERSION = 1
_ROWS = 20
_LABEL = 40


class Span(NamedTuple):
    """A span of the log: its start in nanoseconds, and its requests and denials."""

    start: int
    requests: int
    denied: int


class Simulation(NamedTuple):
    """A log and the results of all rates; the `top` most denied keys are listed."""

    log: str
    traffic: Traffic
    trials: Sequence[Trial]
    top: int
    bad_lines: int

    @property
    def seconds(self) -> float:
        return (self.traffic.end - self.traffic.start) / 1e9

    def width(self, most: int) -> int:
        """The width of a span in seconds, such that there are at most `most` spans."""
        width = max([self.traffic.timeline.width, *(trial.timeline.width for trial in self.trials)])
        while self.seconds // width + 2 > most:
            width = next_width(width)
        return width

    def spans(self, trial: Trial, width: int) -> list[Span]:
        """The whole log in spans of `width` seconds, including spans without requests."""
        requests, denied = self.traffic.timeline.widened(width), trial.timeline.widened(width)
        size = width * 10**9
        first, last = self.traffic.start // size, self.traffic.end // size
        return [Span(at * size, requests[at], denied[at]) for at in range(first, last + 1)]


def show(found: Simulation, to: Printer) -> None:
    """The numbers of denials, then for each rate the keys and the times."""
    to.table(_summary(found))
    for trial in found.trials:
        if trial.denied:
            to.table(_by_key(found, trial))
            to.table(_by_time(found, trial))
    for note in notes(found):
        to.gap()
        to.text(note)


def notes(found: Simulation) -> list[str]:
    """Properties of the log that make the tables inexact."""
    evictions = max(trial.evictions for trial in found.trials)
    counts = {
        "Lines skipped: {:,}.": found.bad_lines,
        "Lines older than one before: {:,}. They are counted at its time; sort the log for exact numbers.":
            found.traffic.late,
        "Evictions of keys: {:,}. Raise --max-keys for exact numbers.": evictions,
    }
    return [note.format(count) for note, count in counts.items() if count]


def as_json(found: Simulation) -> dict[str, Any]:
    width = found.width(1000)
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "log": found.log,
        "requests": found.traffic.requests,
        "keys": len(found.traffic.by_key),
        "start": found.traffic.start / 1e9,
        "seconds": found.seconds,
        "late_lines": found.traffic.late,
        "bad_lines": found.bad_lines,
        "span_seconds": width,
        "rates": [_record(found, trial, width) for trial in found.trials],
    }


def _record(found: Simulation, trial: Trial, width: int) -> dict[str, Any]:
    return {
        "rate": trial.rate,
        "denied": trial.denied,
        "denied_keys": len(trial.by_key),
        "denied_by_tier": dict(trial.by_tier),
        "evictions": trial.evictions,
        "top": [
            {"key": key, "requests": found.traffic.by_key[key], "denied": denied}
            for key, denied in trial.by_key.most_common(found.top)
        ],
        "spans": [
            {"start": span.start / 1e9, "requests": span.requests, "denied": span.denied}
            for span in found.spans(trial, width)
        ],
    }


def _summary(found: Simulation) -> Table:
    traffic = found.traffic
    title = (
        f"{found.log}: {traffic.requests:,} requests of {len(traffic.by_key):,} keys"
        f" in {written_span(found.seconds)}"
    )
    rows = []
    for trial in found.trials:
        rows.append(_counts(trial.rate, traffic.requests, trial.denied, len(trial.by_key)))
        if len(trial.by_tier) > 1:
            rows += [_counts(f"  {tier}", traffic.requests, count) for tier, count in trial.by_tier.items()]
    return Table(title, ["rate", "denied", "of all", "keys\ndenied"], rows)


def _counts(label: str, requests: int, denied: int, keys: int | None = None) -> Row:
    return Row([label, f"{denied:,}", f"{denied / requests:.2%}", "" if keys is None else f"{keys:,}"])


def _by_key(found: Simulation, trial: Trial) -> Table:
    rows = [
        _span_row(str(key), found.traffic.by_key[key], denied)
        for key, denied in trial.by_key.most_common(found.top)
    ]
    return Table(f"Denied by {trial.rate}, by key", ["key", "requests", "denied", "share"], rows)


def _by_time(found: Simulation, trial: Trial) -> Table:
    width = found.width(_ROWS)
    rows = [
        _span_row(written(span.start), span.requests, span.denied) for span in found.spans(trial, width)
    ]
    title = f"Denied by {trial.rate}, in spans of {written_span(width)}"
    return Table(title, ["start", "requests", "denied", "share"], rows)


def _span_row(label: str, requests: int, denied: int) -> Row:
    share = f"{denied / requests:.1%}" if requests else ""
    return Row([shortened(label, _LABEL), f"{requests:,}", f"{denied:,}", share])
