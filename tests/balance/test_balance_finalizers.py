"""Finalizers that come amid a balancer's calls, and use it."""

import gc
import weakref
from random import Random

import pytest
from finalizers import struck_by

from headgate import NoServerError

NAMES = ["RoundRobin", "WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA",
         "AddressHash", "KeyHash"]


class Actor:
    """Does something at random to a balancer."""

    def __init__(self, balancer, seed):
        self.balancer, self.draw, self.picks, self.acts = balancer, Random(seed), [], 0

    def act(self):
        self.acts += 1
        balancer, draw = self.balancer, self.draw
        server, choice = f"s{draw.randrange(9)}", draw.randrange(9)
        try:
            if choice == 0:
                balancer.add_server(server, draw.randrange(1, 4))
            elif choice == 1 and len(balancer) > 1:
                balancer.remove_server(server)
            elif choice == 2:
                balancer.drain_server(server, draw.random() < 0.5)
            elif choice == 3:
                balancer.set_weight(server, draw.randrange(1, 4))
            elif choice == 4 and self.picks:
                self.picks.pop(draw.randrange(len(self.picks))).done(draw.random() < 0.6)
            elif choice == 5 and self.picks:
                self.picks.pop()
            elif choice == 6:
                assert balancer.get_server("10.0.0.1", exclude=[server]) is not None
            else:
                self.picks.append(balancer.pick("10.0.0.2", exclude=[server] * (choice == 7)))
        except (KeyError, ValueError, NoServerError):
            pass


@pytest.mark.parametrize("seed", [5, 7])
@pytest.mark.parametrize(("name", "options"), [
    *[(name, {"slow_start": seconds}) for name in NAMES for seconds in (0, 3)],
    ("AddressHash", {"scheme": "nginx"}),
])
def test_finalizers_find_the_balancer_whole(twin, clock, name, options, seed):
    balancer = getattr(twin.balance, name)([f"s{i}" for i in range(6)], clock=clock, max_failures=2,
                                           ejection_time=1, seed=0, **options)
    user, finalizer = Actor(balancer, seed), Actor(balancer, seed + 1)
    for _ in range(150):
        with struck_by(finalizer.act, 5):
            user.act()
        clock.advance(0.2)
        balancer._check()
    assert finalizer.acts == 750
    for pick in user.picks + finalizer.picks:
        pick.done()
    balancer._check()
    assert all(record.in_flight == 0 for record in balancer.records)


class Holder:
    """A server that holds its balancer, and picks of it."""


@pytest.mark.parametrize("name", ["RoundRobin", "WeightedRoundRobin", "LeastLoaded", "PeakEWMA"])
def test_a_balancer_and_its_picks_go_in_one_cycle(twin, name):
    """The balancer, as the older one, is cleared first; an error in there fails the test as unraisable."""
    gc.collect()
    balancer = getattr(twin.balance, name)(["a", "b"])
    holder = Holder()
    balancer.add_server(holder, 2)
    holder.held = [balancer, [balancer.pick() for _ in range(9)]]
    gone = weakref.ref(balancer)
    del balancer, holder
    gc.collect()
    assert gone() is None
