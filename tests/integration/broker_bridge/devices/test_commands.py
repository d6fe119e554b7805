"""Commands from the registry to a device and back, and what heads say of models and policies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pymongo.errors import ConnectionFailure

from broker_bridge.bootstrap import Bridge
from broker_bridge.contract.channels import Channel, Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import CommandResult, DeviceInfo, DeviceStatus, SpaceInfo
from broker_bridge.contract.wire import WireModel
from broker_bridge.devices import command_dispatcher
from broker_bridge.devices.command_dispatcher import CommandDispatcher
from broker_bridge.registry import Registry
from broker_bridge.registry.devices.commands import CommandRecord
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, Peer, connected, running
from tests.waiting import until

MINE, OTHER = "a" * 64, "b" * 64


def now() -> datetime:
    return datetime.now(timezone.utc)


def order(command_id: str, device_id: str, seconds: float = 60) -> CommandRecord:
    at = now()
    expires_at = at + timedelta(seconds=seconds)
    return CommandRecord(command_id, device_id, "run_canary", {"n": 1}, at, expires_at, "tester")


async def online(peer: Peer, session: str) -> None:
    await peer.send("status", DeviceStatus(state="online", session=session, at=now()), retain=True)


async def in_state(registry: Registry, command_id: str, state: str) -> CommandRecord:
    async def reached() -> bool:
        found = await registry.commands.get(command_id)
        return found is not None and found.state == state

    await until(reached)
    found = await registry.commands.get(command_id)
    assert found is not None
    return found


async def test_a_command_is_sent_and_its_answers_are_noted(peer: Peer, registry: Registry) -> None:
    """Published on its own topic with arguments and expiry; accepted, then done with the device's words."""
    await online(peer, "1")
    given = order("cmd-1", peer.device.id)
    await registry.commands.enqueue(given)
    heard = await peer.receive("command")
    assert (heard.id, heard.args) == ("cmd-1", {"n": 1})
    assert abs(heard.expires_at - given.expires_at) < timedelta(milliseconds=1)
    assert (await in_state(registry, "cmd-1", "sent")).sent_at is not None
    await peer.send("command/result", CommandResult(id="cmd-1", state="accepted"))
    await in_state(registry, "cmd-1", "accepted")
    await peer.send("command/result", CommandResult(id="cmd-1", state="done", detail="0.9998"))
    done = await in_state(registry, "cmd-1", "done")
    assert (done.detail, done.answered_at is not None) == ("0.9998", True)


async def test_a_device_that_was_away_gets_its_command_when_it_is_online(
    bridge: Bridge, registry: Registry, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """It waits; it is sent once it is online; and again in a new session, as it was not answered."""
    await registry.commands.enqueue(order("cmd-1", fresh_device.id))
    async with connected(mosquitto, fresh_device) as peer:
        await peer.send("status", DeviceStatus(state="stopped", session="1", at=now()), retain=True)

        async def looked() -> bool:
            found = await registry.devices.get(fresh_device.id)
            return bool(found and found.status)

        await until(looked)
        waiting = await registry.commands.get("cmd-1")
        assert waiting is not None
        assert waiting.state == "waiting"
        await online(peer, "2")
        assert (await peer.receive("command")).id == "cmd-1"
    async with connected(mosquitto, fresh_device) as peer:
        await online(peer, "3")
        assert (await peer.receive("command")).id == "cmd-1"
        await peer.send("command/result", CommandResult(id="cmd-1", state="failed", detail="no camera"))
        await in_state(registry, "cmd-1", "failed")
        assert bridge.commands.counters["sent"] == 2


async def test_another_worker_that_takes_over_asks_again(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """An answer without a leading bridge is lost; the device answers again."""
    async with connected(mosquitto, fresh_device) as peer:
        await online(peer, "1")
        async with running(registry, program):
            await registry.commands.enqueue(order("cmd-1", fresh_device.id))
            await peer.receive("command")
        async with running(registry, program):
            assert (await peer.receive("command")).id == "cmd-1"


class Wire:
    """In place of the link: takes what is published, or not."""

    def __init__(self) -> None:
        self.takes = True
        self.sent: list[str] = []

    async def publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
        if self.takes:
            self.sent.append(channel.topic(**ids))
        return self.takes


class Clock:
    def __init__(self) -> None:
        self.now = now()

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def at_work(
    registry: Registry, wire: Wire, clock: Callable[[], datetime]
) -> AsyncIterator[CommandDispatcher]:
    """A desk that polls often, without a broker."""
    desk = CommandDispatcher(registry, wire.publish, 0.05, clock)
    task = asyncio.create_task(desk.dispatch_commands())
    yield desk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def says(desk: CommandDispatcher, device_id: str, state: Any, session: str) -> None:
    status = DeviceStatus(state=state, session=session, at=now())
    desk.note_status(Decoded(_ANY, {"device_id": device_id}, status), b"")


def answers(desk: CommandDispatcher, device_id: str, command_id: str, state: Any) -> None:
    result = CommandResult(id=command_id, state=state)
    desk.note_result(Decoded(_ANY, {"device_id": device_id}, result), b"")


_ANY: Any = None
Settled = Callable[[str, int], Awaitable[None]]


def settled(desk: CommandDispatcher) -> Settled:
    async def wait(counter: str, count: int) -> None:
        async def reached() -> bool:
            return desk.counters[counter] >= count

        await until(reached)

    return wait


async def test_a_command_expires_by_the_clock_unless_it_was_answered(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """Never sent or never answered, it says which; a late final word of the device stands in its place."""
    wire, clock = Wire(), Clock()
    async with at_work(registry, wire, clock) as desk:
        await registry.commands.enqueue(order("cmd-1", fresh_device.id))
        await registry.commands.enqueue(order("cmd-2", "cam-away"))
        says(desk, fresh_device.id, "online", "1")
        await in_state(registry, "cmd-1", "sent")
        clock.now += timedelta(seconds=61)
        assert "answer" in str((await in_state(registry, "cmd-1", "expired")).detail)
        assert "online" in str((await in_state(registry, "cmd-2", "expired")).detail)
        says(desk, "cam-away", "online", "1")
        await settled(desk)("polls", desk.counters["polls"] + 2)
        assert wire.sent == [f"wfm/v1/device/{fresh_device.id}/down/command/run_canary"]
        answers(desk, fresh_device.id, "cmd-1", "done")
        await in_state(registry, "cmd-1", "done")
        answers(desk, fresh_device.id, "cmd-1", "expired")
        await settled(desk)("results_repeated", 1)
        await in_state(registry, "cmd-1", "done")


async def test_an_answer_counts_from_the_device_that_was_asked(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """Another device's word, or one about a command that never was, is counted and changes nothing."""
    async with at_work(registry, Wire(), Clock()) as desk:
        await registry.commands.enqueue(order("cmd-1", fresh_device.id))
        answers(desk, "cam-other", "cmd-1", "done")
        answers(desk, fresh_device.id, "cmd-404", "done")
        await settled(desk)("results_unknown", 2)
        found = await registry.commands.get("cmd-1")
        assert found is not None
        assert found.state == "waiting"


async def test_a_command_that_the_broker_did_not_take_waits(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """It is published as soon as it can be, and then not again in that session."""
    wire = Wire()
    wire.takes = False
    async with at_work(registry, wire, Clock()) as desk:
        await registry.commands.enqueue(order("cmd-1", fresh_device.id))
        says(desk, fresh_device.id, "online", "2")
        await settled(desk)("polls", desk.counters["polls"] + 2)
        await in_state(registry, "cmd-1", "waiting")
        wire.takes = True
        await in_state(registry, "cmd-1", "sent")
        # The will of an older connection comes late: the device is online all the same.
        says(desk, fresh_device.id, "lost", "1")
        says(desk, fresh_device.id, "online", "2")
        await settled(desk)("polls", desk.counters["polls"] + 2)
        assert len(wire.sent) == 1


async def test_answers_are_noted_while_many_commands_go_out(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More results than the queue holds arrive during one round; none is dropped."""
    count, limit = 120, 100
    monkeypatch.setattr(command_dispatcher, "_LIMIT", limit)

    class Answering(Wire):
        async def publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
            answers(desk, ids["device_id"], message.id, "done")  # type: ignore[attr-defined]
            return await super().publish(channel, message, **ids)

    documents = [asdict(order(f"cmd-{n:04}", f"cam-{n}", seconds=600)) for n in range(count)]
    await registry.mongo.db.commands.insert_many([{"_id": one.pop("command_id"), **one} for one in documents])
    wire = Answering()
    async with at_work(registry, wire, now) as desk:
        for n in range(count):
            says(desk, f"cam-{n}", "online", "1")
        await settled(desk)("results_noted", count)
        assert (len(wire.sent), desk.counters["dropped_queue_full"]) == (count, 0)


async def test_a_command_is_sent_again_if_it_could_not_be_noted_as_sent(
    registry: Registry, fresh_device: FreshDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would end as one that waited for its device, which had it all along."""
    noted, failures = registry.commands.mark_sent, [ConnectionFailure("away")]

    async def sent(command_id: str, at: datetime) -> None:
        if failures:
            raise failures.pop()
        await noted(command_id, at)

    monkeypatch.setattr(registry.commands, "mark_sent", sent)
    async with at_work(registry, Wire(), now) as desk:
        await registry.commands.enqueue(order("cmd-1", fresh_device.id))
        says(desk, fresh_device.id, "online", "1")
        await in_state(registry, "cmd-1", "sent")
        assert (desk.counters["failed"], failures) == (1, [])


async def test_answers_past_the_bound_are_dropped_and_counted(registry: Registry) -> None:
    """A device that floods costs bounded memory."""
    desk = CommandDispatcher(registry, Wire().publish, 1.0, now)
    for n in range(1005):
        answers(desk, "cam-001", f"cmd-{n}", "done")
    assert desk.counters["dropped_queue_full"] == 5


# What heads say beside versions


async def head_where(peer: Peer, holds: Callable[[Any], bool]) -> Any:
    while not holds(head := await peer.receive("sync_head")):
        pass
    return head


async def test_the_first_model_is_on_record_in_the_head(
    peer: Peer,
    bridge: Bridge,
    registry: Registry,
    fresh_device: FreshDevice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A device's info settles it and the head says so at once; another file is counted and logged once."""

    def info(sha256: str, software: str = "1") -> DeviceInfo:
        space = SpaceInfo(dimension=8, model_sha256=sha256)
        return DeviceInfo(site_id=fresh_device.site, software=software, spaces={SPACE: space})

    await peer.send("info", info(MINE), retain=True)
    await head_where(peer, lambda head: SPACE in head.spaces and head.spaces[SPACE].model_sha256 == MINE)
    for times in (1, 2):
        await peer.send("info", info(OTHER, str(times)), retain=True)

        async def counted(times: int = times) -> bool:
            return bridge.presence.counters["models_differ"] == times

        await until(counted)
    assert await registry.spaces.get(SPACE) == EmbeddingSpace(SPACE, 8, MINE)
    assert [record.name for record in caplog.records if OTHER in record.message] == [
        "broker_bridge.devices.presence"
    ]


async def test_a_site_that_is_opened_says_so_at_once(
    peer: Peer, registry: Registry, fresh_device: FreshDevice
) -> None:
    """And closing it takes the word back."""
    await head_where(peer, lambda head: head.enrollment_policy is None)
    for policy, told in (("visitors", "visitors"), ("closed", None)):
        await registry.sites.set_policy(fresh_device.site, policy, by="tester", at=now())  # type: ignore[arg-type]
        await head_where(peer, lambda head, told=told: head.enrollment_policy == told)
