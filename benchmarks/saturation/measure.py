"""Measure one and two bridge workers under full and half load."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.progress import Progress

from benchmarks.scale import Scale
from benchmarks.scale_model.meter import cpu_seconds
from benchmarks.stats import Latency, Row
from deploy.local.fleet import LocalFleet
from deploy.local.stack import ROOT, Program

from . import floors

CAMERA = "load-001"
IMAGE_BYTES = 50 * 1024
LEAST_PER_SECOND = 30_000
MOST_TIMES_PAHO = 1 / 0.8
MOST_TIMES_INSERT = 1 / 0.7
MOST_TIMES_ONE_WORKER = 1 / 1.4
QUEUED_EVENTS = 9_000
"""As many as the broker keeps for a bare subscriber, which holds its sender up in no way."""
HALF_LOAD_P50_MS, HALF_LOAD_P99_MS = 25.0, 100.0


@dataclass
class _Times:
    """Seconds of each run; `processor` by the part that used it."""

    bridge: list[float] = field(default_factory=list)
    paho: list[float] = field(default_factory=list)
    insert: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    processor: list[dict[str, float]] = field(default_factory=list)


def measure(folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    """Alternate between the bridge and the bare parts, `runs` times each."""
    runs, count, pictures = scale.runs, scale.events, max(1, scale.events // 20)
    task = progress.add_task("saturation", total=3 * runs + 1)
    with LocalFleet(folder, [CAMERA]) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        _send(fleet, min(count, 1000))
        times = _Times()
        for _ in range(runs):
            _run(fleet, count, times)
            progress.advance(task)
        rate = count / median(times.bridge) / 2
        half = _send(fleet, max(1, int(rate * scale.seconds / 2)), rate=rate)["latencies"]
        progress.advance(task)
        return [
            *_rows(count, times),
            Row(f"receipt at {rate:,.0f} events/s", Latency.from_seconds(half), HALF_LOAD_P99_MS,
                p50_limit=HALF_LOAD_P50_MS),
            *_with_images(fleet, pictures, runs, lambda: progress.advance(task)),
            _two_workers(fleet, count, runs, lambda: progress.advance(task)),
        ]  # fmt: skip


def _run(fleet: LocalFleet, count: int, times: _Times) -> None:
    before = _processor_seconds(fleet)
    times.bridge.append(_send(fleet, count)["seconds"])
    after = _processor_seconds(fleet)
    times.processor.append({name: after[name] - before[name] for name in after})
    fleet.bridge.stop()

    queued = min(count, QUEUED_EVENTS)

    def send() -> None:
        _send(fleet, queued, receipts=False)

    times.paho.append(floors.receive_seconds(fleet, queued, send) * count / queued)
    times.both.append(floors.receive_and_insert_seconds(fleet, queued, send) * count / queued)
    times.insert.append(floors.insert_seconds(fleet, floors.documents_like(fleet, count, 0)))
    _start(fleet.bridge)


def _rows(count: int, times: _Times) -> list[Row]:
    def per_thousand(seconds: list[float]) -> Latency:
        return Latency.from_seconds([each / count * 1000 for each in seconds])

    floor = per_thousand(times.paho)
    rate = count / median(times.bridge)
    return [
        Row(f"1,000 events, recorded and receipted ({rate:,.0f}/s)", per_thousand(times.bridge),
            p50_limit=round(1e6 / LEAST_PER_SECOND, 1), bare=floor, at_most=MOST_TIMES_PAHO),
        Row("  bare paho subscriber, QoS 1", floor),
        Row("  bare insert_many, no index", per_thousand(times.insert)),
        Row("  bare paho and insert_many in one process", per_thousand(times.both)),
        *(
            Row(f"  processor time of {name}", per_thousand([run[name] for run in times.processor]))
            for name in times.processor[0]
        ),
    ]  # fmt: skip


def _with_images(fleet: LocalFleet, count: int, runs: int, advance: Callable[[], None]) -> list[Row]:
    ours, bare = [], []
    for _ in range(runs):
        ours.append(_send(fleet, count, image_bytes=IMAGE_BYTES)["seconds"] / count * 1000)
        documents = floors.documents_like(fleet, count, IMAGE_BYTES)
        bare.append(floors.insert_seconds(fleet, documents) / count * 1000)
        advance()
    floor = Latency.from_seconds(bare)
    return [
        Row(f"1,000 events with images of 50 KB ({1000 / median(ours):,.0f}/s)", Latency.from_seconds(ours),
            bare=floor, at_most=MOST_TIMES_INSERT),
        Row("  bare insert_many of such documents", floor),
    ]  # fmt: skip


def _two_workers(fleet: LocalFleet, count: int, runs: int, advance: Callable[[], None]) -> Row:
    second = fleet.make_bridge("bridge-2")
    one, two = [], []
    for _ in range(runs):
        one.append(_send(fleet, count)["seconds"] / count * 1000)
        _start(second)
        try:
            two.append(_send(fleet, count)["seconds"] / count * 1000)
        finally:
            second.stop()
        advance()
    return Row(f"1,000 events, two workers ({1000 / median(two):,.0f}/s), beside one",
               Latency.from_seconds(two), bare=Latency.from_seconds(one),
               at_most=MOST_TIMES_ONE_WORKER)  # fmt: skip


def _start(bridge: Program) -> None:
    bridge.start()
    bridge.wait_for_line("connected to the broker", 60)


def _send(fleet: LocalFleet, count: int, **options: Any) -> dict[str, Any]:
    """Run a camera process to its end and return what it measured."""
    receipts = options.pop("receipts", True)
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [
        sys.executable, "-m", "benchmarks.saturation.cameras", "--port", str(fleet.broker.port),
        "--device", CAMERA, "--count", str(count), *given, "--receipts" if receipts else "--no-receipts",
    ]  # fmt: skip
    environment = {"CAMERA_PASSWORD": fleet.broker.users[CAMERA], "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the camera failed: {done.stderr[-1000:]}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _processor_seconds(fleet: LocalFleet) -> dict[str, float]:
    """Return the processor time that each part has used."""
    parts = {"the bridge": fleet.bridge, "mongod": fleet.mongod.program, "the broker": fleet.broker.program}
    return {name: cpu_seconds(psutil.Process(program.pid)) for name, program in parts.items()}
