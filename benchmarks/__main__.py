"""`make bench`: what must hold, measured on this machine beside the bare libraries."""

import argparse
import platform
import sys
import tempfile
from pathlib import Path

from rich.progress import Progress

from deploy.local.fleet import LocalFleet

from . import enrollment, events, images
from .stats import show


def main() -> int:
    """Print the table; 1 if something that must hold does not."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="length of the stream of events")
    parser.add_argument("--changes", type=int, default=200, help="number of enrollment changes")
    options = parser.parse_args()
    devices = [*events.DEVICES, enrollment.DEVICE, "bare-001"]
    with tempfile.TemporaryDirectory(prefix="wfm-bench-") as name, LocalFleet(Path(name), devices) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        with Progress(transient=True) as progress:
            rows = events.measure(fleet, Path(name), options.seconds, progress)
            rows += enrollment.measure(fleet, Path(name), options.changes, progress)
            rows += images.measure(progress)
    show(f"WFM Fleet on {platform.machine()}, Python {platform.python_version()}, all on this machine", rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
