"""Draws docs/queue_simulation.svg: the latency of requests under each balancer, with a few slow servers.

Then prints a Markdown table of each balancer with many clients, with servers that fail or refuse immediately,
and with weights.
"""

import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

import headgate

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
queues = import_module("queue_model")

REQUESTS = 300_000
POINTS = 80
NAMES = ["RoundRobin", "WeightedRoundRobin", "RandomChoice", "PowerOfTwo", "PeakEWMA", "LeastLoaded"]
COLOURS = {
    "RoundRobin": "#c1666b",
    "RandomChoice": "#b08d3c",
    "PowerOfTwo": "#3d5a80",
    "PeakEWMA": "#0b6e4f",
    "LeastLoaded": "#6b4c9a",
}


def tail(taken):
    """Points (time, share of the requests that take longer), evenly spaced on a logarithmic axis."""
    shares = [10 ** (-4 * i / POINTS) for i in range(POINTS + 1)]
    return [queues.percentile(taken, min(1 - share, 1 - 1 / len(taken))) for share in shares], shares


def balancer(name, servers, clock):
    return getattr(headgate, name)(servers, clock=clock, seed=1)


def client_of(name):
    """Makes the balancer of a client, with its own seed."""
    def make(servers, clock, client):
        return getattr(headgate, name)(servers, clock=clock, seed=1000 * client + 7)

    return make


def weighted(make):
    return lambda servers, clock, client: make({"light": 1, "heavy": 4}, clock, client)


def table():
    """The rows of the table on the page."""
    columns = ["50 clients: median, p99", "one of ten fails", "two of three fail", "one of five says 429",
               "weights 1 and 4"]
    yield f"| | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name in NAMES:
        make = client_of(name)
        median, p99 = queues.many_clients(make, 100_000)
        shares = [queues.refused(make, 20_000, servers, refusing, outcome) for servers, refusing, outcome in (
            (10, 1, {"ok": False}), (3, 2, {"ok": False}), (5, 1, {"overloaded": True}))]
        shares.append(queues.share_of_the_light(weighted(make), 20_000))
        cells = [f"`{name}`", f"{median:.1f}, {p99:.1f}", *(f"{share:.1%}" for share in shares)]
        yield f"| {' | '.join(cells)} |"


def draw(axes):
    for name, colour in COLOURS.items():
        taken = queues.times(partial(balancer, name), REQUESTS)
        p99 = queues.percentile(taken, 0.99)
        print(f"{name:14} p50 {queues.percentile(taken, 0.5):8.2f}  p99 {p99:8.1f}", flush=True)
        axes.plot(*tail(taken), color=colour, label=f"{name}: {p99:,.1f}")
    axes.axhline(0.01, color="#6b7280", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlim=(0.5, 3e4), ylim=(1e-4, 1),
             xlabel="time in the system, in mean service times of a fast server",
             ylabel="share of requests that take longer")
    axes.set_title(f"{queues.SERVERS} servers, {queues.SLOW} of them {queues.SLOWNESS:g} times slower, "
                   f"load {queues.LOAD}", fontsize=10)
    axes.minorticks_off()
    axes.legend(title="99th percentile", frameon=False, fontsize=9, loc=(0.45, 0.08))
    axes.spines[["top", "right"]].set_visible(False)


def main():
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "headgate"}
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    draw(figure.subplots())
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "queue_simulation.svg"
    figure.savefig(target, metadata={"Date": None})
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
