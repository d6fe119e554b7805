"""Measure changes and reconnects at one site with many cameras."""

import json
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from rich.progress import Progress

from deploy.local.fleet import SITE, LocalFleet
from deploy.local.stack import Program

from . import cold_sync
from .stats import Latency, Row

LIMIT_MS = 1000.0
_PEOPLE = 50
# Not on the disk: a thousand cameras on one machine would wait for its one disk.
_MEMORY = Path("/dev/shm")
_START_SECONDS = 240.0
_PASSWORD = "pretended"  # of a broker on loopback that lives for a minute


@dataclass(frozen=True)
class CameraCrowd:
    """`size` simulated cameras in `processes`.

    Each consists of the real client, sync manager and store. A process holds at most some 90: paho waits
    with select(), which takes no file numbers past 1,023.
    """

    prefix: str
    size: int
    processes: int

    @property
    def names(self) -> list[str]:
        return [f"{prefix}-{n:03}" for prefix in self.prefixes for n in range(1, self.each + 1)]

    @property
    def prefixes(self) -> list[str]:
        return [f"{self.prefix}-{process}" for process in range(self.processes)]

    @property
    def each(self) -> int:
        return self.size // self.processes

    def start(self, fleet: LocalFleet, data: Path) -> list[Program]:
        programs = []
        for prefix in self.prefixes:
            options = [
                "--devices", str(self.each), "--prefix", prefix, "--site", SITE, "--count", "0",
                "--rate", "0.001", "--data-dir", str(data / prefix), "--heartbeat-seconds", "60",
            ]  # fmt: skip
            login = fleet.mqtt_environment(f"{prefix}-001")
            del login["WFM_MQTT__USERNAME"]
            program = Program(
                [sys.executable, "-m", "device", "simulate", *options],
                fleet.folder / f"{prefix}.log",
                login,
                prefix,
            )
            fleet.programs.append(program)
            program.start()
            programs.append(program)
        return programs


class SiteTap:
    """An observer of the versions that cameras apply and of their requests."""

    def __init__(self, fleet: LocalFleet, crowd: CameraCrowd) -> None:
        self._cameras = set(crowd.names)
        self._news = threading.Condition()
        self._held: dict[str, int] = {}
        self._came: dict[tuple[str, int], float] = {}
        self.requests = 0
        self.pages = 0
        self.resets = 0
        self.page_times: list[float] = []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "bench-site", protocol=mqtt.MQTTv5)
        self._client.username_pw_set("operator", fleet.broker.users["operator"])
        self._client.on_message = self._receive
        ends = ("up/enrollment/applied", "up/enrollment/request", "down/enrollment/page")
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"wfm/v1/device/+/{end}", 1) for end in ends]
        )
        self._client.connect(fleet.broker.host, fleet.broker.port)
        self._client.loop_start()

    def _receive(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        now = time.perf_counter()
        device = message.topic.split("/")[3]
        with self._news:
            if message.topic.endswith("/request"):
                self.requests += 1
            elif message.topic.endswith("/page"):
                self.pages += 1
                self.page_times.append(now)
                self.resets += b'"reset":true' in message.payload[:300]
            elif device in self._cameras:
                version = json.loads(message.payload)["version"]
                if version > self._held.get(device, -1):
                    self._held[device] = version
                    self._came[device, version] = now
                    self._news.notify_all()

    def wait_for(self, version: int, timeout: float = 120.0) -> list[float]:
        """Return the times at which each camera reported `version`."""

        def all_there() -> bool:
            there = sum(held >= version for held in self._held.values())
            return there == len(self._cameras)

        with self._news:
            if not self._news.wait_for(all_there, timeout):
                late = sum(self._held.get(one, -1) < version for one in self._cameras)
                raise TimeoutError(f"{late} cameras did not come to version {version} in {timeout:g} s")
            return [at for (_, held), at in self._came.items() if held == version]

    def forget_counts(self) -> None:
        with self._news:
            self.requests = self.pages = self.resets = 0
            self.page_times = []

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def _site(folder: Path, crowd: CameraCrowd) -> Iterator[tuple[LocalFleet, SiteTap, int]]:
    """Start a backend and a synced crowd; yield fleet, tap and version."""
    folder.mkdir()
    data = tempfile.TemporaryDirectory(prefix="wfm-bench-", dir=_MEMORY if _MEMORY.is_dir() else folder)
    with data as name, LocalFleet(folder, crowd.names) as fleet:
        # One password for all: a process of simulated cameras has only one.
        fleet.broker.users.update(dict.fromkeys(crowd.names, _PASSWORD))
        fleet.start_servers()
        fleet.start_backend()
        version = cold_sync.fill(fleet, 0, _PEOPLE)
        tap = SiteTap(fleet, crowd)
        try:
            crowd.start(fleet, Path(name))
            tap.wait_for(version, _START_SECONDS)
            yield fleet, tap, version
        finally:
            tap.close()


def measure_changes(folder: Path, progress: Progress, *, changes: int, cameras: int = 200) -> list[Row]:
    """Measure from the REST answer until each camera reports the change as applied."""
    task = progress.add_task(f"changes to {cameras} cameras", total=changes)
    took: list[float] = []
    with _site(folder / "fanout", CameraCrowd("fan", cameras, 4)) as (fleet, tap, _):
        for number in range(changes):
            version, answered = _change(fleet, number)
            took += [max(0.0, at - answered) for at in tap.wait_for(version)]
            progress.advance(task)
    return [Row(f"change: REST answer to applied, {cameras} cameras", Latency.from_seconds(took), LIMIT_MS)]


def _change(fleet: LocalFleet, number: int) -> tuple[int, float]:
    if number % 2:
        answer = fleet.http.delete(f"/api/v1/identities/NEW-{number - 1}")
    else:
        values = [random.gauss(0, 1) for _ in range(cold_sync.DIMENSION)]
        answer = fleet.http.post(
            "/api/v1/identity/",
            json={"name": f"NEW-{number}", "modality": "face", "embedding": values, "source_node": "bench"},
        )
    answered = time.perf_counter()
    answer.raise_for_status()
    return answer.json()["version"], answered


def measure_storm(folder: Path, progress: Progress, *, cameras: int = 1000) -> list[Row]:
    """Measure a broker restart with all cameras up to date, and with all behind."""
    task = progress.add_task(f"{cameras} cameras reconnect", total=3)
    with _site(folder / "storm", CameraCrowd("storm", cameras, max(1, cameras // 50))) as (
        fleet,
        tap,
        version,
    ):
        progress.advance(task)
        calm = _reconnect(fleet, tap, cameras, version)
        progress.advance(task)
        behind = _reconnect(fleet, tap, cameras, version, people=_PEOPLE)
        progress.advance(task)
        memory = cold_sync.peak_mb(fleet.bridge)
    return [
        _count(f"{cameras} up-to-date cameras reconnect: requests", calm.requests, most=cameras * 0.01),
        _count(f"{cameras} cameras reconnect {_PEOPLE} people behind: requests", behind.requests),
        _count("  of the answers full snapshots", behind.resets, most=1),
        _count("  most answers within 100 ms", behind.busiest),
        Row("  broker back until all hold the head", Latency.from_seconds([behind.seconds])),
        _count("  the bridge's memory at its peak (MB)", memory, most=cold_sync.MOST_GROWTH_MB),
    ]


@dataclass(frozen=True)
class Storm:
    requests: int
    resets: int
    busiest: int
    seconds: float


def _reconnect(fleet: LocalFleet, tap: SiteTap, cameras: int, version: int, *, people: int = 0) -> Storm:
    """Stop the broker, enroll `people`, start it, and wait for every camera's head."""
    before = _connections(fleet)
    fleet.broker.stop()
    if people:
        version = cold_sync.fill(fleet, _PEOPLE, _PEOPLE + people)
    tap.forget_counts()
    fleet.broker.start()
    started = time.perf_counter()
    fleet.broker.program.wait_until(
        lambda: _connections(fleet) >= before + cameras, "get all its cameras back", 180
    )
    if people:
        tap.wait_for(version, 180)
    took = time.perf_counter() - started
    if not people:
        # Longer than jitter and grace: every camera that is behind has sent its request.
        time.sleep(3)
    return Storm(tap.requests, tap.resets, _busiest(tap.page_times, 0.1), took)


def _connections(fleet: LocalFleet) -> int:
    """Return the number of sessions that the crowd's processes started."""
    logs = fleet.folder.glob("storm-*.log")
    return sum(len(re.findall("broker connected ", log.read_text(errors="replace"))) for log in logs)


def _busiest(moments: Sequence[float], width: float) -> int:
    buckets = Counter(int(at / width) for at in moments)
    return max(buckets.values(), default=0)


def _count(name: str, value: float, most: float | None = None) -> Row:
    limit = None if most is None else most + 0.001
    return Row(name, Latency(1, value, value, value), limit)
