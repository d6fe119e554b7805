"""Subscribe to events with an operator's rights, print them and keep them."""

import json
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt

from .mosquitto import Mosquitto

UNKNOWN_USER = ""
"""The user of an `unknown` event."""


@dataclass(frozen=True)
class TappedEvent:
    """An event on the wire; `happened_at` is its own time in seconds since 1970."""

    device_id: str
    event_id: str
    user_id: str | None
    happened_at: float


class EventTap:
    """A subscriber with the operator's rights. Use as a context manager."""

    def __init__(self, broker: Mosquitto, *, quiet: bool = False) -> None:
        self._broker = broker
        self._quiet = quiet
        self._seen: list[TappedEvent] = []
        self._changed = threading.Condition()
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"operator-{secrets.token_hex(4)}",
            protocol=mqtt.MQTTv5,
        )
        self._client.username_pw_set("operator", broker.users["operator"])
        self._client.on_connect = lambda client, *_: client.subscribe("wfm/v1/device/+/up/event/#", 1)
        self._client.on_message = self._on_message

    def seen(self) -> list[TappedEvent]:
        """Return all events so far, in the order of arrival."""
        with self._changed:
            return list(self._seen)

    def wait_for(
        self, wanted: Iterable[tuple[str, str]], since: float, timeout: float
    ) -> set[tuple[str, str]]:
        """Return those of `wanted` (device, user) pairs that happened after `since`.

        Waits until all have happened or `timeout` seconds have passed. The user of an `unknown` event is
        UNKNOWN_USER.
        """
        remaining = set(wanted)
        found: set[tuple[str, str]] = set()
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                happened = {
                    (s.device_id, s.user_id or UNKNOWN_USER) for s in self._seen if s.happened_at > since
                }
                found = remaining & happened
                left = deadline - time.monotonic()
                if found == remaining or left <= 0:
                    return found
                self._changed.wait(left)

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        event: dict[str, Any] = json.loads(message.payload)
        if not self._quiet:
            image = event.get("image")
            shown = event | ({"image": f"<base64 JPEG, {len(image) * 3 // 4 // 1024} KB>"} if image else {})
            print(f"{message.topic} {json.dumps(shown, separators=(',', ':'))}", flush=True)
        happened_at = datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()
        with self._changed:
            self._seen.append(
                TappedEvent(event["device_id"], event["event_id"], event.get("user_id"), happened_at)
            )
            self._changed.notify_all()

    def __enter__(self) -> "EventTap":
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
