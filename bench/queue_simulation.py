"""Draws docs/queue_simulation.svg: how long requests take under each balancer, a few servers being slow."""

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
COLOURS = {
    "RoundRobin": "#c1666b",
    "RandomChoice": "#b08d3c",
    "PowerOfTwo": "#3d5a80",
    "PeakEWMA": "#0b6e4f",
    "LeastLoaded": "#6b4c9a",
}


def tail(taken):
    """Points (time, share of the requests that take longer) at even distances on a logarithmic axis."""
    shares = [10 ** (-4 * i / POINTS) for i in range(POINTS + 1)]
    return [queues.percentile(taken, min(1 - share, 1 - 1 / len(taken))) for share in shares], shares


def balancer(name, servers, clock):
    return getattr(headgate, name)(servers, clock=clock, seed=1)


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


if __name__ == "__main__":
    main()
