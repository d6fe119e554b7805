"""The broker connection of the bridge: subscribe, decode by the table, hand over, publish, reconnect.

A broker's PUBACK settles nothing here: what a handler does not get, or loses, its device sends again because
it has no receipt. So the link may drop what it cannot take, as long as it counts it.
"""

import asyncio
import logging
import random
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from .common.settings import MqttSettings, SettingsError
from .contract.channels import Channel, Decoded, decode
from .contract.errors import ContractError
from .contract.wire import MAX_DOWN_BYTES, WireModel
from .tasks import cancel_and_wait

_log = logging.getLogger(__name__)

# So many that the event loop is kept for some ten milliseconds at most.
_TAKEN_AT_ONCE = 32
_INCOMING_LIMIT = 20_000
_RETRY_SECONDS = (0.2, 10.0)
_STABLE_SECONDS = 10.0
_RECEIVE_MAXIMUM = 2000
# MQTT 5 reason codes of CONNACK that mean: the user name, password or certificate is not accepted.
_REFUSED = {0x86, 0x87, 4, 5}


class Handler(Protocol):
    """What becomes of a message. Both are called on the event loop and must not wait."""

    def __call__(self, decoded: Decoded[Any], payload: bytes) -> None: ...


class RejectionCallback(Protocol):
    """What becomes of bytes that are not a message of the contract."""

    def __call__(self, topic: str, payload: bytes, error: ContractError) -> None: ...


class Publish(Protocol):
    """`BrokerLink.publish`, as those who only publish see it."""

    async def __call__(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool: ...


class BrokerLink:
    """One connection to the broker, made again whenever it breaks.

    `subscriptions` are the rows it always follows, those that workers share under `share_group`; `follow` and
    `unfollow` add and drop rows while running. Raises SettingsError if the certificates cannot be read.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        client_id: str,
        subscriptions: Sequence[Channel[Any]],
        handle: Handler,
        refuse: RejectionCallback,
        share_group: str,
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._following: dict[Channel[Any], None] = dict.fromkeys(subscriptions)
        self._following_changed = asyncio.Event()
        self._subscribed: dict[Channel[Any], None] = {}
        self._handle = handle
        self._refuse = refuse
        self._tls = _tls_context(settings)
        self._share = f"$share/{share_group}/"
        self._client: aiomqtt.Client | None = None
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self.counters: Counter[str] = Counter()

    @property
    def connected(self) -> bool:
        return self._client is not None

    def is_subscribed(self, channel: Channel[Any]) -> bool:
        """Whether the broker is told to send this row."""
        return channel in self._subscribed

    def on_connect(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` after every connect, once subscribed: a broker may have lost all it retained."""
        self._on_connect.append(action)

    def follow(self, channels: Sequence[Channel[Any]]) -> None:
        """Follow further rows, now and after every connect."""
        self._following |= dict.fromkeys(channels)
        self._following_changed.set()

    def unfollow(self, channels: Sequence[Channel[Any]]) -> None:
        """Stop following rows."""
        self._following = {channel: None for channel in self._following if channel not in channels}
        self._following_changed.set()

    async def publish(self, channel: Channel[Any], message: WireModel, **ids: str) -> bool:
        """Publish on the row's topic with its QoS and retain flag; False if the broker did not take it.

        Nothing is queued: whoever misses it asks or sends again. What is larger than a broker takes is not
        sent: it would cost everybody the connection.
        """
        payload = message.to_json()
        if len(payload) > MAX_DOWN_BYTES:
            self.counters["publish_too_large"] += 1
            _log.error("%s for %s has %d bytes and is not sent", channel.name, ids, len(payload))
            return False
        client = self._client
        if client is None:
            self.counters["publish_offline"] += 1
            return False
        try:
            await client.publish(channel.topic(**ids), payload, channel.qos, channel.retain)
        except aiomqtt.MqttError as error:
            self.counters["publish_failed"] += 1
            _log.warning("could not publish %s: %s", channel.name, error)
            return False
        self.counters["published"] += 1
        return True

    async def run(self) -> None:
        """Stay connected until cancelled."""
        attempt = 0
        while True:
            connected_at = None
            try:
                async with self._connection() as client:
                    connected_at = asyncio.get_running_loop().time()
                    await self._serve(client)
            except aiomqtt.MqttError as error:
                self.counters["disconnects"] += 1
                _log.warning("%s", self._explain(error))
            if (
                connected_at is not None
                and asyncio.get_running_loop().time() - connected_at > _STABLE_SECONDS
            ):
                attempt = 0
            shortest, longest = _RETRY_SECONDS
            # Full jitter: a fleet of workers must not knock on a broker that is coming up all at once.
            await asyncio.sleep(random.uniform(shortest, min(longest, shortest * 2 ** (attempt + 1))))  # noqa: S311
            attempt = min(attempt + 1, 10)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiomqtt.Client]:
        password = self._settings.password
        # Receive Maximum lets the broker send that many QoS 1 messages ahead of our acknowledgements.
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = _RECEIVE_MAXIMUM
        async with aiomqtt.Client(
            hostname=self._settings.host,
            port=self._settings.port,
            username=self._settings.username,
            password=password.get_secret_value() if password else None,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            # A dead worker that kept its session would go on receiving its share.
            clean_start=True,
            keepalive=self._settings.keepalive_seconds,
            max_queued_incoming_messages=_INCOMING_LIMIT,
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", _Arrivals),
            tls_context=self._tls,
            properties=properties,
            # Small messages both ways: Nagle's algorithm would hold each for up to 40 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        ) as client:
            # Many receipts or deltas at once are the ordinary case: no warning for each.
            client.pending_calls_threshold = _INCOMING_LIMIT
            yield client

    async def _serve(self, client: aiomqtt.Client) -> None:
        self._subscribed = await self._subscribe(client, {})
        self._client = client
        self.counters["connects"] += 1
        _log.info("connected to the broker at %s:%d", self._settings.host, self._settings.port)
        working = [
            asyncio.create_task(self._greet()),
            asyncio.create_task(self._receive_all(client)),
            asyncio.create_task(self._keep_subscribed(client)),
        ]
        try:
            # None of them ends but by a mistake or with the connection; the greeting ends well.
            await asyncio.gather(*working)
        finally:
            self._client = None
            self._subscribed = {}
            await cancel_and_wait(working)

    async def _receive_all(self, client: aiomqtt.Client) -> None:
        async for some in client.messages:
            for message in cast("list[aiomqtt.Message]", some):
                self._receive(message)

    async def _keep_subscribed(self, client: aiomqtt.Client) -> None:
        """Follow what is to be followed; a broker that does not answer raises, and is connected to anew."""
        while True:
            self._subscribed = await self._subscribe(client, self._subscribed)
            await self._following_changed.wait()

    async def _greet(self) -> None:
        for action in self._on_connect:
            await action()

    async def _subscribe(
        self, client: aiomqtt.Client, subscribed: dict[Channel[Any], None]
    ) -> dict[Channel[Any], None]:
        """Make the broker's subscriptions those that are wanted now, which are returned."""
        self._following_changed.clear()
        wanted = dict(self._following)
        for channel in wanted:
            if channel in subscribed:
                continue
            # With "retain as published" an event that somebody retained can be told from a live one.
            options = SubscribeOptions(qos=channel.qos, retainAsPublished=True)
            granted = await client.subscribe(self._filter(channel), options=options)
            if any(code.is_failure for code in granted if not isinstance(code, int)):
                _log.error("the broker does not let the bridge read %s: check its ACL", channel.pattern)
        for channel in subscribed:
            if channel not in wanted:
                await client.unsubscribe(self._filter(channel))
        return wanted

    def _receive(self, message: aiomqtt.Message) -> None:
        topic, payload = str(message.topic), message.payload
        self.counters["received"] += 1
        if not isinstance(payload, bytes) or (message.retain and not payload):
            return
        try:
            decoded = _read(topic, payload, retained=message.retain)
        except ContractError as error:
            self.counters[f"refused_{error.code}"] += 1
            self._refuse(topic, payload, error)
            return
        self._handle(decoded, payload)

    def _filter(self, channel: Channel[Any]) -> str:
        return f"{self._share}{channel.filter}" if channel.shared else channel.filter

    def _explain(self, error: aiomqtt.MqttError) -> str:
        where = f"{self._settings.host}:{self._settings.port}"
        code = getattr(error, "rc", None)
        if getattr(code, "value", code) in _REFUSED:
            return (
                f"the broker at {where} refused the bridge: check WFM_MQTT__USERNAME and WFM_MQTT__PASSWORD "
                "or the client certificate"
            )
        return f"no connection to the broker at {where}: {error}"


def _read(topic: str, payload: bytes, *, retained: bool) -> Decoded[Any]:
    decoded = decode(topic, payload)
    if retained and not decoded.channel.retain:
        code = f"{decoded.channel.name.replace('_', '-')}-retained"
        raise ContractError(code, "retained, it would come again at every connect: publish it without retain")
    return decoded


def _tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
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


class _Arrivals(asyncio.Queue[Any]):
    """Gives out all that has come, up to a handful, as one list.

    For each message that it waits for, the client makes a task and a wait: a tenth of a millisecond.
    """

    async def get(self) -> list[Any]:
        some = [await super().get()]
        while len(some) < _TAKEN_AT_ONCE and not self.empty():
            some.append(self.get_nowait())
        return some
