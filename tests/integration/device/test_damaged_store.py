"""Damage the database of a running camera, as a failing memory card does."""

import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from deploy.local.stack import Mosquitto
from device.store.db_manager import DatabaseManager
from device.store.outbox import Outbox
from tests.conftest import FreshDevice, StartProgram
from tests.device_samples import event
from tests.integration.device.conftest import Peer
from tests.waiting import wait_until

COUNT = 60
PAGE = 4096


def fill_outbox(path: Path, device_id: str) -> set[str]:
    db = DatabaseManager(path)
    db.initialize()
    outbox = Outbox(db.connection, utc_now=utc_now, source=random.Random(1))
    events = [event(number, device_id) for number in range(COUNT)]
    for each in events:
        outbox.put(each)
    db.close()
    return {each.event_id for each in events}


def overwrite_indexes(path: Path) -> None:
    """Overwrite the root pages of the outbox's indexes in the file."""
    with closing(sqlite3.connect(path)) as connection:
        roots = [
            root
            for (root,) in connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'outbox'"
            )
        ]
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        # A commit of another connection makes the program read its pages again.
        connection.execute(f"PRAGMA user_version = {version}")
        assert roots
        with path.open("r+b") as file:
            for root in roots:
                file.seek((root - 1) * PAGE)
                file.write(random.Random(2).randbytes(PAGE))


def test_a_database_that_is_damaged_while_the_camera_runs_keeps_its_events(
    mosquitto: Mosquitto, peer: Peer, fresh_device: FreshDevice, start_program: StartProgram, tmp_path: Path
) -> None:
    """The program ends with a status; its next start repairs and sends every event."""
    data = tmp_path / "data"
    waiting = fill_outbox(data / "device.db", fresh_device.id)
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.full((120, 160, 3), 60, dtype=np.uint8))
    environment = {
        "WFM_MQTT__PORT": str(mosquitto.port),
        "WFM_MQTT__USERNAME": fresh_device.id,
        "WFM_MQTT__PASSWORD": fresh_device.password,
        "WFM_DEVICE__ID": fresh_device.id,
        "WFM_DEVICE__SITE": fresh_device.site,
        "WFM_DEVICE__DATA_DIR": str(data),
        "WFM_DEVICE__SOURCE": str(picture),
        "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2",
    }

    def sent() -> set[str]:
        return {each.event_id for each in peer.messages(channels.EVENT, fresh_device.id)}

    peer.gives_receipts = False
    program = start_program([sys.executable, "-m", "device"], environment, "camera")
    wait_until(lambda: sent() == waiting, "the events")
    overwrite_indexes(data / "device.db")
    assert program.wait(40) == 2, program.output()
    assert "the next start repairs it" in program.output()
    assert "Traceback" not in program.output()

    peer.received.clear()
    peer.gives_receipts = True
    again = start_program([sys.executable, "-m", "device"], environment, "camera")

    def drained() -> bool:
        beats = peer.messages(channels.HEARTBEAT, fresh_device.id)
        return bool(beats) and beats[-1].outbox_depth == 0 and sent() == waiting

    wait_until(drained, "every event again")
    beat = peer.messages(channels.HEARTBEAT, fresh_device.id)[-1]
    assert "store-damaged" in {problem.code for problem in beat.problems}
    again.stop()
    assert again.wait(10) == 0
