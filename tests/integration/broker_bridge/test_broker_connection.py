"""The bridge's connection speaks MQTT 5 with real and scripted brokers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import mqtt5
import pytest
from mqtt5 import PublishPacket

from broker_bridge.broker_client import open_connection
from broker_bridge.broker_connection import BrokerConnection, BrokerFailedError
from broker_bridge.common.settings import MqttSettings
from deploy.local.stack import Mosquitto
from tests.waiting import until


async def eventually(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds)


Answer = Callable[[mqtt5.Packet], Sequence[bytes]]
LOGGED_IN = mqtt5.ConnAckPacket().write()


class Received:
    """Messages of a connection, acknowledged at once or not at all."""

    def __init__(self, *, acknowledge: bool = True) -> None:
        self.acknowledge = acknowledge
        self.reads: list[list[PublishPacket]] = []

    def __call__(self, connection: BrokerConnection, messages: list[PublishPacket]) -> None:
        self.reads.append(messages)
        if self.acknowledge:
            for message in messages:
                connection.acknowledge(message)

    @property
    def messages(self) -> list[PublishPacket]:
        return [message for read in self.reads for message in read]


def login(broker: Mosquitto, user: str = "admin") -> MqttSettings:
    return MqttSettings(host=broker.host, port=broker.port, username=user, password=broker.users[user])


@asynccontextmanager
async def scripted(
    answer: Answer, received: Received | None = None, **settings: int
) -> AsyncIterator[tuple[BrokerConnection, list[mqtt5.Packet]]]:
    """Connect to a broker that answers by `answer`; yields what it got, too."""
    packets: list[mqtt5.Packet] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unread = b""
        while data := await reader.read(65536):
            unread += data
            while unread:
                try:
                    packet, size = mqtt5.read(memoryview(unread))
                except IndexError:
                    break
                unread = unread[size:]
                packets.append(packet)
                for piece in answer(packet):
                    writer.write(piece)
                    await writer.drain()
                    # Each piece is a read of its own.
                    await asyncio.sleep(0.005)
        writer.close()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        wanted = MqttSettings(host="127.0.0.1", port=port, **settings)
        async with open_connection(wanted, "bridge-1", None, received or Received()) as connection:
            yield connection, packets
        await ended.wait()


def on_login(*pieces: bytes) -> Answer:
    return lambda packet: [LOGGED_IN, *pieces] if isinstance(packet, mqtt5.ConnectPacket) else []


def message(packet_id: int, payload: bytes = b"{}") -> bytes:
    return PublishPacket("wfm/v1/test", payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id).write()


@pytest.mark.parametrize("size", [0, 1, 420, 70_000, 900_000])
@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_of_any_size_pass_a_real_broker(mosquitto: Mosquitto, qos: int, size: int) -> None:
    received, topic = Received(), f"wfm/v1/connection/{qos}/{size}"
    async with (
        open_connection(login(mosquitto), f"reader-{qos}-{size}", None, received) as reader,
        open_connection(login(mosquitto), f"writer-{qos}-{size}", None, Received()) as writer,
    ):
        assert await reader.subscribe(topic, 1, retain_as_published=True)
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        await writer.publish(topic, payload, qos, retain=False)
        await eventually(lambda: len(received.messages) == 1)
    got = received.messages[0]
    assert (got.topic, got.payload, got.retain, int(got.qos)) == (topic, payload, False, qos)


async def test_a_thousand_publishes_at_once_arrive_in_their_order(mosquitto: Mosquitto) -> None:
    """They are more than the broker takes unacknowledged, and few writes."""
    received = Received()
    async with open_connection(login(mosquitto), "orderly", None, received) as connection:
        await connection.subscribe("wfm/v1/connection/order", 1, retain_as_published=True)
        await asyncio.gather(
            *(connection.publish("wfm/v1/connection/order", b"%d" % n, 1, retain=False) for n in range(1000))
        )
        await eventually(lambda: len(received.messages) == 1000)
        await connection.unsubscribe("wfm/v1/connection/order")
        await connection.publish("wfm/v1/connection/order", b"unheard", 1, retain=False)
    assert [int(one.payload) for one in received.messages] == list(range(1000))
    assert len(received.reads) < 500


async def test_a_message_that_is_not_acknowledged_comes_no_second_time(own_mosquitto: Mosquitto) -> None:
    """Messages beyond the first unsettled one wait for it, and then all are settled."""
    received = Received(acknowledge=False)
    async with open_connection(login(own_mosquitto), "slow", None, received) as connection:
        await connection.subscribe("wfm/v1/connection/slow", 1, retain_as_published=True)
        for number in range(3):
            await connection.publish("wfm/v1/connection/slow", b"%d" % number, 1, retain=False)
        await eventually(lambda: len(received.messages) == 3)
        assert [bytes(one.payload) for one in received.messages] == [b"0", b"1", b"2"]


async def test_acknowledgements_leave_in_the_order_of_the_messages() -> None:
    """Section 4.6: the third, settled first, waits for the first."""
    received = Received(acknowledge=False)
    async with scripted(on_login(message(7) + message(9) + message(8)), received) as (connection, packets):
        await eventually(lambda: len(received.messages) == 3)
        first, second, third = received.messages
        connection.acknowledge(third)
        connection.acknowledge(second)
        await connection.publish("wfm/v1/test", b"", 0, retain=False)
        await eventually(lambda: any(isinstance(packet, PublishPacket) for packet in packets))
        assert not any(isinstance(packet, mqtt5.PubAckPacket) for packet in packets)
        connection.acknowledge(first)
        await eventually(lambda: sum(isinstance(packet, mqtt5.PubAckPacket) for packet in packets) == 3)
    acknowledged = [packet.packet_id for packet in packets if isinstance(packet, mqtt5.PubAckPacket)]
    assert acknowledged == [7, 9, 8]
    assert isinstance(packets[-1], mqtt5.DisconnectPacket)


@pytest.mark.parametrize("cut", [1, 2, 5, 11, 200])
async def test_a_packet_in_pieces_is_one_message(cut: int) -> None:
    received, whole = Received(), message(1, b"x" * 300) + message(2)
    async with scripted(on_login(whole[:cut], whole[cut:]), received):
        await eventually(lambda: len(received.messages) == 2)
    assert [len(one.payload) for one in received.messages] == [300, 2]


async def test_a_broker_that_takes_one_message_at_a_time_gets_one() -> None:
    """Its Receive Maximum is kept."""
    waiting: list[mqtt5.Packet] = []

    def answer(packet: mqtt5.Packet) -> list[bytes]:
        if isinstance(packet, mqtt5.ConnectPacket):
            return [mqtt5.ConnAckPacket(receive_max=1).write()]
        if isinstance(packet, PublishPacket):
            waiting.append(packet)
            assert len(waiting) == 1
            waiting.clear()
            return [mqtt5.PubAckPacket(packet.packet_id or 0).write()]
        return []

    async with scripted(answer) as (connection, packets):
        await asyncio.gather(*(connection.publish("wfm/v1/test", b"", 1, retain=False) for _ in range(5)))
    assert sum(isinstance(packet, PublishPacket) for packet in packets) == 5


def refuse(packet: mqtt5.Packet) -> list[bytes]:
    if isinstance(packet, mqtt5.ConnectPacket):
        return [LOGGED_IN]
    if isinstance(packet, PublishPacket):
        code = mqtt5.PubAckReasonCode.NOT_AUTHORIZED
        return [mqtt5.PubAckPacket(packet.packet_id or 0, reason_code=code).write()]
    if isinstance(packet, mqtt5.SubscribePacket):
        return [mqtt5.SubAckPacket(packet.packet_id, [mqtt5.SubAckReasonCode.NOT_AUTHORIZED]).write()]
    return []


async def test_what_the_broker_acknowledges_and_refuses_is_told() -> None:
    """The connection goes on."""
    async with scripted(refuse) as (connection, _):
        assert not await connection.subscribe("wfm/v1/#", 1, retain_as_published=True)
        for _ in range(2):
            with pytest.raises(BrokerFailedError, match="broker-denied"):
                await connection.publish("wfm/v1/test", b"", 1, retain=False)


ENDS: dict[str, tuple[Answer, str]] = {
    "wrong password": (
        lambda _: [
            mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD).write()
        ],
        "broker-login",
    ),
    "an answer of MQTT 3.1.1": (lambda _: [b"\x20\x02\x00\x01"], "broker-version"),
    "a login refused by MQTT 3.1.1": (lambda _: [b"\x20\x02\x00\x05"], "broker-login"),
    "no MQTT at all": (lambda _: [b"\r\nlogin: please\r\n"], "broker-malformed"),
    "a packet without meaning": (on_login(b"\x00\x00"), "broker-malformed"),
    "a topic that is no UTF-8": (on_login(b"\x30\x05\x00\x02\xff\xfe\x00"), "broker-malformed"),
    "taken over": (
        on_login(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write()),
        "duplicate-id",
    ),
}


@pytest.mark.filterwarnings("ignore:Exception ignored in")  # The codec's panic at a text.
@pytest.mark.parametrize("end", ENDS)
async def test_each_end_has_a_reason(end: str) -> None:
    answer, code = ENDS[end]
    with pytest.raises(BrokerFailedError) as caught:
        async with scripted(answer) as (connection, _):
            await connection.wait_closed()
    assert caught.value.failure.code == code


async def test_a_lost_connection_ends_all_that_wait(own_mosquitto: Mosquitto) -> None:
    async with open_connection(login(own_mosquitto), "loser", None, Received()) as connection:
        own_mosquitto.program.process.send_signal(signal.SIGSTOP)
        waiting = [
            asyncio.ensure_future(connection.publish("wfm/v1/test", b"", 1, retain=False)) for _ in range(3)
        ]
        await asyncio.sleep(0)
        own_mosquitto.kill()
        ended = await asyncio.gather(*waiting, connection.wait_closed(), return_exceptions=True)
        assert [type(end) for end in ended] == [BrokerFailedError] * 4
        with pytest.raises(BrokerFailedError):
            await connection.publish("wfm/v1/test", b"", 1, retain=False)


async def test_an_id_in_use_is_not_given_twice() -> None:
    """After 65,535 publishes the ids begin again, past one that still waits."""
    taken: list[int] = []

    def answer(packet: mqtt5.Packet) -> list[bytes]:
        if isinstance(packet, PublishPacket):
            taken.append(packet.packet_id or 0)
            # The first one is never acknowledged.
            return [] if len(taken) == 1 else [mqtt5.PubAckPacket(packet.packet_id or 0).write()]
        return [LOGGED_IN] if isinstance(packet, mqtt5.ConnectPacket) else []

    async with scripted(answer) as (connection, _):
        held = asyncio.ensure_future(connection.publish("wfm/v1/test", b"", 1, retain=False))
        await eventually(lambda: len(taken) == 1)
        connection._packet_id = 0xFFFF
        await connection.publish("wfm/v1/test", b"", 1, retain=False)
        held.cancel()
    assert taken == [1, 2]


async def test_a_silent_broker_is_pinged_and_then_given_up() -> None:
    """The connection ends within one and a half keep-alives."""
    async with scripted(on_login(), keepalive_seconds=5) as (connection, packets):
        connection._keepalive = 0.2
        keeping = asyncio.create_task(connection.keep_alive())
        with pytest.raises(BrokerFailedError, match="broker-timeout"):
            await asyncio.wait_for(connection.wait_closed(), 5)
        await keeping
    assert any(isinstance(packet, mqtt5.PingReqPacket) for packet in packets)
