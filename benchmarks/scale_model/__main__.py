"""Show what so many cameras cost, and simulate a busy minute of them."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from .demand import cameras_at_wall, demands, first_wall, homes_needed, reconnect_seconds
from .deployment import Deployment, Habits
from .simulation import Outcome, Simulation

_CAMERAS_PER_SITE = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of parts, the latency of receipts and the first wall."""
    options = _parser().parse_args(arguments)
    sites = options.sites or max(1, options.cameras // _CAMERAS_PER_SITE)
    deployment = Deployment(
        options.cameras,
        sites,
        brokers=options.brokers,
        workers=options.workers,
        trackers=options.trackers,
        mongod_cores=options.mongod_cores,
        habits=replace(Habits(), images=options.images, changes_everywhere=options.changes_everywhere),
    ).split(options.homes)
    outcome = Simulation(deployment, np.random.default_rng(options.seed)).run(options.seconds)
    _show(deployment, outcome)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_model", description=__doc__)
    parser.add_argument("--cameras", type=int, required=True)
    parser.add_argument("--sites", type=int, help=f"(one for {_CAMERAS_PER_SITE} cameras)")
    parser.add_argument("--homes", type=int, default=1, help="deployments that share the sites (1)")
    parser.add_argument("--brokers", type=int, default=1, help="nodes of the broker's cluster (1)")
    parser.add_argument("--workers", type=int, default=4, help="bridge processes that record events (4)")
    parser.add_argument("--trackers", type=int, default=1, help="groups of sites tracked apart (1)")
    parser.add_argument("--mongod-cores", type=int, default=16, help="cores of the primary (16)")
    parser.add_argument("--images", type=float, default=1.0, help="share of events with an image (1)")
    parser.add_argument("--changes-everywhere", action="store_true", help="a change goes to all cameras")
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated at most (10)")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _show(deployment: Deployment, outcome: Outcome) -> None:
    console = Console(width=110)
    title = f"{deployment.cameras:,} cameras at {deployment.sites:,} sites, busy hour"
    table = Table(title=title, title_justify="left")
    for heading in ("part", "needed", "it has", "unit", "full to", "busy in the simulation"):
        table.add_column(heading, justify="left" if heading in ("part", "unit") else "right")
    for demand in demands(deployment):
        busy = outcome.busy.get(demand.part)
        table.add_row(
            demand.part,
            f"{demand.needed:,.2f}",
            f"{demand.capacity:,.0f}",
            demand.unit,
            f"{demand.share:,.0%}",
            "" if busy is None else f"{busy:.0%}",
        )
    console.print(table)
    sent = deployment.rates["event"]
    latency = outcome.latency
    times = f"p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms" if latency else "none came"
    console.print(
        f"receipts: {outcome.receipts:,.0f}/s of {sent:,.0f} events/s, {times}; {outcome.backlog:,} events"
        f" wait after {outcome.seconds:.3g} s"
    )
    wall = first_wall(deployment)
    verb = "is" if wall.share >= 1 else "will be"
    console.print(
        f"first wall: {wall.part}, full to {wall.share:,.0%}; it {verb} full at"
        f" {cameras_at_wall(deployment):,} cameras"
    )
    console.print(f"deployments needed, each full to 60 % at most: {homes_needed(deployment):,}")
    console.print(f"all cameras connect anew: {reconnect_seconds(deployment):,.0f} s of work for the leader")


if __name__ == "__main__":
    sys.exit(main())
