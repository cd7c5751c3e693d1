"""SLO, compared with dict.get, in interleaved rounds: ``python bench/bench_slo.py``."""

from tempfile import TemporaryDirectory

from headgate.cli.bench.interleave import Candidate, Comparison, Loop, always, compare, empty_loop
from headgate.cli.bench.workload import user_id
from headgate.slo import _compiled as compiled
from headgate.slo import _pure as pure

KEYS = [user_id(number) for number in range(1_000)]
TRIAL_NS = 20_000_000


def objective(twin, path=None):
    slo = twin.SLO(99.9, latency=1, path=path)
    slo.record(True, 10_000)
    slo.record(False, 5)
    return slo


def candidates(folder):
    """Names, statements and their targets; the first is what all others are compared with."""
    yield "dict.get", "target(key)", dict.fromkeys(KEYS).get
    for name, twin in (("compiled", compiled), ("pure", pure)):
        own, shared = objective(twin), objective(twin, f"{folder}/{name}")
        yield f"{name}: record()", "target()", own.record
        yield f"{name}: record(False)", "target(False)", own.record
        yield f"{name}: record(seconds=0.5)", "target(seconds=0.5)", own.record
        yield f"{name}: record(), shared", "target()", shared.record
        yield f"{name}: burn_rate(300)", "target(300)", own.burn_rate
        yield f"{name}: alerts()", "target()", own.alerts


def main():
    with TemporaryDirectory() as folder:
        chosen = [
            Candidate(name, "compiled", lambda s=statement, t=target: Loop(s, KEYS, always(t), TRIAL_NS))
            for name, statement, target in candidates(folder)
        ]
        timings = compare(Comparison(chosen, empty_loop(KEYS, TRIAL_NS)), rounds=25, seconds=60)
        for timing in timings:
            ratio = timing.over(timings[0])
            spread = f"({ratio.low:.2f}-{ratio.high:.2f})"
            print(f"{timing.name:32} {timing.median:8.1f} ns {ratio.median:8.2f} x {spread}")


if __name__ == "__main__":
    main()
