"""A revoked or expired key stops in every API process."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone

import httpx

from broker_bridge.common.tasks import cancel_and_wait
from deploy.local.stack import Mongod, free_port
from tests.conftest import StartProgram
from tests.integration.dashboard_api.conftest import is_problem
from tests.waiting import until

ARGS = [sys.executable, "-m", "dashboard_api"]
ADMIN = "a-long-enough-bootstrap-key"
SECONDS = 60.0
KEYS_PATH = "/api/v1/keys"
# A second is the promise; the rest is for a loaded machine.
AT_ONCE = 2.0


def client_of(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS)


def settings(mongod: Mongod, database: str) -> dict[str, str]:
    return {
        "WFM_MONGO__URI": mongod.uri,
        "WFM_MONGO__DATABASE": database,
        "WFM_API__BOOTSTRAP_KEY": ADMIN,
    }


async def start_api(start_program: StartProgram, env: dict[str, str]) -> str:
    """Start one API process and return its URL once it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start_program(ARGS, {**env, "WFM_API__PORT": str(port)})

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{url}/healthz")).is_success
        except httpx.TransportError:
            return False

    await until(answers)
    return url


@asynccontextmanager
async def open_stream(client: httpx.AsyncClient) -> AsyncIterator["asyncio.Task[float]"]:
    """Yield a task that ends with the live stream and returns the time of its end."""
    async with client.stream("GET", "/api/v1/events/stream") as answer:
        assert answer.status_code == 200
        blocks = answer.aiter_bytes()
        assert b"connected" in await anext(blocks)

        async def read() -> float:
            async for _ in blocks:
                pass
            return time.monotonic()

        reading = asyncio.create_task(read())
        yield reading
        await cancel_and_wait([reading])


async def upload_photo(url: str, key: str) -> str:
    """Send the first bytes of a photo, never its end, and return the answer."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    try:
        lines = [
            "POST /api/v1/identities/EMP-1/photos HTTP/1.1",
            "Host: api",
            f"Authorization: Bearer {key}",
            "Content-Type: image/jpeg",
            "Content-Length: 5000",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + b"\xff\xd8\xff")
        return (await reader.readuntil(b"}")).decode()
    finally:
        writer.close()


async def until_used(admin: httpx.AsyncClient, key_id: str) -> None:
    async def used() -> bool:
        items = (await admin.get(KEYS_PATH)).json()["items"]
        return any(item["key_id"] == key_id and item["last_used_at"] for item in items)

    await until(used)


async def test_a_key_that_ends_in_one_process_ends_in_the_other(
    mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> None:
    """Requests and uploads get 401, live streams end; other keys go on."""
    env = settings(mongod, mongo_database)
    here, there = await asyncio.gather(start_api(start_program, env), start_api(start_program, env))

    async with client_of(here, ADMIN) as admin:

        async def create(name: str, role: str, **more: str) -> dict[str, str]:
            created = await admin.post(KEYS_PATH, json={"name": name, "role": role, **more})
            assert created.status_code == 201, created.text
            keys: dict[str, str] = created.json()
            return keys

        viewer, source = await create("wall", "viewer"), await create("desk", "source")
        expires_at = datetime.now(timezone.utc) + timedelta(seconds=2)
        short = await create("short", "viewer", expires_at=expires_at.isoformat())
        await admin.post("/api/v1/identities", json={"user_id": "EMP-1"})
        async with (
            client_of(there, viewer["key"]) as wall,
            client_of(there, short["key"]) as guest,
            client_of(there, ADMIN) as other,
            open_stream(wall) as reading,
            open_stream(guest) as short_reading,
            open_stream(other) as other_reading,
        ):
            photo = asyncio.create_task(upload_photo(there, source["key"]))
            # The photo is the only request of its key: the server reads it once a use is on record.
            await until_used(admin, source["key_id"])
            revoked_at = time.monotonic()
            for key in (viewer, source):
                assert (await admin.delete(f"{KEYS_PATH}/{key['key_id']}")).status_code == 200
            is_problem(await wall.get("/api/v1/whoami"), 401, "key-invalid")
            answer = await asyncio.wait_for(photo, SECONDS)
            assert answer.startswith("HTTP/1.1 401 ")
            assert '"code":"key-invalid"' in answer
            assert await asyncio.wait_for(reading, SECONDS) - revoked_at < AT_ONCE
            assert time.monotonic() - revoked_at < AT_ONCE

            await asyncio.wait_for(short_reading, SECONDS)
            late = (datetime.now(timezone.utc) - expires_at).total_seconds()
            assert -0.01 <= late < AT_ONCE
            is_problem(await guest.get("/api/v1/whoami"), 401, "key-invalid")
            assert (await other.get("/api/v1/whoami")).status_code == 200
            assert not other_reading.done()
