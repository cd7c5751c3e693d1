"""Hit ratio over size, a curve a policy, named at its end."""

from typing import Any

from headgate.cli.simulate.show import Simulation


def draw(found: Simulation, figure: Any) -> None:
    """Fill the figure."""
    figure.set_size_inches(8, 5)
    axes = figure.subplots()
    for policy in found.policies:
        curve = found.curve(policy)
        sizes = [point.maxsize for point in curve]
        axes.plot(sizes, [100 * point.hit_ratio for point in curve], marker="o", markersize=4, label=policy)
    axes.set_xscale("log")
    axes.set_xticks(found.sizes, [f"{size:,}" for size in found.sizes], rotation=45, ha="right", fontsize=8)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("weight" if found.weighted else "entries")
    axes.set_ylabel("hit ratio, %")
    axes.grid(alpha=0.3)
    axes.set_title(f"{found.log}: {found.requests:,} requests", fontsize=10, loc="left")
    axes.legend(fontsize=9)
