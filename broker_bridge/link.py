"""Connect the bridge to the broker: subscribe, decode, dispatch and publish.

A PUBACK settles nothing here: a device sends an event again until it has a receipt. So the link may drop
messages beyond its limits, as long as it counts them.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from mqtt5 import PublishPacket

from .broker_client import open_connection, tls_context
from .broker_connection import BrokerConnection, BrokerFailedError
from .common.retry import Backoff
from .common.settings import MqttSettings
from .common.tasks import cancel_and_wait
from .contract.channels import Channel, Decoded, decode, find
from .contract.errors import ContractError
from .contract.wire import MAX_DOWN_BYTES, WireModel

_log = logging.getLogger(__name__)

_BACKOFF = Backoff(0.2, 10.0)
_STABLE_SECONDS = 10.0


class Handler(Protocol):
    """Handles a message. Called on the event loop, it must not block.

    It calls `settle` once the message must not come again: at once, or when it is durable. Messages are
    acknowledged in their order, so that one that is not settled holds up all after it.
    """

    def __call__(self, decoded: Decoded[Any], payload: bytes, settle: Callable[[], None]) -> None: ...


class RejectionCallback(Protocol):
    """Handles a payload that is not a message of the contract. It must not block."""

    def __call__(self, topic: str, payload: bytes, error: ContractError) -> None: ...


class Publish(Protocol):
    """The signature of `BrokerLink.publish`, for components that only publish."""

    async def __call__(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool: ...


class BrokerLink:
    """One connection to the broker, opened again whenever it breaks.

    The link always follows the channels in `subscriptions`, shared ones under `share_group`; `follow` and
    `unfollow` change the set while it runs. Raises SettingsError if the certificates cannot be read.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        client_id: str,
        subscriptions: Sequence[Channel[Any]],
        handle: Handler,
        reject: RejectionCallback,
        share_group: str,
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._following: dict[Channel[Any], None] = dict.fromkeys(subscriptions)
        self._following_changed = asyncio.Event()
        self._subscribed: dict[Channel[Any], None] = {}
        self._handle = handle
        self._reject = reject
        self._tls = tls_context(settings)
        self._share = f"$share/{share_group}/"
        self._client: BrokerConnection | None = None
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self.counters: Counter[str] = Counter()

    def renew_certificates(self) -> None:
        """Read the certificates again, for the next connection; raises SettingsError."""
        self._tls = tls_context(self._settings)

    @property
    def connected(self) -> bool:
        return self._client is not None

    def is_subscribed(self, channel: Channel[Any]) -> bool:
        """Return whether the broker has confirmed the subscription of this channel."""
        return channel in self._subscribed

    def on_connect(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` after every connect, once subscribed.

        A restarted broker may have lost its retained messages.
        """
        self._on_connect.append(action)

    def follow(self, channels: Sequence[Channel[Any]]) -> None:
        """Follow further channels, now and after every connect."""
        self._following |= dict.fromkeys(channels)
        self._following_changed.set()

    def unfollow(self, channels: Sequence[Channel[Any]]) -> None:
        """Stop following channels."""
        self._following = {channel: None for channel in self._following if channel not in channels}
        self._following_changed.set()

    async def publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
        """Publish with the channel's QoS and retain flag; return False if that failed.

        No message is queued: its receiver repeats a request without an answer. A message above the broker's
        limit is not sent, since the broker would close the connection.
        """
        payload = message.to_json()
        if len(payload) > MAX_DOWN_BYTES:
            self.counters["publish_too_large"] += 1
            _log.error("link message too large channel=%s ids=%r bytes=%d", channel.name, ids, len(payload))
            return False
        return await self._send(channel, payload, ids)

    async def clear_retained(self, channel: Channel[Any], **ids: str) -> bool:
        """Clear the retained message of a topic; return False if that failed."""
        return await self._send(channel, b"", ids)

    async def _send(self, channel: Channel[Any], payload: bytes, ids: Mapping[str, str]) -> bool:
        client = self._client
        if client is None:
            self.counters["publish_offline"] += 1
            return False
        try:
            await client.publish(channel.topic(**ids), payload, channel.qos, retain=channel.retain)
        except BrokerFailedError as error:
            self.counters["publish_failed"] += 1
            _log.warning("link cannot publish channel=%s reason=%r", channel.name, str(error))
            return False
        self.counters["published"] += 1
        return True

    async def stay_connected(self) -> None:
        """Connect, and reconnect with backoff, until cancelled."""
        attempt = 0
        jitter = random.Random()  # noqa: S311
        while True:
            connected_at = None
            try:
                async with open_connection(
                    self._settings, self._client_id, self._tls, self._receive_all
                ) as client:
                    connected_at = asyncio.get_running_loop().time()
                    await self._serve(client)
            except BrokerFailedError as error:
                self.counters["disconnects"] += 1
                self._log_disconnect(error)
            if (
                connected_at is not None
                and asyncio.get_running_loop().time() - connected_at > _STABLE_SECONDS
            ):
                attempt = 0
            attempt += 1
            await asyncio.sleep(_BACKOFF.delay(attempt, jitter))

    async def _serve(self, client: BrokerConnection) -> None:
        self._subscribed = await self._subscribe(client, {})
        self._client = client
        self.counters["connects"] += 1
        _log.info("link connected to the broker host=%s port=%d", self._settings.host, self._settings.port)
        working = [
            asyncio.create_task(self._run_connect_actions()),
            asyncio.create_task(client.wait_closed()),
            asyncio.create_task(self._keep_subscribed(client)),
        ]
        try:
            # Only the connect actions end by themselves; the others end with an error or the connection.
            await asyncio.gather(*working)
        finally:
            self._client = None
            self._subscribed = {}
            await cancel_and_wait(working)

    def _receive_all(self, client: BrokerConnection, messages: Sequence[PublishPacket]) -> None:
        for message in messages:
            self._receive(client, message)

    async def _keep_subscribed(self, client: BrokerConnection) -> None:
        """Apply changes of the followed channels to the subscriptions, until cancelled."""
        while True:
            self._subscribed = await self._subscribe(client, self._subscribed)
            await self._following_changed.wait()

    async def _run_connect_actions(self) -> None:
        for action in self._on_connect:
            await action()

    async def _subscribe(
        self, client: BrokerConnection, subscribed: dict[Channel[Any], None]
    ) -> dict[Channel[Any], None]:
        """Change the subscriptions from `subscribed` to the followed channels."""
        self._following_changed.clear()
        wanted = dict(self._following)
        for channel in wanted:
            if channel in subscribed:
                continue
            # On a row without retain, "retain as published" shows a message that was retained by mistake. On
            # a row with retain its absence shows whether the broker kept the message or passes it on.
            if not await client.subscribe(
                self._filter(channel), channel.qos, retain_as_published=not channel.retain
            ):
                _log.error("link subscription denied; check the broker's ACL topic=%s", channel.pattern)
        for channel in subscribed:
            if channel not in wanted:
                await client.unsubscribe(self._filter(channel))
        return wanted

    def _receive(self, client: BrokerConnection, message: PublishPacket) -> None:
        topic, payload = message.topic, message.payload
        self.counters["received"] += 1
        settle = partial(client.acknowledge, message)
        if not payload and _clears_retained(message):
            settle()
            return
        try:
            decoded = _decode(topic, payload, retained=message.retain)
        except ContractError as error:
            self.counters[f"refused_{error.code}"] += 1
            self._reject(topic, payload, error)
            settle()
            return
        self._handle(decoded, payload, settle)

    def _filter(self, channel: Channel[Any]) -> str:
        return f"{self._share}{channel.filter}" if channel.shared else channel.filter

    def _log_disconnect(self, error: BrokerFailedError) -> None:
        where = f"{self._settings.host}:{self._settings.port}"
        _log.warning("link has no connection; trying again broker=%s reason=%r", where, str(error))


def _clears_retained(message: PublishPacket) -> bool:
    """Return whether an empty message clears a retained one."""
    if message.retain:
        return True
    try:
        return find(message.topic)[0].retain
    except ContractError:
        return False


def _decode(topic: str, payload: bytes, *, retained: bool) -> Decoded[Any]:
    decoded = decode(topic, payload)
    if retained and not decoded.channel.retain:
        code = f"{decoded.channel.name.replace('_', '-')}-retained"
        raise ContractError(
            code, "a retained message arrives again at every connect; publish it without retain"
        )
    return replace(decoded, stored=True) if retained else decoded
