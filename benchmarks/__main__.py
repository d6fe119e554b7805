"""`make bench`: check the performance requirements on this machine."""

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.progress import Progress

from deploy.local.fleet import LocalFleet

from . import cold_sync, enrollment, events, fanout, images, ingest, pipeline
from .stats import Row, show
from .tracking import course, load
from .vectors import matching, search

Measure = Callable[[Path, Progress, argparse.Namespace], list[Row]]


def _line(folder: Path, progress: Progress, options: argparse.Namespace) -> list[Row]:
    devices = [*events.DEVICES, enrollment.DEVICE, "bare-001"]
    with LocalFleet(folder, devices) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        rows = events.measure(fleet, folder, options.seconds, progress)
        return rows + enrollment.measure(fleet, folder, options.changes, progress)


GROUPS: dict[str, Measure] = {
    "line": _line,
    "sync": lambda folder, progress, options: cold_sync.measure(
        folder, progress, runs=options.runs, large=not options.small
    ),
    "fanout": lambda folder, progress, options: [
        *fanout.measure_changes(folder, progress, changes=min(options.changes, 40)),
        *fanout.measure_storm(folder, progress, cameras=200 if options.small else 1000),
    ],
    "ingest": lambda folder, progress, options: ingest.measure(folder, progress, runs=options.runs),
    "matching": lambda folder, progress, options: matching.measure(folder, progress, large=not options.small),
    "tracking": lambda folder, progress, options: load.measure(
        folder, progress, seconds=options.seconds, large=not options.small
    ),
    "search": lambda _, progress, options: search.measure(progress, large=not options.small),
    "course": lambda folder, progress, _: course.measure(folder, progress),
    "pipeline": lambda _, progress, options: pipeline.measure(options.frames, progress),
    "images": lambda _, progress, __: images.measure(progress),
}


def main() -> int:
    """Print the table; return 1 if a requirement does not hold."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, help="this group of measurements, not all")
    parser.add_argument("--seconds", type=float, default=30, help="length of the stream of events")
    parser.add_argument("--changes", type=int, default=200, help="number of enrollment changes")
    parser.add_argument("--frames", type=int, default=500, help="frames through the pipeline")
    parser.add_argument("--runs", type=int, default=7, help="number of cold syncs")
    parser.add_argument(
        "--small",
        action="store_true",
        help="no gallery of 100,000 templates, nor an index of 1,000,000 persons",
    )
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="wfm-bench-") as name, Progress(transient=True) as progress:
        for group in [options.only] if options.only else GROUPS:
            rows += GROUPS[group](Path(name), progress, options)
    show(f"WFM Fleet on {platform.machine()}, Python {platform.python_version()}, all on this machine", rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
