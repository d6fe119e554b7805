"""Test that every program words a failure of the broker by the one table."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import mqtt5
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from broker_bridge.broker_client import open_connection
from broker_bridge.broker_connection import BrokerFailedError
from broker_bridge.common.broker_failures import of_reason
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.messages import DeviceInfo
from device.doctor.broker_probe import BrokerError, probe_broker
from device.mqtt.config import IoTClientConfig
from device.mqtt.connection import ConnectionEvent
from device.mqtt.paho_connection import PahoConnection
from fleet.tracks.cameras import SimulatedCameras, _State

_NAMES = ReasonCode(PacketTypes.DISCONNECT).names
CODES = [code for code in _NAMES if code >= 0x80]
_ENDS = mqtt5.DisconnectReasonCode
ENDS = {int(getattr(_ENDS, name)) for name in dir(_ENDS) if name.isupper()}
FROM_BROKER, MADE_UP = mqtt.DisconnectFlags(True), mqtt.DisconnectFlags(False)


class Reason:
    """A reason code in any packet, with the library's words."""

    is_failure = True

    def __init__(self, value: int) -> None:
        self.value = value

    def __str__(self) -> str:
        return "Unspecified error" if self.value == 0x80 else next(iter(_NAMES[self.value]))


def device_sentences(code: int) -> list[str]:
    events: list[ConnectionEvent] = []
    connection = PahoConnection(IoTClientConfig("cam-001"), "1", b"", events.append)
    reason: ReasonCode = Reason(code)  # type: ignore[assignment]
    connection._on_connect(None, None, None, reason, None)
    connection._on_disconnect(None, None, FROM_BROKER, reason, None)
    connection._on_publish(None, None, 1, reason, None)
    connection._on_subscribe(None, None, 1, [reason], None)
    assert [event.kind for event in events] == ["refused", "lost", "denied", "denied"]
    return [event.reason for event in events]


def simulator_sentences(code: int) -> list[str]:
    info = DeviceInfo(site_id="lobby", software="1", spaces={})
    cameras = SimulatedCameras(MqttSettings(), ["cam-001"], info)
    reason: ReasonCode = Reason(code)  # type: ignore[assignment]
    cameras._on_connect(0, None, None, None, reason, None)
    cameras._on_disconnect(0, None, None, FROM_BROKER, reason, None)
    cameras._on_subscribe(0, None, None, 1, [reason], None)
    states = [cameras._reports.get_nowait() for _ in range(3)]
    return [cameras._explain(state) for state in states if isinstance(state, _State)]


def bridge_sentences(code: int) -> list[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        if code in ENDS:
            writer.write(struct.pack("5B", 0x20, 3, 0, 0, 0) + struct.pack("4B", 0xE0, 2, code, 0))
        else:
            writer.write(struct.pack("5B", 0x20, 3, 0, code, 0))
        await reader.read()
        writer.close()

    async def connect() -> str:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            settings = MqttSettings(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
            with pytest.raises(BrokerFailedError) as caught:
                async with open_connection(settings, "bridge", None, lambda *_: None) as connection:
                    await connection.wait_closed()
            return str(caught.value)

    return [asyncio.run(connect())]


def doctor_sentences(code: int) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(struct.pack("5B", 0x20, 3, 0, code, 0))

        thread = threading.Thread(target=answer)
        thread.start()
        settings = MqttSettings(host="127.0.0.1", port=listener.getsockname()[1])
        with pytest.raises(BrokerError) as caught:
            probe_broker(settings, "cam-001", login=True, seconds=5)
        thread.join()
    return [f"{caught.value}: {caught.value.advice}"]


@pytest.mark.parametrize(
    "sentences", [device_sentences, simulator_sentences, bridge_sentences, doctor_sentences]
)
def test_no_program_passes_the_librarys_words_on(sentences: Callable[[int], list[str]]) -> None:
    """Each reason code is a sentence of the table wherever it comes from."""
    for code in CODES:
        expected = of_reason(code)
        for sentence in sentences(code):
            assert expected.what in sentence
            assert expected.advice in sentence
            assert expected.code in sentence
            assert str(Reason(code)) not in sentence


def test_an_end_that_the_library_gives_a_reason_has_none() -> None:
    """Without a packet of the broker its reason is made up."""
    events: list[ConnectionEvent] = []
    connection = PahoConnection(IoTClientConfig("cam-001"), "1", b"", events.append)
    reason: ReasonCode = Reason(0x80)  # type: ignore[assignment]
    connection._on_disconnect(None, None, MADE_UP, reason, None)
    assert events[0].code is None
    assert "broker-connection-ended" in events[0].reason


def test_no_source_writes_a_reason_code_as_text() -> None:
    """A new place has to use the table."""
    packages = ("device", "broker_bridge", "dashboard_api", "fleet", "deploy")
    words = ("str(reason)", "error_string(", "connack_string(", "getName(")
    found = [
        file.name
        for package in packages
        for file in Path(package).rglob("*.py")
        if any(word in file.read_text("utf-8") for word in words)
    ]
    assert not found
