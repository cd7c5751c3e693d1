"""Servers with queues, and balancers that send them requests at random times."""

from heapq import heappop, heappush
from random import Random

from clocks import FakeClock

SERVERS = 50
SLOW = 2
SLOWNESS = 5.0
LOAD = 0.7
_SECOND = 1e6  # of the simulation, in the clock's nanoseconds: a mean service time of a fast server
_REFUSAL = 0.01


class Fleet:
    """The servers of a simulation, which serve one request at a time each.

    `slowness` maps servers to how many times the mean service time they take; those in `refusing` end a
    request at once, with the keywords of `outcome` for ``done``.
    """

    def __init__(self, slowness, refusing=(), outcome=None):
        self.slowness, self.refusing, self.outcome = slowness, set(refusing), outcome or {"ok": False}
        self.free = dict.fromkeys(slowness, 0.0)

    def rate(self, load):
        """How many requests a unit of time make up this share of what the servers can do together."""
        return load * sum(1 / slow for server, slow in self.slowness.items() if server not in self.refusing)

    def serve(self, server, now, draw):
        """The time at which the server ends a request that comes now, and the outcome."""
        if server in self.refusing:
            return now + _REFUSAL, self.outcome
        self.free[server] = max(now, self.free[server]) + draw.expovariate(1) * self.slowness[server]
        return self.free[server], {}


def simulated(make, fleet, requests, *, clients=1, load=LOAD, second=_SECOND, seed=11):
    """What became of each request: (server, time in the system in mean service times of a fast server).

    `make` is called with the servers, the clock and the number of a client and returns its balancer. Service
    times and the gaps between requests are exponential; each request is one of a client drawn at random.
    """
    draw, clock, now = Random(seed), FakeClock(0), 0.0
    balancers = [make(list(fleet.slowness), clock, client) for client in range(clients)]
    rate, running, ended = fleet.rate(load), [], []
    for number in range(requests):
        now += draw.expovariate(rate)
        while running and running[0][0] <= now:
            end, _, pick, outcome = heappop(running)
            clock.now = round(end * second)
            pick.done(**outcome)
        clock.now = round(now * second)
        pick = balancers[draw.randrange(clients) if clients > 1 else 0].pick()
        end, outcome = fleet.serve(pick.server, now, draw)
        heappush(running, (end, number, pick, outcome))
        ended.append((pick.server, end - now))
    return ended


def times(make, requests, seed=11):
    """The sorted times of requests to 50 servers, two of which are slow, from one client."""
    fleet = Fleet({server: SLOWNESS if server < SLOW else 1.0 for server in range(SERVERS)})
    ended = simulated(lambda servers, clock, _: make(servers, clock), fleet, requests, seed=seed)
    return sorted(time for _, time in ended)


def percentile(taken, share):
    return taken[int(len(taken) * share)]


def share_at(ended, servers):
    """The share of the requests that went to some servers."""
    return sum(server in servers for server, _ in ended) / len(ended)


def many_clients(make, requests):
    """The median and the 99th percentile: 50 clients that know nothing of each other, 20 equal servers."""
    ended = simulated(make, Fleet(dict.fromkeys(range(20), 1.0)), requests, clients=50)
    taken = sorted(time for _, time in ended)
    return percentile(taken, 0.5), percentile(taken, 0.99)


def refused(make, requests, servers, refusing, outcome, clients=5):
    """The share of the requests that fail where some servers end them at once; a service takes 50 ms."""
    fleet = Fleet(dict.fromkeys(range(servers), 1.0), range(refusing), outcome)
    return share_at(simulated(make, fleet, requests, clients=clients, load=0.5, second=5e7), range(refusing))


def share_of_the_light(make, requests):
    """What the lighter of two servers gets, equally fast, while there is mostly one request at a time."""
    fleet = Fleet({"light": 1.0, "heavy": 1.0})
    return share_at(simulated(make, fleet, requests, load=0.1), {"light"})
