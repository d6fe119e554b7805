"""The rights of deploy/mosquitto/acl on a real broker.

A later message on the same path proves that an earlier one was not delivered.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiomqtt
import pytest

from deploy.local.stack import Mosquitto

Connect = Callable[[str], AbstractAsyncContextManager[aiomqtt.Client]]


@pytest.fixture
def connect(own_mosquitto: Mosquitto) -> Connect:
    @asynccontextmanager
    async def open_client(user: str) -> AsyncIterator[aiomqtt.Client]:
        async with aiomqtt.Client(
            own_mosquitto.host,
            own_mosquitto.port,
            username=user,
            password=own_mosquitto.users[user],
            identifier=user,
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=5,
        ) as client:
            yield client

    return open_client


async def topics_until(client: aiomqtt.Client, last: str) -> list[str]:
    """The topics received, in order, up to and with `last`."""
    seen: list[str] = []
    async for message in client.messages:
        seen.append(str(message.topic))
        if seen[-1] == last:
            break
    return seen


async def test_a_device_writes_only_its_own_up(connect: Connect) -> None:
    """Messages of cam-001 on foreign, downward and site topics reach no subscriber."""
    async with connect("admin") as listener, connect("cam-001") as device:
        await listener.subscribe("wfm/v1/#", qos=1)
        for topic in (
            "wfm/v1/device/cam-002/up/status",
            "wfm/v1/device/cam-002/up/enrollment/register",
            "wfm/v1/device/cam-002/up/command/result",
            "wfm/v1/device/cam-001/down/event/receipt",
            "wfm/v1/device/cam-001/down/command/resync",
            "wfm/v1/site/lobby/enrollment/head",
            "wfm/v1/device/cam-001/up/enrollment/register",
            "wfm/v1/device/cam-001/up/command/result",
            "wfm/v1/device/cam-001/up/status",
        ):
            await device.publish(topic, b"{}", qos=1)
        seen = await topics_until(listener, "wfm/v1/device/cam-001/up/status")
    assert seen == [
        f"wfm/v1/device/cam-001/up/{tail}" for tail in ("enrollment/register", "command/result", "status")
    ]


@pytest.mark.parametrize("prefix", ["", "$share/anything/"])
async def test_a_device_reads_its_own_down_and_its_site_only(connect: Connect, prefix: str) -> None:
    """A wide subscription, plain or shared, delivers only own and site topics."""
    async with connect("cam-001") as device, connect("bridge") as bridge:
        await device.subscribe(f"{prefix}wfm/v1/#", qos=1)
        for topic in (
            "wfm/v1/device/cam-002/down/enrollment/page",
            "wfm/v1/device/cam-002/down/enrollment/registered",
            "wfm/v1/device/cam-002/down/command/resync",
            "wfm/v1/site/elsewhere/enrollment/delta",
            *(
                own := [
                    "wfm/v1/site/lobby/enrollment/delta",
                    "wfm/v1/device/cam-001/down/enrollment/registered",
                    "wfm/v1/device/cam-001/down/command/resync",
                    "wfm/v1/device/cam-001/down/enrollment/page",
                ]
            ),
        ):
            await bridge.publish(topic, b"{}", qos=1)
        seen = await topics_until(device, own[-1])
    assert seen == own


async def test_a_device_reads_its_own_info_only(connect: Connect) -> None:
    """There it finds another device with its id; other topics of its own stay unread."""
    async with connect("cam-001") as device, connect("cam-002") as other:
        await device.subscribe("wfm/v1/#", qos=1)
        await other.publish("wfm/v1/device/cam-002/up/info", b"{}", qos=1)
        await device.publish("wfm/v1/device/cam-001/up/status", b"{}", qos=1)
        await device.publish("wfm/v1/device/cam-001/up/info", b"{}", qos=1)
        seen = await topics_until(device, "wfm/v1/device/cam-001/up/info")
    assert seen == ["wfm/v1/device/cam-001/up/info"]


async def test_bridge_workers_share_events(connect: Connect) -> None:
    """The bridge reads the events of all devices through a shared subscription."""
    async with connect("bridge") as bridge, connect("cam-001") as one, connect("cam-002") as two:
        await bridge.subscribe("$share/bridge/wfm/v1/device/+/up/event/+", qos=1)
        await one.publish("wfm/v1/device/cam-001/up/event/facial_id", b"{}", qos=1)
        await two.publish("wfm/v1/device/cam-002/up/event/visit", b"{}", qos=1)
        seen = await topics_until(bridge, "wfm/v1/device/cam-002/up/event/visit")
    assert seen == ["wfm/v1/device/cam-001/up/event/facial_id", "wfm/v1/device/cam-002/up/event/visit"]


async def test_the_operator_reads_all_and_writes_nothing(connect: Connect) -> None:
    """The user `operator` reads every topic and publishes on none."""
    async with connect("operator") as operator, connect("bridge") as bridge:
        await operator.subscribe("wfm/v1/#", qos=1)
        for topic in (
            "wfm/v1/device/cam-001/down/command/restart",
            "wfm/v1/device/operator/up/status",
            "wfm/v1/site/lobby/enrollment/head",
        ):
            await operator.publish(topic, b"{}", qos=1)
        await bridge.publish("wfm/v1/site/lobby/enrollment/delta", b"{}", qos=1)
        seen = await topics_until(operator, "wfm/v1/site/lobby/enrollment/delta")
    assert seen == ["wfm/v1/site/lobby/enrollment/delta"]


async def test_the_bridge_can_clear_what_a_decommissioned_device_left(connect: Connect) -> None:
    """An empty retained message by the bridge removes a device's retained status."""
    topic = "wfm/v1/device/cam-001/up/status"
    async with connect("cam-001") as device, connect("bridge") as bridge, connect("operator") as operator:
        await device.publish(topic, b"{}", qos=1, retain=True)
        await bridge.publish(topic, b"", qos=1, retain=True)
        await operator.subscribe("wfm/v1/#", qos=1)
        await bridge.publish("wfm/v1/site/lobby/enrollment/delta", b"{}", qos=1)
        seen = await topics_until(operator, "wfm/v1/site/lobby/enrollment/delta")
    assert seen == ["wfm/v1/site/lobby/enrollment/delta"]


async def test_a_wrong_password_and_an_unknown_user_are_refused(own_mosquitto: Mosquitto) -> None:
    """The broker refuses a connection without a user name and its password."""
    for user, password in [(None, None), ("cam-001", "wrong"), ("cam-999", "wrong")]:
        with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori[sz]ed"):
            async with aiomqtt.Client(
                own_mosquitto.host, own_mosquitto.port, username=user, password=password, identifier="x"
            ):
                pass


async def test_a_device_added_while_the_broker_runs_gets_in(
    own_mosquitto: Mosquitto, connect: Connect
) -> None:
    """`add_device` takes effect without a restart and without disturbing clients."""
    async with connect("bridge") as bridge:
        own_mosquitto.add_device("cam-099", "some password", "attic")
        async with connect("cam-099") as device:
            await device.subscribe("wfm/v1/site/+/enrollment/delta", qos=1)
            for site in ("lobby", "attic"):
                await bridge.publish(f"wfm/v1/site/{site}/enrollment/delta", b"{}", qos=1)
            seen = await topics_until(device, "wfm/v1/site/attic/enrollment/delta")
    assert seen == ["wfm/v1/site/attic/enrollment/delta"]


@pytest.mark.parametrize(("guess", "delivered"), [("another", 10), ("workers", 5)])
async def test_only_a_member_of_the_share_group_can_swallow_events(
    connect: Connect, guess: str, delivered: int
) -> None:
    """A device needs the name of the share group to swallow events.

    Mosquitto 2.0 deals a share also to members that the ACL then denies, so a device must not be able to
    guess the group's name. A member without rights reads nothing, and a swallowed event comes again,
    since no receipt follows.
    """
    event, last = "wfm/v1/device/cam-001/up/event/visit", "wfm/v1/device/cam-001/up/status"
    async with connect("bridge") as bridge, connect("cam-002") as thief, connect("cam-001") as device:
        await bridge.subscribe(last, qos=1)
        await bridge.subscribe("$share/workers/wfm/v1/device/+/up/event/+", qos=1)
        await thief.subscribe(f"$share/{guess}/wfm/v1/device/+/up/event/+", qos=1)
        for _ in range(10):
            await device.publish(event, b"{}", qos=1)
        await device.publish(last, b"{}", qos=1)
        assert (await topics_until(bridge, last)).count(event) == delivered
        end = "wfm/v1/device/cam-002/down/command/restart"
        await thief.subscribe(end, qos=1)
        await bridge.publish(end, b"{}", qos=1)
        assert await topics_until(thief, end) == [end]
