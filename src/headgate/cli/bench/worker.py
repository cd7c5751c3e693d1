"""Runs the benchmarks in subprocesses, one after the other.

The speed of a loop depends on the process too: on its hash seed and on its memory layout. So the rounds
are spread over several processes, and all samples count.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from types import ModuleType

from headgate.cli.bench import bucket, limiter, lru, memo, ring
from headgate.cli.bench.benchmark import Benchmark, Result, Scale
from headgate.cli.bench.child import Failures, announce, give_back, output_without_failures
from headgate.cli.bench.interleave import Timing, compare

SUITES: dict[str, ModuleType] = {
    "lru": lru,
    "memo": memo,
    "ring": ring,
    "bucket": bucket,
    "limiter": limiter,
}


def benchmarks_of(suites: Sequence[str], scale: Scale) -> list[Benchmark]:
    """The benchmarks of the suites, in the order of SUITES."""
    chosen = [suite for name, suite in SUITES.items() if name in suites]
    return [benchmark for suite in chosen for benchmark in suite.benchmarks(scale)]


def measure(
    benchmarks: Sequence[Benchmark],
    scale: Scale,
    step: Callable[[str], None],
    failures: Failures,
    results: dict[str, Result],
) -> None:
    """Put the results into `results` by slug, each collected from `scale.processes` processes."""
    share = scale._replace(
        rounds=math.ceil(scale.rounds / scale.processes), seconds=scale.seconds / scale.processes
    )
    for _, benchmark in product(range(scale.processes), benchmarks):
        step(f"{benchmark.suite}: {benchmark.title}")
        result = _in_subprocess(benchmark, share, failures)
        earlier = results.get(benchmark.slug)
        results[benchmark.slug] = result if earlier is None else earlier.joined(result)


def run_benchmark(slug: str, scale: Scale) -> None:
    """Run in the subprocess: give back the samples of one benchmark as JSON."""
    benchmark = next(benchmark for benchmark in benchmarks_of(list(SUITES), scale) if benchmark.slug == slug)
    comparison = benchmark.build()
    timings = compare(comparison, scale.rounds, scale.seconds, min_rounds=1, announce=announce)
    samples = [(timing.name, timing.kind, timing.samples) for timing in timings]
    give_back(json.dumps([comparison.note, samples]))


def _in_subprocess(benchmark: Benchmark, scale: Scale, failures: Failures) -> Result:
    code = f"from {__name__} import Scale, run_benchmark; run_benchmark({benchmark.slug!r}, {scale!r})"
    note, timings = json.loads(output_without_failures(code, failures))
    return Result(benchmark, [Timing(*fields) for fields in timings], note)
