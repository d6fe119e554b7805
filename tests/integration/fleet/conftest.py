"""Provide a real API on a real database and the command."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from bson import json_util
from click.testing import Result
from pydantic import SecretStr
from pymongo import MongoClient
from typer.testing import CliRunner

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.registry import MongoSettings, Registry
from dashboard_api.app import create_app
from dashboard_api.bootstrap import ensure_spaces
from dashboard_api.services.photos import FaceEmbedding
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mongod, free_port
from device.vision import photo_embedder as enroll
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from fleet.__main__ import app
from tests.waiting import wait_until

KEYS = {role: f"key-of-the-{role}" for role in ("admin", "operator", "source", "viewer")}
FACE = "face:resnet29-512"


@dataclass(frozen=True)
class Api:
    """Address and database of a served API; `run` runs the command against it."""

    url: str
    mongo_uri: str
    database: str

    def environment(self, role: str = "admin") -> dict[str, str]:
        return {"WFM_FLEET__API_URL": self.url, "WFM_FLEET__API_KEY": KEYS[role], "COLUMNS": "240"}

    def run(self, *args: str | Path, role: str = "admin", stdin: bytes | None = None) -> Result:
        """Run `wfm-fleet identity ARGS` in this process."""
        return self.invoke("identity", *args, role=role, stdin=stdin)

    def invoke(self, *args: str | Path, role: str = "admin", stdin: bytes | None = None) -> Result:
        """Run `wfm-fleet ARGS` in this process."""
        return CliRunner().invoke(app, list(map(str, args)), input=stdin, env=self.environment(role))

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {KEYS['admin']}"}, timeout=30)

    def post(self, path: str, body: dict[str, object]) -> httpx.Response:
        return self._send("POST", path, body)

    def put(self, path: str, body: dict[str, object]) -> httpx.Response:
        return self._send("PUT", path, body)

    def _send(self, method: str, path: str, body: dict[str, object]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS['admin']}"}
        return httpx.request(method, self.url + path, json=body, headers=headers, timeout=30)

    def dump(self) -> str:
        """Return every document of every collection as JSON."""
        client: MongoClient[dict[str, object]]
        with MongoClient(self.mongo_uri) as client:
            database = client[self.database]
            names = sorted(database.list_collection_names())
            return json_util.dumps({name: list(database[name].find().sort("_id", 1)) for name in names})


Serve = Callable[[str], Api]


@pytest.fixture(scope="session")
def photo_embedder() -> FaceEmbedding:
    return enroll.PhotoEmbedder(load_detector(), load_embedder())


@pytest.fixture
def serve(mongod: Mongod, photo_embedder: FaceEmbedding) -> Iterator[Serve]:
    """Return a function that serves the API on a database until the test ends."""
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(database: str) -> Api:
        port = free_port()
        ready: list[uvicorn.Server] = []

        async def run() -> None:
            settings = ApiSettings()
            registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=database))
            await registry.spaces.ensure_record(DEFAULT_FACE_SPACE)
            await ensure_spaces(registry, settings)
            for role, secret in KEYS.items():
                await registry.api_keys.create(role, role, secret)  # type: ignore[arg-type]
            served = create_app(registry, settings, photo_embedder)
            server = uvicorn.Server(uvicorn.Config(served, port=port, log_level="error", lifespan="off"))
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            ready.append(server)
            await server.serve()
            await registry.close()

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        wait_until(lambda: ready and ready[0].started, "the API serves")
        started.append((ready[0], thread))
        return Api(f"http://127.0.0.1:{port}", mongod.uri, database)

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def api(serve: Serve, mongo_database: str) -> Api:
    return serve(mongo_database)
