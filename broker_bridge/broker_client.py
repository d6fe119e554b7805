"""Open the MQTT client of the bridge."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .common.settings import MqttSettings, SettingsError

# Processing this many messages blocks the event loop for at most some ten milliseconds.
_MAX_BATCH = 32
_INCOMING_LIMIT = 20_000
_RECEIVE_MAXIMUM = 2000


@asynccontextmanager
async def open_client(
    settings: MqttSettings, client_id: str, tls: ssl.SSLContext | None
) -> AsyncIterator[aiomqtt.Client]:
    """Connect, and disconnect at the end.

    The client's messages come in lists of up to 32.
    """
    password = settings.password
    # Receive Maximum lets the broker send that many QoS 1 messages ahead of our acknowledgements.
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    async with aiomqtt.Client(
        hostname=settings.host,
        port=settings.port,
        username=settings.username,
        password=password.get_secret_value() if password else None,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V5,
        # The broker would keep sending its share to the session of a dead worker.
        clean_start=True,
        keepalive=settings.keepalive_seconds,
        max_queued_incoming_messages=_INCOMING_LIMIT,
        queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", _BatchQueue),
        tls_context=tls,
        properties=properties,
        # Nagle's algorithm would delay each small message by up to 40 ms.
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    ) as client:
        # Many receipts or deltas at once are ordinary: no warning for each.
        client.pending_calls_threshold = _INCOMING_LIMIT
        yield client


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """Return the TLS context of `settings`, None without TLS. Raises SettingsError."""
    if settings.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file and settings.key_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        files = ", ".join(str(f) for f in (settings.ca_file, settings.cert_file, settings.key_file) if f)
        raise SettingsError([f"mqtt: the certificates cannot be read ({files}): {error.strerror}"]) from error
    return context


class _BatchQueue(asyncio.Queue[Any]):
    """Returns waiting messages as lists of up to 32.

    The client creates a task for each `get`, which takes a tenth of a millisecond.
    """

    async def get(self) -> list[Any]:
        batch = [await super().get()]
        while len(batch) < _MAX_BATCH and not self.empty():
            batch.append(self.get_nowait())
        return batch
