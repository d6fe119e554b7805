"""Kill bridge, broker and MongoDB in turn under load, and count what is recorded.

`python -m benchmarks.saturation.soak --minutes 30 --rate 5000` kills each of the three once a minute. The
camera keeps an event until its receipt and sends it again after each break. At the end every event must be
in MongoDB exactly once: the exit status says whether it is.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from rich.progress import Progress

from benchmarks.cold_sync import resident_mb
from deploy.local.fleet import LocalFleet

from .cameras import Camera, Options

_CAMERA = "load-001"
_RETRY_SECONDS = 0.2
_DRAIN_SECONDS = 300.0
# Without a receipt for so long the camera sends again: the bridge that took the event may be dead.
_REPEAT_SECONDS = 5.0
_KILL_SECONDS = 20.0


def send_all(camera: Camera, stop: threading.Event) -> None:
    """Send at the camera's rate until `stop`, then until every event has its receipt."""
    while not stop.is_set() or camera.unsettled:
        with suppress(OSError):
            camera.log_in()
            while not stop.is_set() or camera.unsettled:
                camera.work(stopping=stop.is_set(), repeat_after=_REPEAT_SECONDS)
        camera.close()
        time.sleep(_RETRY_SECONDS)


def _kills(fleet: LocalFleet) -> list[Callable[[], None]]:
    def kill_bridge() -> None:
        fleet.bridge.kill()
        fleet.bridge.start()

    def kill_broker() -> None:
        fleet.broker.kill()
        fleet.broker.start()

    def kill_mongod() -> None:
        fleet.mongod.kill()
        fleet.mongod.start()

    return [kill_bridge, kill_broker, kill_mongod]


@dataclass
class Soak:
    """What a soak counts."""

    minutes: float
    kills: int = 0
    bridge_mb: float = 0.0
    failure: Exception | None = None

    def load(self, camera: Camera, stop: threading.Event) -> None:
        """Send until `stop`, in a thread; keep what goes wrong."""
        try:
            send_all(camera, stop)
        except Exception as error:  # noqa: BLE001 (raised again by the main thread)
            self.failure = error

    def kill_in_turn(self, fleet: LocalFleet, progress: Progress) -> None:
        """Kill one part every 20 s, until the end or a failure of the camera."""
        task = progress.add_task("soak", total=self.minutes * 60 // _KILL_SECONDS)
        ends = time.monotonic() + self.minutes * 60
        for kill in itertools.cycle(_kills(fleet)):
            due = min(ends, time.monotonic() + _KILL_SECONDS)
            while time.monotonic() < due and self.failure is None:
                time.sleep(0.5)
                self.bridge_mb = max(self.bridge_mb, resident_mb(fleet.bridge))
            if time.monotonic() >= ends or self.failure is not None:
                return
            kill()
            self.kills += 1
            progress.advance(task)


def soak(folder: Path, minutes: float, rate: float, progress: Progress) -> dict[str, float]:
    """Return the numbers of events sent and recorded, kills, and the bridge's memory."""
    with LocalFleet(folder, [_CAMERA]) as fleet:
        fleet.start_servers()
        fleet.bridge.start()
        fleet.bridge.wait_for_line("connected to the broker", 60)
        options = Options(fleet.broker.port, _CAMERA, rate=rate, window=20_000)
        camera = Camera(options, fleet.broker.users[_CAMERA])
        run, stop = Soak(minutes), threading.Event()
        sender = threading.Thread(target=run.load, args=(camera, stop), daemon=True)
        sender.start()
        run.kill_in_turn(fleet, progress)
        stop.set()
        sender.join(_DRAIN_SECONDS)
        if run.failure is not None:
            raise run.failure
        if sender.is_alive():
            raise TimeoutError(f"{camera.unsettled} events have no receipt")
        client: MongoClient[dict[str, Any]]
        with MongoClient(fleet.mongod.uri) as client:
            recorded = {found["_id"] for found in client[fleet.database].events.find({}, {"_id": 1})}
    expected = {f"{_CAMERA}/{event_id}" for event_id in camera.event_ids}
    return {
        "minutes": minutes,
        "kills": run.kills,
        "sent": len(camera.event_ids),
        "sent again": camera.repeated,
        "recorded": len(recorded),
        "lost": len(expected - recorded),
        "unknown": len(recorded - expected),
        "bridge MB": round(run.bridge_mb),
    }


def main() -> int:
    """Print what was counted; return 1 if an event is lost or unknown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=5000.0, help="events a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wfm-soak-") as name, Progress(transient=True) as progress:
        counted = soak(Path(name), options.minutes, options.rate, progress)
    print(counted)
    return 1 if counted["lost"] or counted["unknown"] else 0


if __name__ == "__main__":
    sys.exit(main())
