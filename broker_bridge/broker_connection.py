"""Speak MQTT 5 with the broker: one connection as an asyncio protocol.

The codec `mqtt5` decodes and encodes packets; what is here moves them in batches. All messages of one read
come in one list, all acknowledgements and publishes of one turn of the event loop leave in one write.

Source: OASIS MQTT 5.0, sections 3.1, 3.3.4, 4.6 and 4.9.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import mqtt5
from mqtt5 import PublishPacket, QoS

from .common.broker_failures import BrokerFailure, of_error, of_reason
from .common.settings import MqttSettings

RECEIVE_MAXIMUM = 5_000
"""How many messages the broker may send ahead of our acknowledgements."""
_QOS = (QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE)
_LAST_PACKET_ID = 0xFFFF
_FIRST_REFUSAL = 0x80
# The first byte of a CONNACK, and how many bytes it has at least: the last of these is the reason.
_CONNACK, _CONNACK_BYTES = 0x20, 4
_UNREADABLE = BrokerFailure(
    "broker-malformed", "the broker sent a packet that is none of MQTT 5", "use one that speaks MQTT 5"
)
# Past this many bytes in our buffer publishers wait.
_WRITE_BUFFER = 1 << 20

Receive = Callable[["BrokerConnection", list[PublishPacket]], None]


class BrokerFailedError(ConnectionError):
    """The broker refused something, or the connection ended.

    `failure` says why, and what to do.
    """

    def __init__(self, failure: BrokerFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class BrokerConnection(asyncio.Protocol):
    """One connection. Everything happens on the event loop that opened it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._outgoing: list[bytes] = []
        self._answers: dict[tuple[type, int], asyncio.Future[Any]] = {}
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._packet_id = 0
        self._allowance = asyncio.Semaphore(0)
        self._writable = asyncio.Event()
        self._writable.set()
        # Messages in the order of their arrival, which is that of their acknowledgements (section 4.6).
        self._unsettled: deque[int] = deque()
        self._settled: set[int] = set()
        self._keepalive = 0.0
        self._sent_at = self._heard_at = self._loop.time()

    # What the owner calls

    async def log_in(self, settings: MqttSettings, client_id: str) -> None:
        """Send CONNECT and wait for the answer. Raises BrokerFailedError."""
        password = settings.password
        asked = mqtt5.ConnectPacket(
            client_id,
            username=settings.username,
            password=password.get_secret_value().encode() if password else None,
            # The broker would keep sending its share to the session of a dead worker.
            clean_start=True,
            keep_alive=settings.keepalive_seconds,
            receive_max=RECEIVE_MAXIMUM,
        )
        accepted: mqtt5.ConnAckPacket = await self._ask(asked, mqtt5.ConnAckPacket, 0)
        _check(accepted)
        self._keepalive = float(accepted.server_keep_alive or settings.keepalive_seconds)
        for _ in range(accepted.receive_max):
            self._allowance.release()

    async def subscribe(self, pattern: str, qos: int, *, retain_as_published: bool) -> bool:
        """Subscribe; return whether the broker grants it. Raises BrokerFailedError."""
        packet_id = self._next_id()
        wanted = mqtt5.TopicFilter(pattern, max_qos=_QOS[qos], retain_as_published=retain_as_published)
        asked = mqtt5.SubscribePacket(packet_id, [wanted])
        granted: mqtt5.SubAckPacket = await self._ask(asked, mqtt5.SubAckPacket, packet_id)
        return all(int(code) < _FIRST_REFUSAL for code in granted.reason_codes)

    async def unsubscribe(self, pattern: str) -> None:
        """End a subscription. Raises BrokerFailedError."""
        packet_id = self._next_id()
        await self._ask(mqtt5.UnsubscribePacket(packet_id, [pattern]), mqtt5.UnsubAckPacket, packet_id)

    async def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> None:
        """Publish; with QoS 1 wait until the broker has the message.

        Raises BrokerFailedError, also if the broker acknowledges and refuses.
        """
        await self._writable.wait()
        if not qos:
            self._write(PublishPacket(topic, payload, retain=retain))
            return
        async with self._allowance:
            packet_id = self._next_id()
            message = PublishPacket(topic, payload, qos=_QOS[1], retain=retain, packet_id=packet_id)
            taken: mqtt5.PubAckPacket = await self._ask(message, mqtt5.PubAckPacket, packet_id)
        _check(taken)

    def acknowledge(self, packet: PublishPacket) -> None:
        """Settle a message: the broker does not send it again.

        Acknowledgements leave in the order of the messages, so that one waits for all before it.
        """
        if packet.packet_id is None:
            return
        self._settled.add(packet.packet_id)
        while self._unsettled and self._unsettled[0] in self._settled:
            packet_id = self._unsettled.popleft()
            self._settled.discard(packet_id)
            self._write(mqtt5.PubAckPacket(packet_id))

    async def wait_closed(self) -> None:
        """Wait for the end of the connection; raises BrokerFailedError with its reason."""
        await asyncio.shield(self._ended)

    async def keep_alive(self) -> None:
        """Ping a silent broker, and abort the connection to one that does not answer."""
        while True:
            await asyncio.sleep(self._keepalive / 4)
            now = self._loop.time()
            if now - self._heard_at > 1.5 * self._keepalive:
                self._end(BrokerFailedError(of_error(TimeoutError())))
                return
            if now - min(self._sent_at, self._heard_at) >= self._keepalive / 2:
                self._write(mqtt5.PingReqPacket())

    def disconnect(self) -> None:
        """Tell the broker, and close."""
        if self._transport is None or self._transport.is_closing():
            return
        self._write(mqtt5.DisconnectPacket())
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._unread += data
        messages: list[PublishPacket] = []
        place = 0
        with memoryview(self._unread) as view:
            try:
                while True:
                    with view[place:] as rest:
                        packet, size = mqtt5.read(rest)
                    place += size
                    if isinstance(packet, PublishPacket):
                        messages.append(packet)
                    else:
                        self._handle(packet)
            except IndexError:
                # The rest of the packet comes with a later read.
                pass
            except BaseException as error:
                # At text that is no UTF-8 the codec panics, which is no Exception.
                if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
                    raise
                self._end(BrokerFailedError(self._explain_unreadable(place)))
                return
        del self._unread[:place]
        if messages:
            self._unsettled.extend(one.packet_id for one in messages if one.packet_id is not None)
            self._receive(self, messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(BrokerFailedError(of_error(exc) if exc else of_reason(None)))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Inside

    def _handle(self, packet: mqtt5.Packet) -> None:
        if isinstance(packet, mqtt5.DisconnectPacket):
            self._end(BrokerFailedError(of_reason(int(packet.reason_code))))
            return
        answer = self._answers.pop((type(packet), getattr(packet, "packet_id", 0)), None)
        if answer is not None and not answer.done():
            answer.set_result(packet)

    def _explain_unreadable(self, place: int) -> BrokerFailure:
        """Return why a packet cannot be decoded.

        A broker of MQTT 3 answers in a form of its own.
        """
        packet = self._unread[place:]
        is_answer = not self._keepalive and packet[0] == _CONNACK and len(packet) >= _CONNACK_BYTES
        return of_reason(packet[_CONNACK_BYTES - 1]) if is_answer else _UNREADABLE

    async def _ask(self, packet: Any, answer_kind: type, packet_id: int) -> Any:
        """Send a packet and return its answer.

        Raises BrokerFailedError once the connection has ended.
        """
        if self._ended.done():
            self._ended.result()
        self._write(packet)
        answer = self._answers[answer_kind, packet_id] = self._loop.create_future()
        try:
            return await answer
        finally:
            self._answers.pop((answer_kind, packet_id), None)

    def _next_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % _LAST_PACKET_ID + 1
            in_use = any(
                (kind, self._packet_id) in self._answers
                for kind in (mqtt5.PubAckPacket, mqtt5.SubAckPacket, mqtt5.UnsubAckPacket)
            )
            if not in_use:
                return self._packet_id

    def _write(self, packet: Any) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packet.write())

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))
            self._sent_at = self._loop.time()

    def _end(self, error: BrokerFailedError) -> None:
        """End the connection once, with the first reason."""
        if self._ended.done():
            return
        self._ended.set_exception(error)
        # Read or not, the reason is no unhandled error.
        self._ended.exception()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        self._answers.clear()
        self._writable.set()
        self.abort()


def _check(answer: "mqtt5.ConnAckPacket | mqtt5.PubAckPacket") -> None:
    """Raise BrokerFailedError for an answer that refuses."""
    code = int(answer.reason_code)
    if code >= _FIRST_REFUSAL:
        raise BrokerFailedError(of_reason(code))
