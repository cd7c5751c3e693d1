"""The report as tables."""

from collections.abc import Sequence
from typing import NamedTuple

from headgate.cli.bench.benchmark import Result, cores, subject
from headgate.cli.bench.budgets import Verdict
from headgate.cli.bench.interleave import Ratio, Timing, clock_name
from headgate.cli.bench.peers import missing_peers, peer_versions
from headgate.cli.bench.replay import Replay
from headgate.cli.bench.report import Report, amount, number, summary
from headgate.cli.machine import load_average, machine
from headgate.cli.tables import Printer, Row, Table

_UNITS = ((1e6, "ms"), (1e3, "us"), (1.0, "ns"))


class Section(NamedTuple):
    """One table: its benchmarks, and the title of a column with the memory of an entry, if it has one."""

    title: str
    slugs: Sequence[str]
    bytes_title: str = ""

    @property
    def suite(self) -> str:
        return self.slugs[0].partition(".")[0]


SECTIONS = (
    Section(
        "LRU cache, one operation",
        ("lru.get_hit", "lru.put_evict"),
        "bytes an entry\nat {:,}\nbeyond key, value",
    ),
    Section("LRU cache, a put that evicts, with cold keys", ("lru.put_evict_20", "lru.put_evict_200")),
    Section(
        "LRU cache, read through (get; put after a miss), capacity: a tenth",
        ("lru.read_through_users", "lru.read_through_paths", "lru.read_through_addresses"),
    ),
    Section("Memoizing decorator", ("memo.hit",)),
    Section("Hash ring", ("ring.get_node", "ring.build", "ring.add_node")),
    Section("Token bucket", ("bucket.allow", "bucket.deny")),
    Section(
        "Rate limiter, by key", ("limiter.allow_hot", "limiter.allow_many"), "bytes a key\nat {:,}\n"
    ),
)


def show_header(to: Printer) -> None:
    """What is compared, and where."""
    for line in _header():
        to.text(line)


def show_section(section: Section, report: Report, to: Printer) -> None:
    """What is measured of one section."""
    measured = [report.results[slug] for slug in section.slugs if slug in report.results]
    if measured:
        to.table(_timing_table(section, measured, report))


def show_end(report: Report, to: Printer) -> None:
    """What follows the sections."""
    if report.replay is not None:
        to.table(_replay_table(report.replay))
    if report.verdicts:
        to.table(budget_table(report.verdicts))
    to.gap()
    to.text(_legend(report))
    to.gap()
    to.text(summary(report))


def unit_of(timings: Sequence[Timing]) -> tuple[float, str]:
    """The largest unit in which the fastest is at least 1."""
    fastest = min(timing.median for timing in timings)
    return next((factor, name) for factor, name in _UNITS if fastest >= factor or factor == 1)


def _header() -> list[str]:
    facts = machine()
    lines = [
        f"headgate {facts['headgate']}, {facts['backend']} twin ({facts['backend_reason']}); "
        f"{facts['python']} ({facts['python_build']}); {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['system']}.",
        f"Peers: {', '.join(map(' '.join, peer_versions().items())) or 'none installed'}.",
    ]
    if missing_peers():
        lines.append(f"Not installed: {', '.join(missing_peers())}.")
    load = load_average()
    if load is not None and load > cores() / 2:
        lines.append(f"The machine is busy (load {load:.1f} on {cores()} cores): expect noise.")
    return lines


def _timing_table(section: Section, results: Sequence[Result], report: Report) -> Table:
    names = list(dict.fromkeys(timing.name for result in results for timing in result.timings))
    columns = [_timing_column(result, names) for result in results]
    titles = [_timing_title(result) for result in results]
    if section.bytes_title and (memory := report.memory.get(section.suite)):
        titles.append(section.bytes_title.format(report.scale.entries))
        columns.append([f"{memory[name]:.0f}" if name in memory else "-" for name in names])
    rows = [Row([name, *cells], name == subject()) for name, *cells in zip(names, *columns, strict=True)]
    return Table(section.title, ["", *titles], rows)


def _timing_title(result: Result) -> str:
    detail = ", ".join(filter(None, (result.benchmark.detail, result.note)))
    return f"{result.benchmark.title}\n{detail}\n{unit_of(result.timings)[1]}    ±  ratio "


def _timing_column(result: Result, names: Sequence[str]) -> list[str]:
    factor, _ = unit_of(result.timings)
    cells = []
    for name in names:
        if not result.has(name):
            cells.append("-")
            continue
        timing = result.timing(name)
        cells.append(_timing_cell(timing, timing.over(result.subject), factor, reference=name == subject()))
    return cells


def _timing_cell(timing: Timing, ratio: Ratio, factor: float, *, reference: bool) -> str:
    mark = "~" if ratio.straddles(1) and not reference else " "
    return f"{number(timing.median / factor)} {_spread(timing):>4} {number(ratio.median) + 'x':>6}{mark}"


def _spread(timing: Timing) -> str:
    """Four characters at most, so that noise does not widen the table."""
    if len(timing.samples) < 2:
        return "-"
    return f"±{timing.spread:.0%}" if timing.spread < 0.995 else ">99%"


def _replay_table(replay: Replay) -> Table:
    times = _timing_column(replay.result, list(replay.hits))
    rows = [
        Row([name, f"{hits:,}", f"{hits / replay.requests:.2%}", cell], name == subject())
        for (name, hits), cell in zip(replay.hits.items(), times, strict=True)
    ]
    title = f"{replay.log}: {replay.requests:,} requests for {replay.distinct:,} distinct keys"
    return Table(title, ["", "hits", "hit ratio", _timing_title(replay.result)], rows)


def budget_table(verdicts: Sequence[Verdict]) -> Table:
    rows = [
        Row([verdict.what, f"<= {amount(verdict.limit)}", amount(verdict.measured), _verdict(verdict)])
        for verdict in verdicts
    ]
    return Table("Budgets of the compiled twin", ["", "budget", "measured", "verdict"], rows)


def _verdict(verdict: Verdict) -> str:
    word = "met" if verdict.met else "missed"
    return f"{word}, within noise" if verdict.straddled else word


def _legend(report: Report) -> str:
    """How to read the tables."""
    rounds = max(len(result.subject.samples) for result in report.all_results)
    processes = report.scale.processes
    expected = report.verdicts or report.replay
    budgets = "" if expected else " Budgets are those of the compiled twin, which is not active."
    return (
        f"Medians of up to {rounds} interleaved rounds in {processes} process{'es' * (processes > 1)} "
        f"({clock_name}), the empty loop subtracted; "
        "± is half the interquartile range; "
        f"ratio: to {subject()}, paired by round, ~ where the noise exceeds the difference; "
        f"text: textbook implementations.{budgets}"
    )
