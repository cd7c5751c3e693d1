"""The report as JSON."""

from typing import Any

from headgate.cli.bench.benchmark import Result, subject
from headgate.cli.bench.interleave import Timing, clock_name
from headgate.cli.bench.peers import peer_versions
from headgate.cli.bench.replay import Replay
from headgate.cli.bench.report import Report, summary
from headgate.cli.machine import machine

SCHEMA = "headgate.bench"
SCHEMA_VERSION = 1


def as_json(report: Report) -> dict[str, Any]:
    """The whole report; times in nanoseconds per operation."""
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "machine": machine(),
        "peers": peer_versions(),
        "left_out": report.failures,
        "interrupted": report.interrupted,
        "clock": clock_name,
        "subject": subject(),
        "scale": report.scale._asdict(),
        "benchmarks": [_result_json(result) for result in report.results.values()],
        "bytes_per_entry": report.memory.get("lru", {}),
        "bytes_per_key": report.memory.get("limiter", {}),
        "start_ns": {timing.name: _timing_json(timing) for timing in report.starts},
        "budgets": [verdict._asdict() | {"met": verdict.met} for verdict in report.verdicts],
        "replay": None if report.replay is None else _replay_json(report.replay),
        "summary": summary(report),
    }


def _timing_json(timing: Timing) -> dict[str, Any]:
    low, high = timing.quartiles
    return {
        "kind": timing.kind,
        "median": timing.median,
        "q1": low,
        "q3": high,
        "samples": list(timing.samples),
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "benchmark": result.benchmark.slug,
        "title": result.benchmark.title,
        "detail": result.benchmark.detail,
        "note": result.note,
        "candidates": {
            timing.name: _timing_json(timing) | {"ratio": timing.over(result.subject)._asdict()}
            for timing in result.timings
        },
    }


def _replay_json(replay: Replay) -> dict[str, Any]:
    facts = _result_json(replay.result)
    for name, hits in replay.hits.items():
        facts["candidates"][name] |= {"hits": hits, "hit_ratio": hits / replay.requests}
    sizes = {"requests": replay.requests, "distinct": replay.distinct, "maxsize": replay.maxsize}
    return {"log": replay.log} | sizes | facts
