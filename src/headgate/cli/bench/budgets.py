"""The budgets of the compiled twin, each a ratio taken in one run, and whether they hold here."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headgate.cli.bench import bucket, limiter, lru, memo, ring, startup
from headgate.cli.bench.benchmark import Result
from headgate.cli.bench.interleave import Timing

_OURS = "headgate compiled"
_RATIOS = (
    ("LRU get, hit", "lru.get_hit", _OURS, lru.BASELINE, 1.25),
    ("put that evicts", "lru.put_evict", _OURS, "cachebox", 1.0),
    ("put, 20 x the keys", "lru.put_evict_20", _OURS, "cachebox", 0.9),
    ("put, 200 x the keys", "lru.put_evict_200", _OURS, "cachebox", 0.9),
    ("lru_cache, hit", "memo.hit", _OURS, memo.BASELINE, 0.6),
    ("ring get_node", "ring.get_node", _OURS, ring.BASELINE, 2.0),
    ("ring get_node", "ring.get_node", _OURS, "uhashring", 1 / 40),
    ("ring build", "ring.build", _OURS, "uhashring", 1 / 8),
    ("ring add 1 node", "ring.add_node", _OURS, "uhashring", 1 / 30),
    ("consume", "bucket.allow", _OURS, bucket.BASELINE, 1.0),
    ("allow, hot", "limiter.allow_hot", _OURS, limiter.BASELINE, 2.5),
    ("allow, many", "limiter.allow_many", _OURS, "throttled-py", 1 / 20),
    ("path=", "limiter.allow_hot", limiter.SHARED, _OURS, 1.5),
)
_BYTES = (("lru", "LRU, overhead bytes an entry", 56.0), ("limiter", "limiter, bytes a key", 24.0))
_IMPORT_MS = 20.0


class Verdict(NamedTuple):
    """One budget and its measurement; the limit is straddled if it lies within the noise."""

    what: str
    limit: float
    measured: float
    straddled: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.limit


def verdicts(
    results: Mapping[str, Result], memory: Mapping[str, Mapping[str, float]], starts: Sequence[Timing]
) -> list[Verdict]:
    """The budgets that this run measured."""
    found = [
        _ratio(what, results[slug], of, than, limit)
        for what, slug, of, than, limit in _RATIOS
        if slug in results and results[slug].has(of) and results[slug].has(than)
    ]
    found += [
        Verdict(what, limit, memory[suite][_OURS]) for suite, what, limit in _BYTES if memory.get(suite)
    ]
    if starts:
        found.append(Verdict(f"{startup.IMPORT}, ms", _IMPORT_MS, startup.import_ms(starts)))
    return found


def _ratio(what: str, result: Result, of: str, than: str, limit: float) -> Verdict:
    ratio = result.timing(of).over(result.timing(than))
    return Verdict(f"{what}, times {than}", limit, ratio.median, ratio.straddles(limit))
