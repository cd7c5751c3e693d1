"""Concurrency limits for an overloaded service, compared with Netflix's Gradient2 and Vegas.

    python bench/concurrency_simulation.py [--plot FILE]

The service has 20 workers that take about 100 ms per request, and a queue. It receives 400 requests a second,
twice what it can serve; from the 40th to the 80th second a request takes about 200 ms. Denied requests are
not repeated. Gradient2 and Vegas are the algorithms of Netflix's concurrency-limits with their constants,
both in windows of a second, with a limiter that denies.
"""

import argparse
from heapq import heappop, heappush
from math import log10
from random import Random
from statistics import mean, quantiles

from headgate import ConcurrencyLimiter

WORKERS, RATE, SECONDS, SLOW = 20, 400.0, 120, (40, 80)
STEP = 10**9


class Clock:
    now = 0

    def __call__(self):
        return self.now


class Ours:
    """One of headgate's limiters."""

    def __init__(self, clock, limit=20, **options):
        self.limiter = ConcurrencyLimiter(limit, clock=clock, **options)

    @property
    def limit(self):
        return self.limiter.limit

    def admit(self):
        permit = self.limiter.acquire()
        return permit.release if permit else None


class Windowed:
    """Netflix's WindowedLimit and SimpleLimiter around an algorithm: windows of a second, at least ten
    samples."""

    def __init__(self, clock, rule):
        self.clock, self.rule = clock, rule
        self.inflight = self.end = 0
        self.begin()

    @property
    def limit(self):
        return int(self.rule.limit)

    def begin(self):
        self.samples, self.peak = [], 0

    def admit(self):
        if self.inflight >= self.limit:
            return None
        self.inflight += 1
        start, inflight = self.clock.now, self.inflight
        return lambda: self.done(self.clock.now - start, inflight)

    def done(self, latency, inflight):
        self.inflight -= 1
        self.samples.append(latency)
        self.peak = max(self.peak, inflight)
        if self.clock.now > self.end and len(self.samples) >= 10:
            self.rule.update(mean(self.samples), self.peak)
            self.end = self.clock.now + STEP
            self.begin()


class Gradient2:
    """Gradient2: long window 600, tolerance 1.5, smoothing 0.2, queue 4."""

    def __init__(self):
        self.limit, self.long, self.count = 20.0, 0.0, 0

    def update(self, short, inflight):
        self.count += 1
        factor = 1 / self.count if self.count <= 10 else 2 / 601
        self.long += (short - self.long) * factor
        if self.long > 2 * short:
            self.long *= 0.95
        if inflight < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * self.long / short))
        self.limit = max(20.0, min(200.0, self.limit * 0.8 + (self.limit * gradient + 4) * 0.2))


class Vegas:
    """Vegas: alpha 3, beta 6 and threshold 1 times log10(limit); probes at random times."""

    def __init__(self):
        self.limit, self.least, self.count = 20.0, 0, 0
        self.random = Random(3)
        self.jitter = self.random.uniform(0.5, 1)

    def update(self, latency, inflight):
        self.count += 1
        if self.jitter * 30 * self.limit <= self.count:
            self.count, self.jitter, self.least = 0, self.random.uniform(0.5, 1), latency
            return
        if not self.least or latency < self.least:
            self.least = latency
            return
        if 2 * inflight < self.limit:
            return
        step = max(1.0, log10(self.limit))
        queue = -(-self.limit * (latency - self.least) // latency)
        if queue <= step:
            self.limit += 6 * step
        elif queue < 3 * step:
            self.limit += step
        elif queue > 6 * step:
            self.limit -= step
        self.limit = max(1.0, min(1000.0, self.limit))


def policies(clock):
    """The limiters by name."""
    return {
        "gradient": Ours(clock, algorithm="gradient"),
        "aimd, max_latency=0.5": Ours(clock, algorithm="aimd", max_latency=0.5),
        "fixed, 20": Ours(clock, algorithm="fixed"),
        "Netflix Gradient2": Windowed(clock, Gradient2()),
        "Netflix Vegas": Windowed(clock, Vegas()),
        "none": Ours(clock, limit=10**6, algorithm="fixed", max_limit=10**6),
    }


def run(name):
    """The limit in each second; and the arrival and the duration of each admitted request, in seconds."""
    clock, random = Clock(), Random(1)
    policy = policies(clock)[name]
    free = [0] * WORKERS
    ends, limits, latencies, now = [], [], [], 0.0
    while now < SECONDS:
        now += random.expovariate(RATE)
        at = round(now * STEP)
        while ends and ends[0][0] <= at:
            clock.now, _, done = heappop(ends)
            done()
        clock.now = at
        while len(limits) < now:
            limits.append(policy.limit)
        if done := policy.admit():
            seconds = 0.1 * (2 if SLOW[0] <= now < SLOW[1] else 1) * random.uniform(0.8, 1.2)
            end = max(at, heappop(free)) + round(seconds * STEP)
            heappush(free, end)
            heappush(ends, (end, random.random(), done))
            latencies.append((now, (end - at) / STEP))
    return limits, latencies


def figures(limits, latencies, since, until):
    """The smallest and largest limit, median and 99% latency in ms, and admitted requests per second."""
    some = [1000 * latency for second, latency in latencies if since <= second < until]
    cuts = quantiles(some, n=100)
    span = limits[since:until]
    return min(span), max(span), cuts[49], cuts[98], len(some) / (until - since)


def plot(rows, path):
    """The limits over time, as SVG."""
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
    width, height, left, top = 760, 320, 50, 26
    most = 120
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 190}" height="{height + 70}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="14">limit (above what the 20 workers take at once, requests queue)</text>']

    def x(second):
        return left + second / SECONDS * (width - left)

    def y(limit):
        return top + height - min(limit, most) / most * height

    lines.append(f'<rect x="{x(SLOW[0]):.0f}" y="{top}" width="{x(SLOW[1]) - x(SLOW[0]):.0f}" '
                 f'height="{height}" fill="#eee"/>')
    lines += [f'<text x="{left - 6}" y="{y(limit) + 4:.0f}" text-anchor="end">{limit}</text>'
              f'<path d="M{left} {y(limit):.0f}H{width}" stroke="#ddd"/>' for limit in range(0, most + 1, 20)]
    under = top + height
    lines += [f'<text x="{x(second):.0f}" y="{under + 18}" text-anchor="middle">{second}</text>'
              for second in range(0, SECONDS + 1, 20)]
    lines.append(f'<text x="{left}" y="{under + 38}">seconds; grey: a request takes twice as long</text>')
    for number, (name, limits) in reversed(list(enumerate(rows))):  # headgate above
        points = " ".join(f"{x(second):.1f},{y(limit):.1f}" for second, limit in enumerate(limits))
        colour = colours[number % len(colours)]
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
                     f'<rect x="{width + 12}" y="{top + 22 * number}" width="14" height="4" fill="{colour}"/>'
                     f'<text x="{width + 32}" y="{top + 22 * number + 7}">{name}</text>')
    with open(path, "w") as file:
        file.write("\n".join([*lines, "</svg>", ""]))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args()
    spans = ((10, 40), (50, 80), (90, 120))
    heads = [f"s {since}-{until}: limit, p50, p99 ms, admitted/s" for since, until in spans]
    print(f"| | {' | '.join(heads)} |")
    print("|---" * (len(spans) + 1) + "|")
    rows = []
    for name in policies(Clock()):
        limits, latencies = run(name)
        cells = [figures(limits, latencies, *span) for span in spans]
        texts = ["{}-{}, {:.0f}, {:.0f}, {:.0f}".format(*cell) for cell in cells]
        print(f"| {name} | {' | '.join(texts)} |")
        if name != "none":
            rows.append((name, limits))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
