"""`python -m dashboard_api` starts, explains mistakes and ends in time."""

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from deploy.local.stack import Mongod, Program, free_port
from tests.conftest import StartProgram
from tests.networks import save_arcface_like
from tests.waiting import wait_until

ARGS = [sys.executable, "-m", "dashboard_api"]
KEY = "a-long-enough-bootstrap-key"


def settings(mongod: Mongod, database: str, **more: Any) -> dict[str, str]:
    chosen = {"WFM_MONGO__URI": mongod.uri, "WFM_MONGO__DATABASE": database, "WFM_LOG__FORMAT": "json"}
    return chosen | {f"WFM_API__{name.upper()}": str(value) for name, value in more.items()}


def wait_for(url: str) -> None:
    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz", timeout=5).is_success
        except httpx.TransportError:
            return False

    wait_until(answers, "an answer of the API")


def test_sigterm_ends_it_in_time_with_a_stream_open(
    mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """The stream closes, the status is 0, and the configured key is an admin key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program: Program = start_program(ARGS, settings(mongod, mongo_database, port=port, bootstrap_key=KEY))
    wait_for(url)
    headers = {"Authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{url}/api/v1/identities", headers=headers).json() == {"items": [], "next_cursor": None}
    with httpx.stream("GET", f"{url}/api/v1/events/stream", headers=headers, timeout=15) as stream:
        blocks = stream.iter_bytes()
        assert b"connected" in next(blocks)
        started = time.monotonic()
        program.process.terminate()
        list(blocks)
        assert program.wait(10) == 0
    assert time.monotonic() - started < 10
    assert KEY not in program.log.read_text()


def test_a_key_is_created_for_a_role(
    mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """It is printed once; a viewer's key reads and changes nothing."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = settings(mongod, mongo_database, port=port, photos=False, bootstrap_key=KEY)
    maker = start_program([*ARGS, "new-key", "wall-display", "--role", "viewer"], env)
    assert maker.wait(60) == 0
    headers = {"Authorization": f"Bearer {maker.output().strip()}"}
    start_program(ARGS, env)
    wait_for(url)
    assert httpx.get(f"{url}/api/v1/identities", headers=headers).status_code == 200
    assert httpx.delete(f"{url}/api/v1/identities/EMP-12345", headers=headers).status_code == 403
    admin = {"Authorization": f"Bearer {KEY}"}
    assert httpx.delete(f"{url}/api/v1/identities/EMP-12345", headers=admin).status_code == 404
    assert start_program([*ARGS, "new-key", "x", "--role", "king"], env).wait(60) == 2


def test_without_any_key_the_log_names_the_setting(
    mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """One warning explains how to get an admin key."""
    port = free_port()
    program = start_program(ARGS, settings(mongod, mongo_database, port=port, photos=False))
    wait_for(f"http://127.0.0.1:{port}")
    assert program.stop() == 0
    lines = [json.loads(line) for line in program.log.read_text().splitlines()]
    assert any("WFM_API__BOOTSTRAP_KEY" in line["message"] and line["level"] == "warning" for line in lines)


def test_each_wrong_setting_has_a_sentence(tmp_path: Path, start_program: StartProgram) -> None:
    """The exit status is 2, and a short secret is not repeated."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"api": {"port": 0, "bootstrap_key": "hunter2", "prot": 1}}))
    program = start_program([*ARGS, "--config", str(file)])
    assert program.wait(60) == 2
    body = program.log.read_text()
    assert [name for name in ("api.port", "api.bootstrap_key", "api.prot") if name not in body] == []
    assert len(body.splitlines()) == 3
    assert "hunter2" not in body


def test_a_missing_mongodb_port_or_model_is_a_sentence(
    mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """The exit status is 2, without a traceback."""
    nowhere = f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"
    away = start_program(ARGS, {"WFM_MONGO__URI": nowhere, "WFM_API__PORT": str(free_port())})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = start_program(ARGS, settings(mongod, mongo_database, port=port))
        assert busy.wait(60) == 2
    model = start_program(
        ARGS, settings(mongod, mongo_database, port=free_port(), face_model="/no/model.onnx")
    )
    for program, words in [
        (away, "no MongoDB primary"),
        (busy, f"127.0.0.1:{port}"),
        (model, "api.face_model"),
    ]:
        assert program.wait(60) == 2
        assert words in program.log.read_text()
        assert len(program.log.read_text().splitlines()) == 1


def test_a_model_other_than_the_one_on_record_prevents_the_start(
    mongod: Mongod, mongo_database: str, start_program: StartProgram, tmp_path: Path
) -> None:
    """SCRFD without its model file is a mistake too."""
    first = save_arcface_like(tmp_path / "first.onnx", seed=1)
    other_model = save_arcface_like(tmp_path / "other.onnx", seed=2)
    spaces = json.dumps({"face": "face:test-512"})
    port = free_port()
    own = settings(mongod, mongo_database, port=port, bootstrap_key=KEY, default_spaces=spaces)
    program = start_program(ARGS, {**own, "WFM_API__FACE_MODEL": str(first)})
    wait_for(f"http://127.0.0.1:{port}")
    program.stop()
    refused = start_program(ARGS, {**own, "WFM_API__FACE_MODEL": str(other_model)})
    assert refused.wait(60) == 2
    assert "another model file on record" in refused.log.read_text()
    blind = start_program(ARGS, {**own, "WFM_API__FACE_MODEL": str(first), "WFM_API__FACE_DETECTOR": "scrfd"})
    assert blind.wait(60) == 2
    assert "face_detector_model" in blind.log.read_text()


async def test_while_mongodb_is_away_requests_get_503(
    own_mongod: Mongod, start_program: StartProgram
) -> None:
    """`healthz` stays alive, and the API recovers by itself."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start_program(ARGS, settings(own_mongod, "wfm", port=port, bootstrap_key=KEY, photos=False))
    await asyncio.to_thread(wait_for, url)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as api:
        assert (await api.get("/readyz")).json()["ready"] is True
        own_mongod.kill()
        paths = ["/api/v1/identities", "/api/v1/events/stream", "/readyz", "/healthz"]
        identities, stream, ready, alive = await asyncio.gather(*(api.get(path) for path in paths))
        for away in (identities, stream):
            assert (away.status_code, away.json()["code"]) == (503, "registry-unavailable")
            assert away.headers["content-type"] == "application/problem+json"
        assert (ready.status_code, alive.status_code) == (503, 200)
        own_mongod.restart()
        deadline = time.monotonic() + 20
        while (await api.get("/api/v1/identities")).status_code != 200:
            assert time.monotonic() < deadline
