"""The one-way doors between packages, and imports without work."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, imports, modules

DRIVER = ("pymongo", "bson", "gridfs", "motor")
MQTT = ("paho", "aiomqtt", "gmqtt", "mqtt5")
WEB = ("fastapi", "starlette", "uvicorn", "httpx")
# What a camera does with a frame, for the evaluation of models.
RECOGNITION = ("device.vision", "device.settings", "device.recognition", "device.events", "device.timing")


@dataclass(frozen=True)
class Door:
    """Modules below `inside` may import `only` these, or anything but `never`.

    Names are dotted and cover the modules below them. An empty `only` sets no bound on that side.
    """

    inside: str
    ours: tuple[str, ...] | None = None
    others: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


DOORS = (
    Door(
        "broker_bridge.contract",
        ours=("broker_bridge.contract",),
        others=("pydantic", "pydantic_core", "numpy"),
    ),
    Door("broker_bridge.vectors", ours=("broker_bridge.contract", "broker_bridge.vectors")),
    Door("broker_bridge.common", ours=("broker_bridge.contract", "broker_bridge.common")),
    Door(
        "broker_bridge.registry",
        ours=(
            "broker_bridge.contract",
            "broker_bridge.common",
            "broker_bridge.vectors",
            "broker_bridge.registry",
        ),
    ),
    Door("broker_bridge", ours=("broker_bridge",), never=WEB),
    Door(
        "device",
        ours=("broker_bridge.contract", "broker_bridge.common", "broker_bridge.vectors", "device"),
        never=(*DRIVER, *WEB[:3]),
    ),
    Door(
        "device.store",
        ours=("broker_bridge.contract", "broker_bridge.common", "device.store", "device.timing"),
    ),
    Door("device.timing", ours=("broker_bridge.contract", "broker_bridge.common", "device.timing")),
    Door(
        "device.vision",
        ours=(
            "broker_bridge.contract",
            "broker_bridge.common",
            "broker_bridge.vectors",
            "device.timing",
            "device.vision",
        ),
    ),
    Door(
        "dashboard_api",
        ours=(
            "broker_bridge.contract",
            "broker_bridge.common",
            "broker_bridge.vectors",
            "broker_bridge.registry",
            "dashboard_api",
            "device.vision",
        ),
        never=MQTT,
    ),
    Door(
        "fleet",
        ours=("broker_bridge.contract", "broker_bridge.common", "fleet", *RECOGNITION),
        never=(*DRIVER, *MQTT[1:], *WEB[:3]),
    ),
)

OURS_ONLY_IN = dict.fromkeys(RECOGNITION, ("device", "dashboard_api", "fleet.model"))
"""Packages of ours that only a part of another package may import."""

ONLY_IN = {
    **dict.fromkeys(DRIVER, ("broker_bridge.registry",)),
    "cv2": ("device.vision", "device.events.image_utils", "fleet.model"),
    "sqlite3": ("device.store",),
    "onnxruntime": ("device.vision.inference.onnx_session",),
    "tensorrt": ("device.vision.inference",),
    "cuda": ("device.vision.inference",),
    "paho": ("device.mqtt.paho_connection", "fleet.tracks.cameras"),
    "mqtt5": ("broker_bridge.link", "broker_bridge.broker_connection"),
    "httpx": ("device.embedding", "fleet.api_client"),
    "motmetrics": ("fleet.tracks.metrics",),
}
"""The only places that may import a library; everywhere else it would be a second way to do one thing."""


def lies_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def broken_doors(module: str, source: str, *, package: bool = False) -> list[str]:
    """One sentence per import in `source` that goes through a closed door."""
    broken = []
    for name in imports(module, source, package=package):
        top = name.partition(".")[0]
        for door in DOORS:
            if not lies_in(module, (door.inside,)):
                continue
            is_ours = top in PACKAGES
            stdlib = top in sys.stdlib_module_names
            if is_ours and door.ours is not None and not lies_in(name, door.ours):
                broken.append(
                    f"{module} imports {name}: {door.inside} may import {', '.join(door.ours)} of ours"
                )
            elif not is_ours and not stdlib and door.others is not None and not lies_in(name, door.others):
                broken.append(f"{module} imports {name}: {door.inside} may import {', '.join(door.others)}")
            elif lies_in(name, door.never):
                broken.append(f"{module} imports {name}, which {door.inside} never may")
        for part, allowed in OURS_ONLY_IN.items():
            if lies_in(name, (part,)) and not lies_in(module, allowed):
                broken.append(f"{module} imports {name}, which only {', '.join(allowed)} may")
        rooms = ONLY_IN.get(top)
        if rooms and not lies_in(module, rooms):
            broken.append(f"{module} imports {name}, which only {', '.join(rooms)} may")
    return broken


def test_every_import_goes_through_an_open_door() -> None:
    """The import rules hold in every module of our packages."""
    found = [
        sentence
        for module, file in modules()
        for sentence in broken_doors(
            module, file.read_text(encoding="utf-8"), package=file.name == "__init__.py"
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("broker_bridge.contract.ids", "import aiomqtt"),
        ("broker_bridge.contract.ids", "from ..registry import mongo"),
        ("broker_bridge.vectors.index", "from ..registry.mongo import client"),
        ("broker_bridge.vectors.sign_bits", "from broker_bridge.registry import Registry"),
        ("broker_bridge.registry.events.events", "from ...link import Link"),
        ("broker_bridge.events.ingest", "def late():\n    import bson"),
        ("broker_bridge.events.ingest", "from pymongo.errors import PyMongoError"),
        ("broker_bridge.events.ingest", "from device.store import outbox"),
        ("device.enrollment.sync_manager", "from broker_bridge.registry import identities"),
        ("device.enrollment.sync_manager", "import broker_bridge.link"),
        ("device.enrollment.sync_manager", "import fastapi"),
        ("device.events.delivery", "import sqlite3"),
        ("device.vision.detectors.detector", "import onnxruntime as ort"),
        ("device.simulator", "import paho.mqtt.client"),
        ("dashboard_api.app", "import aiomqtt"),
        ("dashboard_api.app", "from broker_bridge.link import Link"),
        ("dashboard_api.app", "from broker_bridge.devices import presence"),
        ("dashboard_api.identities.routes", "from device.enrollment.sync_manager import SyncManager"),
        ("dashboard_api.identities.routes", "import cv2"),
        ("fleet.api_client", "from broker_bridge.registry.identities import model"),
        ("fleet.api_client", "import fastapi"),
        ("fleet.importer", "import pymongo"),
        ("fleet.tracks.trial", "import paho.mqtt.client"),
        ("fleet.importer", "def late():\n    from device.vision import embedder"),
        ("fleet.common", "from device.settings import QualitySettings"),
        ("fleet.model.evaluate", "from device.mqtt import link"),
        ("fleet.report", "import cv2"),
    ],
)
def test_a_closed_door_is_noticed(module: str, source: str) -> None:
    """The checker refuses each kind of import that it is there for."""
    assert broken_doors(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("broker_bridge.contract.ids", "import re\nfrom pydantic import Field\nfrom .errors import X"),
        ("broker_bridge.registry.mongo.client", "import pymongo\nfrom ...contract.ids import DeviceId"),
        ("broker_bridge.events.ingest", "from ..registry import events\nfrom ..contract import channels"),
        (
            "device.mqtt.paho_connection",
            "import paho.mqtt.client\nfrom broker_bridge.contract import channels",
        ),
        ("device.vision.inference.onnx_session", "import onnxruntime"),
        ("fleet.model.loaded_model", "def late():\n    from device.vision.embedder import load_embedder"),
        (
            "dashboard_api.identities.routes",
            "from device.vision import embedder\nfrom fastapi import Depends",
        ),
    ],
)
def test_an_open_door_is_open(module: str, source: str) -> None:
    """What the design allows passes."""
    assert broken_doors(module, source) == []


def test_a_package_is_its_own_parent_in_relative_imports() -> None:
    """A single dot is the package itself in `__init__.py`, and the parent elsewhere."""
    assert list(imports("device.store", "from .outbox import Outbox", package=True)) == [
        "device.store.outbox.Outbox"
    ]
    assert list(imports("device.store.outbox", "from . import db")) == ["device.store.db"]


WATCH = """
import importlib, sys, threading
import pydantic

root, *names = sys.argv[1:]
ours = tuple({f"{root}/{name.partition('.')[0]}" for name in names})

def from_our_own_lines():
    # The nearest frame tells: what the import system reads, and what others do when imported, is not ours.
    frame = sys._getframe(2)
    while frame and not frame.f_code.co_filename.startswith(("<frozen importlib", *ours)):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(ours)

def watch(event, args):
    if event in WORK and from_our_own_lines():
        print(event, args[:1])

WORK = {
    "open", "os.listdir", "os.mkdir", "socket.connect", "socket.bind", "sqlite3.connect", "subprocess.Popen"
}
# The first model makes pydantic look for its plugins in the installed distributions; that is not our doing.
pydantic.create_model("First")
sys.addaudithook(watch)
for name in names:
    importlib.import_module(name)
for thread in threading.enumerate()[1:]:
    print("thread", thread.name)
"""


def work_at_import(root: Path, names: list[str], folder: Path) -> list[str]:
    """Return the events of a fresh interpreter in `folder` that imports `names`."""
    result = subprocess.run(
        [sys.executable, "-c", WATCH, str(root), *names],
        cwd=folder,
        env={"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_importing_does_no_work(tmp_path: Path) -> None:
    """Importing every module connects to nothing, opens no file and starts no thread."""
    assert work_at_import(ROOT, [module for module, _ in modules()], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))",
        "import sqlite3; sqlite3.connect(':memory:')",
        "from pathlib import Path; Path('settings.json').write_text('{}')",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
)
def test_work_at_import_is_noticed(tmp_path: Path, line: str) -> None:
    """The watcher sees a connection, a database, a file and a thread."""
    (tmp_path / "busy.py").write_text(line, encoding="utf-8")
    assert work_at_import(tmp_path, ["busy"], tmp_path)
