"""Stream events and enrollment changes while a part dies; check the result."""

import base64
import random
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from bson.timestamp import Timestamp
from pymongo import MongoClient

from deploy.local.fleet import LocalFleet
from deploy.local.stack import Program

DEVICES = ("a-001", "b-001")
SPACE = "face:resnet29-512"
SETTLE_SECONDS = 240


class Scene:
    """The product under load: `stream` starts cameras and a writer, `finish` ends it."""

    def __init__(self, fleet: LocalFleet, folder: Path) -> None:
        self.fleet = fleet
        self._folder = folder
        self.cameras = {device: self._camera(device) for device in DEVICES}
        self.registry: Any = MongoClient(fleet.mongod.uri, serverSelectionTimeoutMS=30_000)[fleet.database]
        self._started_at = self._operation_time()
        self._stop_changing = threading.Event()
        self._changer = threading.Thread(target=self._change_people)

    def stream(self, *, events: int, rate: float = 60.0) -> None:
        """Start cameras that emit `events` each at `rate` a second, and a writer."""
        for device in self.cameras:
            self.start_camera(device, events, rate)
        self._changer.start()

    def start_camera(self, device: str, events: int, rate: float = 60.0) -> None:
        """Start (again) one camera's process, on the same data folder."""
        program = self.cameras[device]
        program.args[program.args.index("--count") + 1] = str(events)
        program.args[program.args.index("--rate") + 1] = str(rate)
        program.start()

    def wait_for_events(self, number: int) -> None:
        """Until that many events are in MongoDB: the stream is in full flow."""
        self.until(lambda: self.registry.events.count_documents({}) >= number, f"{number} events stored")

    def finish(self) -> None:
        """Wait until both cameras have every receipt and have ended by themselves."""
        for program in self.cameras.values():
            status = program.wait(SETTLE_SECONDS)
            assert status == 0, program.output()
        self._stop_changing.set()
        self._changer.join()

    # Questions

    def assert_nothing_lost_or_doubled(self, *, killed: bool = False) -> None:
        """Every event that an outbox ever held is in MongoDB, once.

        A camera killed between its outbox and its ledger may have sent one event that the ledger lacks.
        """
        written = [
            (device, line) for device in DEVICES for line in self._ledger(device).read_text().split() if line
        ]
        assert len(written) == len(set(written))
        stored = [
            (e["device_id"], e["event_id"])
            for e in self.registry.events.find({}, {"device_id": 1, "event_id": 1})
        ]
        assert len(stored) == len(set(stored))
        assert set(written) <= set(stored)
        assert len(set(stored) - set(written)) <= (1 if killed else 0)

    def assert_versions_gapless(self) -> None:
        """Every version from 1 on was committed by exactly one change, in order."""
        last = self.registry.meta.find_one({"_id": "versions"})["version"]
        versions: list[int] = []
        with self.registry.identities.watch(
            start_at_operation_time=self._started_at, full_document="updateLookup", max_await_time_ms=100
        ) as stream:
            while last and (not versions or versions[-1] < last):
                change = stream.try_next()
                if change is not None:
                    versions.append(_version_of(change))
        assert versions == list(range(1, last + 1))

    def assert_cameras_equal_registry(self) -> None:
        """Assert that each device at the head holds the registry's vectors byte for byte."""
        for device in DEVICES:
            self.start_camera(device, events=0, rate=0.1)
        self.until(self._all_at_head, "cameras at the registry's head")
        for program in self.cameras.values():
            program.stop()
        expected = self._registry_gallery()
        for device in DEVICES:
            assert self._device_gallery(device) == expected

    def until(self, condition: Callable[[], bool], what: str, timeout: float = SETTLE_SECONDS) -> None:
        """Wait for a condition on a server, which sends no notice of it."""
        self.fleet.mongod.program.wait_until(condition, what, timeout)

    # How it is done

    def _all_at_head(self) -> bool:
        versions = self.registry.meta.find_one({"_id": "versions"})
        newest = self.registry.identities.find_one({}, sort=[("version", -1)])
        applied = [
            found.get("applied", {}) for found in self.registry.devices.find({"_id": {"$in": DEVICES}})
        ]
        here = [(one.get("epoch"), one.get("version")) for one in applied]
        return here == [(versions["epoch"], newest["version"])] * len(DEVICES)

    def _camera(self, device: str) -> Program:
        return self.fleet.make_simulator(
            device,
            self._folder,
            count=0,
            rate=60,
            arguments=[
                "--ledger",
                str(self._ledger(device)),
                "--settle-seconds",
                str(SETTLE_SECONDS),
            ],
        )

    def _ledger(self, device: str) -> Path:
        return self._folder / f"{device}.ledger"

    def _operation_time(self) -> Timestamp:
        hello = self.registry.command("hello")
        found: Timestamp = hello["operationTime"]
        return found

    def _change_people(self) -> None:
        """Enroll, replace and delete as fast as the API answers; retry while it is away."""
        source = random.Random(5)
        while not self._stop_changing.is_set():
            user_id = f"EMP-{source.randrange(40)}"
            try:
                if source.random() < 0.25:
                    self.fleet.http.delete(f"/api/v1/identity/{user_id}", timeout=5)
                else:
                    self.fleet.http.post("/api/v1/identity/", json=_face(user_id, source), timeout=5)
            except httpx.TransportError:
                # Its outcome is unknown, which is what the registry has to stand.
                self._stop_changing.wait(0.1)

    def _registry_gallery(self) -> set[tuple[str, str, str]]:
        live = {p["_id"] for p in self.registry.identities.find({"deleted": False}, {"_id": 1})}
        templates = self.registry.templates.find({"space": SPACE})
        return {
            (t["user_id"], SPACE, _text(bytes(t["vector"])[2:])) for t in templates if t["user_id"] in live
        }

    def _device_gallery(self, device: str) -> set[tuple[str, str, str]]:
        (file,) = (self._folder / device).rglob("device.db")
        with closing(sqlite3.connect(file)) as db:
            rows = db.execute("SELECT user_id, space, embedding FROM gallery_templates").fetchall()
        return {(user_id, space, _text(vector)) for user_id, space, vector in rows}


def _version_of(change: dict[str, Any]) -> int:
    if change["operationType"] == "update":
        return int(change["updateDescription"]["updatedFields"]["version"])
    return int(change["fullDocument"]["version"])


def _face(user_id: str, source: random.Random) -> dict[str, object]:
    values = [source.gauss(0, 1) for _ in range(512)]
    return {"name": user_id, "modality": "face", "embedding": values, "source_node": "fault-test"}


def _text(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
