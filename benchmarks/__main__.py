"""`make bench`: check the performance requirements on this machine."""

import argparse
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from rich.progress import Progress

from deploy.local.fleet import LocalFleet

from . import cold_sync, enrollment, events, faces, fanout, images, ingest, pipeline
from .report.machine import blas_kernel, describe_machine, faiss_level
from .report.record import RESULTS, write_record
from .saturation import measure as saturation
from .scale import FULL, SHORT, SMALL, Scale
from .stats import FailedRow, Note, Row, show
from .tracking import course, load
from .vectors import matching, search

Results = Sequence[Row | Note]
Measure = Callable[[Path, Progress, Scale], Results]


def _line(folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    devices = [*events.DEVICES, enrollment.DEVICE, "bare-001"]
    with LocalFleet(folder, devices) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        rows = events.measure(fleet, folder, progress, scale)
        return rows + enrollment.measure(fleet, folder, progress, scale)


GROUPS: dict[str, Measure] = {
    "line": _line,
    "sync": cold_sync.measure,
    "fanout": lambda folder, progress, scale: [
        *fanout.measure_changes(folder, progress, changes=min(scale.changes, 40), cameras=scale.fan_cameras),
        *fanout.measure_storm(folder, progress, cameras=scale.storm_cameras),
    ],
    "saturation": saturation.measure,
    "ingest": ingest.measure,
    "matching": lambda folder, progress, scale: matching.measure(folder, progress, scale.templates),
    "tracking": load.measure,
    "search": lambda _, progress, scale: search.measure(progress, scale.persons),
    "course": lambda folder, progress, scale: course.measure(folder, progress, scale.course),
    "pipeline": lambda _, progress, scale: pipeline.measure(scale.frames, progress),
    "images": lambda _, progress, scale: images.measure(progress, scale.pictures),
}


def main() -> int:
    """Print the table; return 1 if a requirement does not hold or a group fails."""
    parser = _parser()
    options = parser.parse_args()
    if options.short and options.record == RESULTS:
        parser.error("the figures of --short say nothing about speed: name another file, --record FILE")
    scale = _scale(options)
    groups: dict[str, Results] = {}
    with tempfile.TemporaryDirectory(prefix="wfm-bench-") as name, Progress(transient=True) as progress:
        if options.faces:
            groups["faces"] = faces.measure(options.faces, progress)
        for group in options.only or (() if options.faces else GROUPS):
            # Each group starts servers of its own, which keep their data and ports in their folder.
            folder = Path(name) / group
            folder.mkdir()
            groups[group] = measure_group(GROUPS[group], group, folder, progress, scale)
    rows = [row for results in groups.values() for row in results]
    libraries = [Note(f"BLAS of numpy: {blas_kernel()}"), Note(f"SIMD of FAISS: {faiss_level()}")]
    title = f"WFM Fleet on {platform.machine()}, Python {platform.python_version()}, all on this machine"
    show(title, [*rows, *libraries])
    if options.record:
        date = datetime.now(timezone.utc).date().isoformat()
        write_record(options.record, describe_machine(), groups, date)
    failed = any(isinstance(row, FailedRow) for row in rows)
    missed = any(isinstance(row, Row) and not row.holds for row in rows)
    return 1 if failed or (missed and not options.short) else 0


def measure_group(measure: Measure, group: str, folder: Path, progress: Progress, scale: Scale) -> Results:
    """Return a group's rows, or one that says why it failed."""
    try:
        return measure(folder, progress, scale)
    except Exception as error:  # noqa: BLE001  # the other groups are measured all the same
        traceback.print_exc()
        return [FailedRow.of(group, error)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--only", choices=GROUPS, action="append", help="this group of measurements, not all; may be repeated"
    )
    parser.add_argument("--seconds", type=float, help="length of streams (30)")
    parser.add_argument("--changes", type=int, help="number of enrollment changes (200)")
    parser.add_argument("--frames", type=int, help="frames through the pipeline (500)")
    parser.add_argument(
        "--faces",
        type=Path,
        help="measure recognition alone, on this folder with a folder of photos per person",
    )
    parser.add_argument("--runs", type=int, help="number of cold syncs (7)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--small",
        action="store_true",
        help="no gallery of 100,000 templates, nor an index of 1,000,000 persons",
    )
    size.add_argument(
        "--short",
        action="store_true",
        help="every group once with a few samples: shows that all of it works, judges nothing",
    )
    parser.add_argument(
        "--record",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="FILE",
        help="write the results of these groups into FILE (benchmarks/RESULTS.md)",
    )
    return parser


def _scale(options: argparse.Namespace) -> Scale:
    scale = SHORT if options.short else SMALL if options.small else FULL
    given = {name: getattr(options, name) for name in ("seconds", "changes", "frames", "runs")}
    return replace(scale, **{name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())
