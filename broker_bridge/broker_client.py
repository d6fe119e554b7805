"""Open the bridge's connection to the broker."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .broker_connection import BrokerConnection, BrokerFailedError, Receive
from .common.broker_failures import of_error
from .common.settings import MqttSettings, SettingsError

_CONNECT_SECONDS = 10.0


@asynccontextmanager
async def open_connection(
    settings: MqttSettings, client_id: str, tls: ssl.SSLContext | None, receive: Receive
) -> AsyncIterator[BrokerConnection]:
    """Connect, and disconnect at the end. Raises BrokerFailedError.

    `receive` gets the messages of each read; each wants `acknowledge` once it is settled. It must not block.
    """
    try:
        connection = await asyncio.wait_for(_connect(settings, client_id, tls, receive), _CONNECT_SECONDS)
    except BrokerFailedError:
        raise
    except (OSError, UnicodeError, asyncio.TimeoutError) as error:
        raise BrokerFailedError(of_error(error, tls=tls is not None)) from error
    keeping_alive = asyncio.create_task(connection.keep_alive())
    try:
        yield connection
    finally:
        keeping_alive.cancel()
        connection.disconnect()


async def _connect(
    settings: MqttSettings, client_id: str, tls: ssl.SSLContext | None, receive: Receive
) -> BrokerConnection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: BrokerConnection(receive), settings.host, settings.port, ssl=tls
    )
    try:
        await connection.log_in(settings, client_id)
    except BaseException:
        connection.abort()
        raise
    return connection


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
