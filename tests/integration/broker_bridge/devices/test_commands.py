"""Test commands from registry to device, and models and policies in heads."""

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
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, Peer, connected, running
from tests.space_limits import LIMITS
from tests.waiting import until

RECORDED_MODEL, OTHER_MODEL = "a" * 64, "b" * 64


def now() -> datetime:
    return datetime.now(timezone.utc)


def command_record(command_id: str, device_id: str, seconds: float = 60) -> CommandRecord:
    at = now()
    expires_at = at + timedelta(seconds=seconds)
    return CommandRecord(command_id, device_id, "run_canary", {"n": 1}, at, expires_at, "tester")


async def set_online(peer: Peer, session: str) -> None:
    await peer.send("status", DeviceStatus(state="online", session=session, at=now()), retain=True)


async def wait_for_state(registry: Registry, command_id: str, state: str) -> CommandRecord:
    async def reached() -> bool:
        found = await registry.commands.get(command_id)
        return found is not None and found.state == state

    await until(reached)
    found = await registry.commands.get(command_id)
    assert found is not None
    return found


async def test_a_command_is_sent_and_its_results_are_recorded(peer: Peer, registry: Registry) -> None:
    """A command is published with arguments and expiry; its results are recorded.

    The states are `accepted`, then `done` with the device's detail.
    """
    await set_online(peer, "1")
    record = command_record("cmd-1", peer.device.id)
    await registry.commands.enqueue(record)
    command = await peer.receive("command")
    assert (command.id, command.args) == ("cmd-1", {"n": 1})
    assert abs(command.expires_at - record.expires_at) < timedelta(milliseconds=1)
    assert (await wait_for_state(registry, "cmd-1", "sent")).sent_at is not None
    await peer.send("command/result", CommandResult(id="cmd-1", state="accepted"))
    await wait_for_state(registry, "cmd-1", "accepted")
    await peer.send("command/result", CommandResult(id="cmd-1", state="done", detail="0.9998"))
    done = await wait_for_state(registry, "cmd-1", "done")
    assert (done.detail, done.answered_at is not None) == ("0.9998", True)


async def test_a_command_for_an_offline_device_is_sent_when_it_connects(
    bridge: Bridge, registry: Registry, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """A command waits while its device is offline and is sent when it is online.

    Without a result it is sent again in the next session.
    """
    await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
    async with connected(mosquitto, fresh_device) as peer:
        await peer.send("status", DeviceStatus(state="stopped", session="1", at=now()), retain=True)

        async def status_recorded() -> bool:
            found = await registry.devices.get(fresh_device.id)
            return bool(found and found.status)

        await until(status_recorded)
        waiting = await registry.commands.get("cmd-1")
        assert waiting is not None
        assert waiting.state == "waiting"
        await set_online(peer, "2")
        assert (await peer.receive("command")).id == "cmd-1"
    async with connected(mosquitto, fresh_device) as peer:
        await set_online(peer, "3")
        assert (await peer.receive("command")).id == "cmd-1"
        await peer.send("command/result", CommandResult(id="cmd-1", state="failed", detail="no camera"))
        await wait_for_state(registry, "cmd-1", "failed")
        assert bridge.commands.counters["sent"] == 2


async def test_a_camera_with_a_new_disk_gets_commands(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """Its session number is below the highest seen and its clock stands in 1970.

    A bridge that starts anew and gets the late last will of the older session stored sends commands too.
    """
    boot = datetime(1970, 1, 1, 0, 0, 20, tzinfo=timezone.utc)

    def is_online(session: str) -> Callable[[], Awaitable[bool]]:
        async def is_stored() -> bool:
            found = await registry.devices.get(fresh_device.id)
            status = found and found.status
            return status is not None and (status.state, status.session) == ("online", session)

        return is_stored

    async with connected(mosquitto, fresh_device) as peer:
        async with running(registry, program):
            await set_online(peer, "ffff")
            # The leader follows statuses only a moment after it is connected, and a session that no bridge
            # has seen may be the newer one.
            await until(is_online("ffff"))
            await peer.send("status", DeviceStatus(state="online", session="14", at=boot), retain=True)
            await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
            assert (await peer.receive("command")).id == "cmd-1"
            await until(is_online("14"))
            await peer.send("status", DeviceStatus(state="lost", session="ffff", at=now()), retain=True)
        async with running(registry, program):
            await registry.commands.enqueue(command_record("cmd-2", fresh_device.id))
            # An open command may come twice before the other one.
            received: set[str] = set()
            while received != {"cmd-1", "cmd-2"}:
                received.add((await peer.receive("command")).id)
        assert await is_online("14")()


async def test_a_new_leader_sends_an_open_command_again(
    registry: Registry, program: BridgeProgram, mosquitto: Mosquitto, fresh_device: FreshDevice
) -> None:
    """A result without a leading bridge is lost; the new leader sends again."""
    async with connected(mosquitto, fresh_device) as peer:
        await set_online(peer, "1")
        async with running(registry, program):
            await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
            await peer.receive("command")
        async with running(registry, program):
            assert (await peer.receive("command")).id == "cmd-1"


class Wire:
    """Stand in for the broker session; accept or refuse publications."""

    def __init__(self) -> None:
        self.accepts = True
        self.sent: list[str] = []

    async def publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
        if self.accepts:
            self.sent.append(channel.topic(**ids))
        return self.accepts


class Clock:
    def __init__(self) -> None:
        self.now = now()

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def running_dispatcher(
    registry: Registry, wire: Wire, clock: Callable[[], datetime]
) -> AsyncIterator[CommandDispatcher]:
    """Run a dispatcher that polls often, without a broker."""
    dispatcher = CommandDispatcher(registry, wire.publish, 0.05, clock)
    task = asyncio.create_task(dispatcher.dispatch_commands())
    yield dispatcher
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def record_status(registry: Registry, device_id: str, state: str, session: str) -> None:
    await registry.devices.record_contact([device_id])
    await registry.devices.record_reports([DeviceReport.status(device_id, state, session, now(), now())])


def send_result(dispatcher: CommandDispatcher, device_id: str, command_id: str, state: Any) -> None:
    result = CommandResult(id=command_id, state=state)
    dispatcher.note_result(Decoded(_ANY, {"device_id": device_id}, result), b"")


_ANY: Any = None
CounterWait = Callable[[str, int], Awaitable[None]]


def wait_for_counter(dispatcher: CommandDispatcher) -> CounterWait:
    async def wait(counter: str, count: int) -> None:
        async def reached() -> bool:
            return dispatcher.counters[counter] >= count

        await until(reached)

    return wait


async def test_a_command_without_a_result_expires_by_the_clock(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """The detail says whether it was never sent or never answered.

    A late final result replaces `expired`.
    """
    wire, clock = Wire(), Clock()
    async with running_dispatcher(registry, wire, clock) as dispatcher:
        await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
        await registry.commands.enqueue(command_record("cmd-2", "cam-away"))
        await record_status(registry, fresh_device.id, "online", "1")
        await wait_for_state(registry, "cmd-1", "sent")
        clock.now += timedelta(seconds=61)
        assert "answer" in str((await wait_for_state(registry, "cmd-1", "expired")).detail)
        assert "online" in str((await wait_for_state(registry, "cmd-2", "expired")).detail)
        await record_status(registry, "cam-away", "online", "1")
        await wait_for_counter(dispatcher)("polls", dispatcher.counters["polls"] + 2)
        assert wire.sent == [f"wfm/v1/device/{fresh_device.id}/down/command/run_canary"]
        send_result(dispatcher, fresh_device.id, "cmd-1", "done")
        await wait_for_state(registry, "cmd-1", "done")
        send_result(dispatcher, fresh_device.id, "cmd-1", "expired")
        await wait_for_counter(dispatcher)("results_repeated", 1)
        await wait_for_state(registry, "cmd-1", "done")


async def test_a_result_counts_only_from_the_device_of_the_command(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """A result of another device or an unknown command is counted and ignored."""
    async with running_dispatcher(registry, Wire(), Clock()) as dispatcher:
        await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
        send_result(dispatcher, "cam-other", "cmd-1", "done")
        send_result(dispatcher, fresh_device.id, "cmd-404", "done")
        await wait_for_counter(dispatcher)("results_unknown", 2)
        found = await registry.commands.get("cmd-1")
        assert found is not None
        assert found.state == "waiting"


async def test_a_command_that_could_not_be_published_waits(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """It is published once the broker accepts it, and only once in that session."""
    wire = Wire()
    wire.accepts = False
    async with running_dispatcher(registry, wire, Clock()) as dispatcher:
        await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
        await record_status(registry, fresh_device.id, "online", "2")
        await wait_for_counter(dispatcher)("polls", dispatcher.counters["polls"] + 2)
        await wait_for_state(registry, "cmd-1", "waiting")
        wire.accepts = True
        await wait_for_state(registry, "cmd-1", "sent")
        # A late last will of an older session does not make the device offline.
        await record_status(registry, fresh_device.id, "lost", "1")
        await record_status(registry, fresh_device.id, "online", "2")
        await wait_for_counter(dispatcher)("polls", dispatcher.counters["polls"] + 2)
        assert len(wire.sent) == 1


async def test_results_are_recorded_while_many_commands_are_sent(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More results than the queue holds arrive during one round; none is dropped."""
    count, limit = 120, 100
    monkeypatch.setattr(command_dispatcher, "_LIMIT", limit)

    class Answering(Wire):
        async def publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
            send_result(dispatcher, ids["device_id"], message.id, "done")  # type: ignore[attr-defined]
            return await super().publish(channel, message, **ids)

    documents = [asdict(command_record(f"cmd-{n:04}", f"cam-{n}", seconds=600)) for n in range(count)]
    await registry.mongo.db.commands.insert_many(
        [{"_id": document.pop("command_id"), **document} for document in documents]
    )
    wire = Answering()
    async with running_dispatcher(registry, wire, now) as dispatcher:
        for n in range(count):
            await record_status(registry, f"cam-{n}", "online", "1")
        await wait_for_counter(dispatcher)("results_noted", count)
        assert (len(wire.sent), dispatcher.counters["dropped_queue_full"]) == (count, 0)


async def test_a_command_is_sent_again_if_the_sent_state_was_not_stored(
    registry: Registry, fresh_device: FreshDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would expire as never sent, although its device received it."""
    mark_sent, failures = registry.commands.mark_sent, [ConnectionFailure("away")]

    async def fail_once(command_id: str, at: datetime) -> None:
        if failures:
            raise failures.pop()
        await mark_sent(command_id, at)

    monkeypatch.setattr(registry.commands, "mark_sent", fail_once)
    async with running_dispatcher(registry, Wire(), now) as dispatcher:
        await registry.commands.enqueue(command_record("cmd-1", fresh_device.id))
        await record_status(registry, fresh_device.id, "online", "1")
        await wait_for_state(registry, "cmd-1", "sent")
        assert (dispatcher.counters["failed"], failures) == (1, [])


async def test_results_past_the_bound_are_dropped_and_counted(registry: Registry) -> None:
    """A device that floods the bridge costs bounded memory."""
    dispatcher = CommandDispatcher(registry, Wire().publish, 1.0, now)
    for n in range(1005):
        send_result(dispatcher, "cam-001", f"cmd-{n}", "done")
    assert dispatcher.counters["dropped_queue_full"] == 5


async def receive_head(peer: Peer, matches: Callable[[Any], bool]) -> Any:
    while not matches(head := await peer.receive("sync_head")):
        pass
    return head


async def test_a_model_on_record_is_in_the_head_at_once(
    peer: Peer,
    bridge: Bridge,
    registry: Registry,
    fresh_device: FreshDevice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So are its limits.

    The model file of a device is recorded never, and one that differs is counted, and logged once.
    """

    def info(sha256: str, software: str = "1") -> DeviceInfo:
        space = SpaceInfo(dimension=8, model_sha256=sha256)
        return DeviceInfo(site_id=fresh_device.site, software=software, spaces={SPACE: space})

    record = await registry.spaces.record(SPACE)
    await peer.send("info", info(OTHER_MODEL, "0"), retain=True)
    await registry.spaces.put(record.model_copy(update={"model_sha256": RECORDED_MODEL}), by="admin")
    await receive_head(
        peer, lambda head: SPACE in head.spaces and head.spaces[SPACE].model_sha256 == RECORDED_MODEL
    )
    calibrated = LIMITS.model_copy(update={"distance": 0.5})
    new = {"model_sha256": RECORDED_MODEL, "limits": calibrated}
    await registry.spaces.put(record.model_copy(update=new), by="admin")
    await receive_head(peer, lambda head: head.spaces[SPACE].limits == calibrated)
    for times in (1, 2):
        await peer.send("info", info(OTHER_MODEL, str(times)), retain=True)

        async def counted(times: int = times) -> bool:
            return bridge.presence.counters["models_differ"] == times

        await until(counted)
    assert await registry.spaces.get(SPACE) == EmbeddingSpace(SPACE, 8, RECORDED_MODEL)
    assert [record.name for record in caplog.records if OTHER_MODEL in record.message] == [
        "broker_bridge.devices.presence"
    ]


async def test_the_head_has_the_enrollment_policy_at_once(
    peer: Peer, registry: Registry, fresh_device: FreshDevice
) -> None:
    """Opening a site publishes the policy; closing it removes the policy."""
    await receive_head(peer, lambda head: head.enrollment_policy is None)
    for policy, published in (("visitors", "visitors"), ("closed", None)):
        await registry.sites.set_policy(fresh_device.site, policy, by="tester", at=now())  # type: ignore[arg-type]
        await receive_head(peer, lambda head, published=published: head.enrollment_policy == published)
