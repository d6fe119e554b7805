"""Send events as a camera, as fast as receipts come back or at a rate.

A process of its own (`python -m benchmarks.saturation.cameras`), over the codec alone, so that the sender is
cheap beside what is measured. It prints one JSON object.
"""

import argparse
import base64
import json
import os
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import mqtt5

from broker_bridge.contract.wire import format_time

_SENT_AT_ONCE = 200
_TOPIC = "wfm/v1/device/{}/up/event/facial_id"
_RECEIPT = "wfm/v1/device/{}/down/event/receipt"


@dataclass(frozen=True)
class Options:
    """What a camera sends; see the command's help."""

    port: int
    device: str
    count: int | None = None
    rate: float = 0.0
    window: int = 4000
    image_bytes: int = 0
    receipts: bool = True
    host: str = "127.0.0.1"


@dataclass
class _Waiting:
    event: dict[str, Any]
    first_sent_at: float
    sent_at: float


class Camera:
    """One connection that sends events.

    `window` of them wait for their answer at most. With `receipts` the answer is the bridge's receipt, else
    the broker's PUBACK.
    """

    def __init__(self, options: Options, password: str) -> None:
        self._options = options
        self._password = password
        self._socket = socket.socket()
        self._unread = bytearray()
        self._waiting: dict[str, _Waiting] = {}
        self._acknowledged = 0
        self._packet_id = 0
        self._began = time.perf_counter()
        self._image = base64.b64encode(b"\xff\xd8" + os.urandom(options.image_bytes)).decode()
        self.event_ids: list[str] = []
        self.latencies: list[float] = []
        self.repeated = 0

    @property
    def unsettled(self) -> int:
        return len(self._waiting) if self._options.receipts else len(self.event_ids) - self._acknowledged

    @property
    def _is_done(self) -> bool:
        return len(self.event_ids) == self._options.count and not self.unsettled

    def send_all(self) -> float:
        """Send `count` events, and return the seconds until all have their answer."""
        self.log_in()
        self._began = time.perf_counter()
        while not self._is_done:
            self.work()
        seconds = time.perf_counter() - self._began
        self.close()
        return seconds

    def log_in(self) -> None:
        """Connect and subscribe. Events without an answer are sent again later."""
        self._unread.clear()
        self._socket = socket.create_connection((self._options.host, self._options.port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device = self._options.device
        connect = mqtt5.ConnectPacket(
            device, username=device, password=self._password.encode(), clean_start=True, receive_max=1000
        )
        self._socket.sendall(connect.write())
        self._wait_for(mqtt5.ConnAckPacket)
        if self._options.receipts:
            answers = mqtt5.TopicFilter(_RECEIPT.format(device), max_qos=mqtt5.QoS.AT_LEAST_ONCE)
            self._socket.sendall(mqtt5.SubscribePacket(1, [answers]).write())
            self._wait_for(mqtt5.SubAckPacket)

    def close(self) -> None:
        """Disconnect, if there is a connection."""
        with suppress(OSError):
            self._socket.sendall(mqtt5.DisconnectPacket().write())
        self._socket.close()

    def _wait_for(self, kind: type) -> None:
        while not any(isinstance(packet, kind) for packet in self._packets(wait=True)):
            pass

    def work(self, *, stopping: bool = False, repeat_after: float | None = None) -> None:
        """Send what is due and read the answers; without either wait a moment.

        An event without an answer for `repeat_after` seconds is sent again.
        """
        now = time.perf_counter()
        due = [] if stopping else [self._event(number) for number in self._due(now - self._began)]
        for event in due:
            self.event_ids.append(event["event_id"])
            self._waiting[event["event_id"]] = _Waiting(event, now, now)
        if repeat_after is not None:
            late = [one for one in self._waiting.values() if now - one.sent_at > repeat_after]
            for one in late[:_SENT_AT_ONCE]:
                one.sent_at = now
                one.event["metadata"]["replayed"] = True
                due.append(one.event)
                self.repeated += 1
        if due:
            self._socket.sendall(b"".join(map(self._packet, due)))
        self._read(wait=not due)

    def _due(self, elapsed: float) -> range:
        sent, options = len(self.event_ids), self._options
        by_rate = int(elapsed * options.rate) - sent if options.rate else _SENT_AT_ONCE
        due = min(by_rate, options.window - self.unsettled, _SENT_AT_ONCE)
        if options.count is not None:
            due = min(due, options.count - sent)
        return range(sent, sent + max(0, due))

    def _packet(self, event: dict[str, Any]) -> bytes:
        self._packet_id = self._packet_id % 60_000 + 1
        packet: bytes = mqtt5.PublishPacket(
            _TOPIC.format(self._options.device),
            json.dumps(event).encode(),
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=self._packet_id,
        ).write()
        return packet

    def _event(self, number: int) -> dict[str, Any]:
        now = datetime.now(timezone.utc)
        event = {
            "event_id": f"EV1-{int(now.timestamp() * 1000)}-{os.getpid() & 0xFFFF:04x}{number:08x}",
            "device_id": self._options.device,
            "user_id": f"EMP-{10001 + number % 500}",
            "event_type": "facial_id",
            "timestamp": format_time(now),
            "confidence": 0.92,
            "metadata": {
                "distance": 0.28,
                "margin": 0.31,
                "frames_tracked": 5,
                "track_id": f"face_{number}",
                "inference_ms": 41.5,
                "space": "face:resnet29-512",
                "gallery_version": 812,
                "replayed": False,
            },
        }
        return event | {"image": self._image} if self._options.image_bytes else event

    def _read(self, *, wait: bool) -> None:
        for packet in self._packets(wait=wait):
            if isinstance(packet, mqtt5.PublishPacket):
                self._settle(json.loads(packet.payload)["stored"])
                if packet.packet_id is not None:
                    self._socket.sendall(mqtt5.PubAckPacket(packet.packet_id).write())
            elif isinstance(packet, mqtt5.PubAckPacket):
                self._acknowledged += 1

    def _settle(self, event_ids: list[str]) -> None:
        now = time.perf_counter()
        for event_id in event_ids:
            # A repeated event has two receipts.
            if one := self._waiting.pop(event_id, None):
                self.latencies.append(now - one.first_sent_at)

    def _packets(self, *, wait: bool) -> list[Any]:
        with selectors.DefaultSelector() as readable:
            readable.register(self._socket, selectors.EVENT_READ)
            if not readable.select(0.001 if wait else 0):
                return []
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self._unread += data
        packets, place = [], 0
        with memoryview(self._unread) as view:
            try:
                while True:
                    with view[place:] as rest:
                        packet, size = mqtt5.read(rest)
                    place += size
                    packets.append(packet)
            except IndexError:
                # The rest of the packet comes with a later read.
                pass
        del self._unread[:place]
        return packets


def main() -> None:
    """Send, and print the seconds and latencies as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="events a second; 0 for as many as possible")
    parser.add_argument("--window", type=int, default=4000, help="events without an answer, at most")
    parser.add_argument("--image-bytes", type=int, default=0)
    parser.add_argument("--receipts", action=argparse.BooleanOptionalAction, default=True)
    camera = Camera(Options(**vars(parser.parse_args())), os.environ["CAMERA_PASSWORD"])
    print(json.dumps({"seconds": camera.send_all(), "latencies": camera.latencies}))


if __name__ == "__main__":
    main()
