"""The one-way doors between the packages, read from the source; and importing does no work."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("broker_bridge", "device", "dashboard_api", "fleet")

DRIVER = ("pymongo", "bson", "gridfs", "motor")
MQTT = ("paho", "aiomqtt", "gmqtt")
WEB = ("fastapi", "starlette", "uvicorn", "httpx")


@dataclass(frozen=True)
class Door:
    """Modules below `inside` may import `only` these (our own or of others), or anything but `never`.

    Names are dotted and cover what lies below them. An empty `only` sets no bound on that side.
    """

    inside: str
    ours: tuple[str, ...] | None = None
    others: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


DOORS = (
    Door("broker_bridge.contract", ours=("broker_bridge.contract",), others=("pydantic", "numpy")),
    Door("broker_bridge.sign_bits", ours=()),
    Door("broker_bridge.vectors", ours=("broker_bridge.contract", "broker_bridge.sign_bits")),
    Door(
        "broker_bridge.registry",
        ours=("broker_bridge.contract", "broker_bridge.vectors", "broker_bridge.registry"),
    ),
    Door("broker_bridge", ours=("broker_bridge",), never=WEB),
    Door(
        "device",
        ours=("broker_bridge.contract", "broker_bridge.vectors", "device"),
        never=(*DRIVER, *WEB[:3]),
    ),
    Door(
        "dashboard_api",
        ours=(
            "broker_bridge.contract",
            "broker_bridge.vectors",
            "broker_bridge.registry",
            "dashboard_api",
            "device.vision",
        ),
        never=MQTT,
    ),
    Door("fleet", ours=("broker_bridge.contract", "fleet"), never=(*DRIVER, *MQTT[1:], *WEB[:3])),
)

ONLY_IN = {
    **dict.fromkeys(DRIVER, ("broker_bridge.registry",)),
    "cv2": ("device.vision", "device.image_utils"),
    "sqlite3": ("device.store",),
    "onnxruntime": ("device.vision.inference.onnx_session",),
    "tensorrt": ("device.vision.inference.tensorrt_session",),
    "cuda": ("device.vision.inference.tensorrt_session",),
    "paho": ("device.paho_connection", "broker_bridge.link", "fleet.tracks.cameras"),
    "aiomqtt": ("broker_bridge.link",),
    "gmqtt": ("broker_bridge.link",),
    "httpx": ("device.embedding", "fleet.api_client"),
    "motmetrics": ("fleet.tracks.metrics",),
}
"""The only places that may import a library; everywhere else it would be a second way to do one thing."""


def lies_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def imports(module: str, source: str, *, package: bool = False) -> Iterator[str]:
    """The dotted names that `source` imports at any depth, relative ones made absolute.

    `from a.b import c` yields `a.b.c`: whether `c` is a module or a name in one, it lies in `a.b`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".")
            base = here[: len(here) - node.level + package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


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
        rooms = ONLY_IN.get(top)
        if rooms and not lies_in(module, rooms):
            broken.append(f"{module} imports {name}, which only {', '.join(rooms)} may")
    return broken


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


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
        ("broker_bridge.vectors", "from .registry.mongo import Store"),
        ("broker_bridge.sign_bits", "from .vectors import VectorIndex"),
        ("broker_bridge.registry.events.events", "from ..link import Link"),
        ("broker_bridge.ingest", "def late():\n    import bson"),
        ("broker_bridge.ingest", "from pymongo.errors import PyMongoError"),
        ("broker_bridge.ingest", "from device.store import outbox"),
        ("device.sync_manager", "from broker_bridge.registry import identities"),
        ("device.sync_manager", "import broker_bridge.link"),
        ("device.sync_manager", "import fastapi"),
        ("device.outbox", "import sqlite3"),
        ("device.vision.detectors.detector", "import onnxruntime as ort"),
        ("device.simulator", "import paho.mqtt.client"),
        ("dashboard_api.app", "import aiomqtt"),
        ("dashboard_api.app", "from broker_bridge.link import Link"),
        ("dashboard_api.app", "from broker_bridge import presence"),
        ("dashboard_api.routes.people", "from device.sync_manager import SyncManager"),
        ("dashboard_api.routes.people", "import cv2"),
        ("fleet.api_client", "from broker_bridge.registry import people"),
        ("fleet.api_client", "import fastapi"),
        ("fleet.importing", "import pymongo"),
        ("fleet.tracks.trial", "import paho.mqtt.client"),
    ],
)
def test_a_closed_door_is_noticed(module: str, source: str) -> None:
    """The checker refuses each kind of import that it is there for."""
    assert broken_doors(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("broker_bridge.contract.ids", "import re\nfrom pydantic import Field\nfrom .errors import X"),
        ("broker_bridge.registry.mongo.client", "import pymongo\nfrom ..contract.ids import DeviceId"),
        ("broker_bridge.ingest", "from .registry import events\nfrom .contract import channels"),
        ("device.paho_connection", "import paho.mqtt.client\nfrom broker_bridge.contract import channels"),
        ("device.vision.inference.onnx_session", "import onnxruntime"),
        ("dashboard_api.routes.people", "from device.vision import embedder\nfrom fastapi import Depends"),
    ],
)
def test_an_open_door_is_open(module: str, source: str) -> None:
    """What the design allows passes."""
    assert broken_doors(module, source) == []


def test_a_package_is_its_own_parent_in_relative_imports() -> None:
    """In `__init__.py` a single dot means the package itself, elsewhere the package around the module."""
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
    """What the modules `names` below `root` do when a fresh interpreter imports them in `folder`."""
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
