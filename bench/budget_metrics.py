"""The cost of a scrape of 1,000 primitives, by kind: ``python bench/budget_metrics.py``."""

import sys
from time import process_time_ns

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, Gauge, generate_latest

import headgate
from headgate.adapters._readings import readings
from headgate.adapters.opentelemetry import Observer
from headgate.adapters.prometheus import register

PRIMITIVES = 1000
ROUNDS = 12


def best(operation):
    """The least CPU time of some calls, in ms."""
    times = []
    for _ in range(ROUNDS):
        start = process_time_ns()
        operation()
        times.append(process_time_ns() - start)
    return min(times) / 1e6


def full(hotkeys):
    for at in range(10):
        hotkeys.add(f"user:{at}", at + 1)
    return hotkeys


KINDS = {
    "LRUCache": lambda: headgate.LRUCache(10),
    "RateLimits, 2 levels": lambda: headgate.RateLimits(ip="10/s", user="100/min", max_keys=10),
    "ConcurrencyLimiter": headgate.ConcurrencyLimiter,
    "PowerOfTwo, 10 servers": lambda: headgate.PowerOfTwo([f"http://10.0.0.{at}" for at in range(10)]),
    "HashRing, 10 x 150": lambda: headgate.HashRing([f"node-{at}" for at in range(10)]),
    "HotKeys, 10 keys": lambda: full(headgate.HotKeys(10)),
    "SLO": lambda: headgate.SLO(99.9),
}


def collection(source):
    """What a reader of the SDK collects of a source."""
    reader = InMemoryMetricReader()
    Observer(source, meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    return reader.get_metrics_data


def scrape(source):
    registry = CollectorRegistry()
    register(source, registry=registry)
    return lambda: generate_latest(registry)


def plain(samples):
    """The client's own gauges with as many samples: what its rendering alone costs."""
    registry = CollectorRegistry()
    gauge = Gauge("plain", "Of the client.", ["name"], registry=registry)
    for at in range(samples):
        gauge.labels(f"primitive-{at}").set(at)
    return lambda: generate_latest(registry)


def show(name, source):
    samples = sum(len(family.samples) for family in readings(source))
    times = [best(each) for each in (lambda: readings(source), scrape(source), plain(samples),
                                     collection(source))]
    print(f"| {name} | {samples:,} | {' | '.join(f'{each:.1f}' for each in times)} |")


def main():
    version = sys.version.split()[0]
    print(f"CPython {version}, headgate {headgate.backend}; ms of CPU, {PRIMITIVES:,} primitives\n")
    print("| primitives | samples | reading | Prometheus text | as many plain gauges | OpenTelemetry |")
    print("|---|---|---|---|---|---|")
    for name, make in KINDS.items():
        show(name, {f"primitive-{at}": make() for at in range(PRIMITIVES)})
    makers = list(KINDS.values())
    show("a mixture", {f"primitive-{at}": makers[at % len(makers)]() for at in range(PRIMITIVES)})


if __name__ == "__main__":
    main()
