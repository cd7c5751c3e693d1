"""Servers with queues, and a balancer that sends them requests at random times."""

from heapq import heappop, heappush
from random import Random

from conftest import FakeClock

SERVERS = 50
SLOW = 2
SLOWNESS = 5.0
LOAD = 0.7
_SECOND = 1e6  # of the simulation, in the clock's nanoseconds


def times(make, requests, seed=11):
    """The time that each request waits and is served, sorted, in mean service times of a fast server.

    `make` is given the servers and the clock, and answers the balancer. Service times and the gaps
    between requests are exponential; the load is the share of what all servers together can do.
    """
    draw, clock, now = Random(seed), FakeClock(0), 0.0
    slowness = {server: SLOWNESS if server < SLOW else 1.0 for server in range(SERVERS)}
    rate = LOAD * sum(1 / factor for factor in slowness.values())
    free = dict.fromkeys(slowness, 0.0)
    balancer, taken, running = make(list(slowness), clock), [], []
    for number in range(requests):
        now += draw.expovariate(rate)
        while running and running[0][0] <= now:
            end, _, pick = heappop(running)
            clock.now = round(end * _SECOND)
            pick.done()
        clock.now = round(now * _SECOND)
        pick = balancer.pick()
        end = max(now, free[pick.server]) + draw.expovariate(1) * slowness[pick.server]
        free[pick.server] = end
        heappush(running, (end, number, pick))
        taken.append(end - now)
    return sorted(taken)


def percentile(taken, share):
    return taken[int(len(taken) * share)]
