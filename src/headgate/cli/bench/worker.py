"""The works in processes of their own, one after the other.

How fast a loop runs depends on the process too: on its hash seed, and on where its code and data
happen to lie. So the rounds are dealt out to several processes, and all samples count.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from types import ModuleType

from headgate.cli.bench import bucket, limiter, lru, memo, ring
from headgate.cli.bench.child import Failures, announce, give_back, output_without_failures
from headgate.cli.bench.race import Timing, race
from headgate.cli.bench.work import Result, Scale, Work

ROOMS: dict[str, ModuleType] = {
    "lru": lru,
    "memo": memo,
    "ring": ring,
    "bucket": bucket,
    "limiter": limiter,
}


def works_of(rooms: Sequence[str], scale: Scale) -> list[Work]:
    """The works of the rooms, in the order of ROOMS."""
    return [work for name, room in ROOMS.items() if name in rooms for work in room.works(scale)]


def measure(
    works: Sequence[Work], scale: Scale, step: Callable[[str], None], failures: Failures
) -> dict[str, Result]:
    """The results by slug, each gathered from `scale.processes` processes."""
    share = scale._replace(
        rounds=math.ceil(scale.rounds / scale.processes), seconds=scale.seconds / scale.processes
    )
    results: dict[str, Result] = {}
    for _, work in product(range(scale.processes), works):
        step(f"{work.room}: {work.title}")
        result = _in_subprocess(work, share, failures)
        earlier = results.get(work.slug)
        results[work.slug] = result if earlier is None else earlier.joined(result)
    return results


def run_work(slug: str, scale: Scale) -> None:
    """What the subprocess does: give back the samples of one work as JSON."""
    work = next(work for work in works_of(list(ROOMS), scale) if work.slug == slug)
    field = work.build()
    timings = race(
        field, scale.rounds, scale.seconds, warm_up=work.warm_up, min_rounds=1, turn=announce
    )
    give_back(json.dumps([field.note, [(timing.name, timing.kind, timing.samples) for timing in timings]]))


def _in_subprocess(work: Work, scale: Scale, failures: Failures) -> Result:
    code = f"from {__name__} import Scale, run_work; run_work({work.slug!r}, {scale!r})"
    note, timings = json.loads(output_without_failures(code, failures))
    return Result(work, [Timing(*fields) for fields in timings], note)
