"""What headgate promises of its compiled twin, each a ratio taken in one run, and whether it holds here."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headgate.cli.bench import bucket, lru, ring, startup
from headgate.cli.bench.race import Timing
from headgate.cli.bench.work import Result, subject

_RATIOS = (
    ("LRU get, hit", "lru.get_hit", lru.BASELINE, 1.25),
    ("put that evicts", "lru.put_evict", "cachebox", 1.0),
    ("ring get_node", "ring.get_node", ring.BASELINE, 2.0),
    ("ring get_node", "ring.get_node", "uhashring", 1 / 40),
    ("ring build", "ring.build", "uhashring", 1 / 8),
    ("ring add 1 node", "ring.add_node", "uhashring", 1 / 30),
    ("consume", "bucket.allow", bucket.BASELINE, 1.0),
)
_BYTES_PER_ENTRY = 56.0
_IMPORT_MS = 20.0


class Verdict(NamedTuple):
    """One budget: what is measured and in what; a straddled limit lies within the noise."""

    what: str
    limit: float
    measured: float
    straddled: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.limit


def verdicts(
    results: Mapping[str, Result], memory: Mapping[str, float], starts: Sequence[Timing]
) -> list[Verdict]:
    """The budgets that this run measured."""
    found = [
        _ratio(what, results[slug], than, limit)
        for what, slug, than, limit in _RATIOS
        if slug in results and results[slug].has(than)
    ]
    if memory:
        found.append(Verdict("LRU, overhead bytes an entry", _BYTES_PER_ENTRY, memory[subject()]))
    if starts:
        found.append(Verdict(f"{startup.IMPORT}, ms", _IMPORT_MS, startup.import_ms(starts)))
    return found


def _ratio(what: str, result: Result, than: str, limit: float) -> Verdict:
    ratio = result.subject.over(result.timing(than))
    return Verdict(f"{what}, times {than}", limit, ratio.median, ratio.straddles(limit))
