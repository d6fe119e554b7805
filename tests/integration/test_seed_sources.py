"""The examples of seeds 000 to 002, run as they stand on a real API.

Replaced are only the address, the key (in the header of every request), the numbers that the seeds leave
out as `...`, and `requests`, which is httpx here.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from deploy.local.stack import Mongod, free_port
from tests.conftest import StartProgram
from tests.seed_examples import (
    DELETE_AN_IDENTITY,
    GET_DELETED_CUSTOMERS,
    GET_MANIFEST,
    HANDLE_A_DELETION,
    HANDLE_A_RENAME,
    INGEST,
    LIST_IDENTITIES,
    PUSH,
    PUSH_DIRECTLY,
    REMOVE_FROM_LOCAL_CACHE,
    SUBMIT_A_JOB,
    SYNC,
    SYNC_ALL_LABELED_IDENTITIES,
)
from tests.waiting import wait_until

ARGS = [sys.executable, "-m", "dashboard_api"]
KEY = "a-long-enough-bootstrap-key"


def filled(example: str, dimension: int = 512) -> Any:
    """The JSON of an example, its lists of numbers brought to their length."""
    random = np.random.default_rng(len(example))

    def fill(found: re.Match[str]) -> str:
        begun = [float(number) for number in found[1].split(", ")]
        return json.dumps(begun + random.normal(size=dimension - len(begun)).tolist())

    return json.loads(re.sub(r"\[([^][]*), \.\.\.\]", fill, example))


@dataclass(frozen=True)
class Answer:
    """What the examples use of an answer of `requests`."""

    answer: httpx.Response

    @property
    def ok(self) -> bool:
        return self.answer.is_success

    def json(self) -> Any:
        return self.answer.json()


@dataclass
class Api:
    """A running API, with what came of the last request of an example."""

    url: str
    new_key: Callable[..., str]
    last: httpx.Response | None = None

    def ask(self, method: str, path: str, key: str = KEY, **more: Any) -> Any:
        """The answer of a request that has to succeed."""
        self.last = httpx.request(method, self.url + path, headers={"Authorization": f"Bearer {key}"}, **more)
        assert self.last.is_success, self.last.text
        return self.last.json()

    def curl(self, line: str) -> Any:
        *options, url = shlex.split(line)[1:]
        method = options[1] if options else "GET"
        return self.ask(method, url.removeprefix("http://localhost:8000"))

    def run(self, example: str, **names: Any) -> dict[str, Any]:
        """The names that an example leaves."""

        def get(url: str, **more: Any) -> Answer:
            self.last = httpx.get(url, **more)
            return Answer(self.last)

        def post(url: str, **more: Any) -> Answer:
            self.last = httpx.post(url, headers={"Authorization": f"Bearer {KEY}"}, **more)
            assert self.last.is_success, self.last.text
            return Answer(self.last)

        scope = {
            "requests": SimpleNamespace(get=get, post=post),
            "STUDIO_URL": self.url,
            "List": list,
            **names,
        }
        exec(example.replace("http://192.168.50.20:5050", self.url), scope)
        return scope

    def names(self) -> dict[str, str]:
        """Of those from another system: name by key."""
        listed = self.ask("GET", "/api/identities/external")["identities"]
        return {one["external_id"]: one["name"] for one in listed}


@pytest.fixture
def api(mongod: Mongod, mongo_database: str, start_program: StartProgram) -> Api:
    port = free_port()
    env = {
        "WFM_MONGO__URI": mongod.uri,
        "WFM_MONGO__DATABASE": mongo_database,
        "WFM_API__PORT": str(port),
        "WFM_API__PHOTOS": "false",
        "WFM_API__BOOTSTRAP_KEY": KEY,
    }

    def new_key(*arguments: str) -> str:
        program = start_program([*ARGS, "new-key", *arguments], env)
        assert program.wait(30) == 0, program.output()
        return program.output().strip()

    start_program(ARGS, env)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz", timeout=5).is_success
        except httpx.TransportError:
            return False

    wait_until(answers, "an answer of the API")
    return Api(url, new_key)


def test_identities_are_pushed_listed_and_deleted(api: Api) -> None:
    """Seed 000: three modalities of three dimensions, and the three lines of curl."""
    for modality, dimension in (("face", 512), ("gait", 256), ("speaker", 192)):
        api.ask("POST", "/api/v1/identity/", json={**filled(PUSH, dimension), "modality": modality})
    api.ask(
        "POST", "/api/v1/identity/", json={**filled(PUSH), "name": "old_person", "embedding": [1.0] * 512}
    )
    everyone = {
        "face": ["juan_canfield", "old_person"],
        "gait": ["juan_canfield"],
        "speaker": ["juan_canfield"],
    }
    assert api.curl(GET_MANIFEST) == everyone
    rows = api.curl(LIST_IDENTITIES)
    assert {(row["name"], row["modality"], row["embedding_dim"], row["source_node"]) for row in rows} == {
        ("juan_canfield", "face", 512, "brain"),
        ("juan_canfield", "gait", 256, "brain"),
        ("juan_canfield", "speaker", 192, "brain"),
        ("old_person", "face", 512, "brain"),
    }
    api.curl(DELETE_AN_IDENTITY)
    assert api.curl(GET_MANIFEST)["face"] == ["juan_canfield"]
    api.ask("DELETE", "/api/v1/identity/juan_canfield")
    assert api.curl(GET_MANIFEST) == {"face": [], "gait": [], "speaker": []}


def test_identities_are_synced_and_vectors_ingested(api: Api) -> None:
    """Seed 001: the requests, and what the answers say there (ours say more)."""
    before = [{"external_id": key, "name": "Somebody", "action": "upsert"} for key in ("87", "15")]
    api.ask("POST", "/api/identities/sync", json={"source_system": "alfred_catalog", "identities": before})
    said = api.ask("POST", "/api/identities/sync", json=json.loads(SYNC))
    assert {"success": True, "created": 1, "updated": 1, "deleted": 1, "errors": []}.items() <= said.items()
    said = api.ask("POST", "/api/identities/ingest-embeddings", json=filled(INGEST))
    assert {"success": True, "identities_resolved": 2, "embeddings_stored": 3}.items() <= said.items()
    again = api.ask("POST", "/api/identities/ingest-embeddings", json=filled(INGEST))
    assert (again["identities_resolved"], again["embeddings_stored"]) == (2, 0)
    listed = api.ask("GET", "/api/identities/external")
    assert listed["success"] is True
    named = "identity_id external_id source_system name embedding_count first_seen last_seen"
    assert all(set(one) == set(named.split()) for one in listed["identities"])
    counts = {one["external_id"]: (one["name"], one["embedding_count"]) for one in listed["identities"]}
    assert counts == {"42": ("John Smith", 2), "87": ("Jane Doe", 1)}


def test_the_catalogs_own_calls_work(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Seed 001: all people, a rename, a direct push, a deletion."""
    people = [SimpleNamespace(id=42, name="John Smith"), SimpleNamespace(id=87, name="Jane Doe")]
    api.run(SYNC_ALL_LABELED_IDENTITIES, get_all_labeled_people=lambda: people)
    assert "'success': True, 'created': 2, 'updated': 0, 'deleted': 0" in capsys.readouterr().out
    api.run(HANDLE_A_RENAME)
    assert api.names() == {"42": "Jonathan Smith", "87": "Jane Doe"}
    api.run(PUSH_DIRECTLY, embedding_vector=np.random.default_rng(1).normal(size=512))
    assert api.names()["42"] == "John Smith"
    api.run(HANDLE_A_DELETION)
    assert api.names() == {"87": "Jane Doe"}


@pytest.mark.parametrize(
    ("left_out", "photo_count"),
    [
        ('        # OR\n        "batch_id": "batch_2026_02_25"\n', 2),
        ('"photo_ids": ["photo_001", "photo_002", ...],', None),
    ],
)
def test_a_job_is_submitted(api: Api, left_out: str, photo_count: int | None) -> None:
    """Seed 001: by photo ids, or by batch."""
    assert left_out in SUBMIT_A_JOB
    api.run(SUBMIT_A_JOB.replace(left_out, "").replace(", ...", ""))
    (job,) = api.ask("GET", "/api/training/jobs")["items"]
    assert (job["status"], job["photo_count"]) == ("queued", photo_count)


def test_a_device_receives_the_deleted_identities(api: Api) -> None:
    """Seed 002: `deleted` lists the ids deleted since the time of the last answer."""
    api.ask("POST", "/api/v1/devices", json={"device_id": "cam-9", "site_id": "lobby"})
    key = api.new_key("door", "--role", "edge", "--device", "cam-9")
    for n in (3, 5):
        api.ask("POST", "/api/v1/identities", json={"user_id": f"visitor_{n}"})
    first = api.ask("GET", "/api/edge/sync", key)
    api.ask("DELETE", "/api/v1/identities/visitor_5")
    api.ask("PATCH", "/api/v1/identities/visitor_3", json={"flag": "red"})
    embedding = np.random.default_rng(2).normal(size=512).tolist()
    template = {"space": "face:resnet29-512", "embedding": embedding}
    api.ask("POST", "/api/v1/identities", json={"user_id": "visitor_10", "templates": [template]})
    told = api.ask("GET", f"/api/edge/sync?since={first['version']}", key)
    assert [(one["action"], one["face_id"], one.get("flag")) for one in told["changes"]] == [
        ("delete", "visitor_5", None),
        ("update", "visitor_3", "red"),
        ("create", "visitor_10", None),
    ]
    assert told["changes"][2]["templates"][0]["embedding"]
    client = SimpleNamespace(base_url=api.url, _get_headers=lambda: {"Authorization": f"Bearer {key}"})
    get_deleted_customers = api.run(GET_DELETED_CUSTOMERS)["get_deleted_customers"]
    deleted = get_deleted_customers(client, first["sync_timestamp"])
    assert deleted == ["visitor_5"]
    known = [(3, "a"), (5, "b"), (10, "c")]
    assert api.run(REMOVE_FROM_LOCAL_CACHE, deleted=deleted, known_embeddings=known)["known_embeddings"] == [
        (3, "a"), (10, "c")
    ]  # fmt: skip
