"""Connect simulated cameras to the broker, one connection each, with paho.

A camera logs in under its own id, unless the settings name a user for all of them.
"""

import queue
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker_bridge.common.broker_failures import of_error, of_reason
from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Assignment, DeviceInfo, DeviceStatus, Observation
from broker_bridge.contract.wire import WireModel
from fleet.errors import CannotRunError

_CONNECT_SECONDS = 10.0
_GOODBYE_SECONDS = 2.0


@dataclass(frozen=True)
class TrackerAnswer:
    """The tracker's answer to camera number `camera`."""

    camera: int
    assignment: Assignment


@dataclass(frozen=True)
class _State:
    camera: int
    kind: str
    reason: str = ""


class SimulatedCameras:
    """Cameras with the ids `names`.

    Camera number n is `names[n]`. Use as a context manager.
    Entering connects all cameras and publishes their info and the status `online`; leaving publishes
    `stopped`. Every method raises CannotRunError when the broker is unreachable, rejects a camera or ends a
    connection.
    """

    def __init__(self, settings: MqttSettings, names: Sequence[str], info: DeviceInfo) -> None:
        self._settings = settings
        self._names = names
        self._info = info
        # Increases with every run, so that the last will of an older run is ignored.
        self._session = f"{int(time.time() * 1000):x}"
        self._reports: queue.SimpleQueue[TrackerAnswer | _State] = queue.SimpleQueue()
        self._clients: list[mqtt.Client] = []

    @property
    def broker(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def __enter__(self) -> "SimulatedCameras":
        try:
            for number in range(len(self._names)):
                self._clients.append(self._connect(number))
            self._await_all("connected")
            for number, client in enumerate(self._clients):
                name = self._names[number]
                assigned = channels.ASSIGNED
                client.subscribe([(assigned.topic(device_id=name), SubscribeOptions(qos=assigned.qos))])
                self._publish(channels.INFO, self._info, number)
                self._publish(channels.STATUS, self._status("online"), number)
            self._await_all("subscribed")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + _GOODBYE_SECONDS
        goodbyes = [
            self._publish(channels.STATUS, self._status("stopped"), number)
            for number, client in enumerate(self._clients)
            if client.is_connected()
        ]
        for goodbye in goodbyes:
            # Without a broker the last will publishes `lost`.
            with suppress(RuntimeError, ValueError):
                goodbye.wait_for_publish(max(0.0, deadline - time.monotonic()))
        self._close()

    def send_observation(self, camera: int, observation: Observation) -> None:
        """Publish an observation of camera number `camera`."""
        self._publish(channels.OBSERVATION, observation, camera)

    def receive_answer(self, seconds: float) -> TrackerAnswer | None:
        """Return the next answer of the tracker to any camera.

        None after `seconds` without one.
        """
        try:
            report = self._reports.get(block=seconds > 0, timeout=max(seconds, 1e-3))
        except queue.Empty:
            return None
        if isinstance(report, TrackerAnswer):
            return report
        raise CannotRunError(self._explain(report))

    def _connect(self, number: int) -> mqtt.Client:
        settings, name = self._settings, self._names[number]
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = _CONNECT_SECONDS
        password = settings.password.get_secret_value() if settings.password else None
        user = settings.username or (name if password is not None else None)
        if user is not None:
            client.username_pw_set(user, password)
        will = self._status("lost").to_json()
        client.will_set(channels.STATUS.topic(device_id=name), will, channels.STATUS.qos, retain=True)
        client.on_socket_open = _send_at_once
        client.on_connect = partial(self._on_connect, number)
        client.on_disconnect = partial(self._on_disconnect, number)
        client.on_subscribe = partial(self._on_subscribe, number)
        client.on_message = partial(self._on_message, number)
        try:
            self._trust(client)
            client.connect(settings.host, settings.port, settings.keepalive_seconds, clean_start=True)
        except (OSError, UnicodeError) as error:
            failure = of_error(error, tls=settings.ca_file is not None)
            raise CannotRunError(f"the broker at {self.broker} cannot be reached: {failure}") from error
        client.loop_start()
        return client

    def _trust(self, client: mqtt.Client) -> None:
        settings = self._settings
        if settings.ca_file is None:
            return
        certificate, key = settings.cert_file, settings.key_file
        try:
            client.tls_set(
                str(settings.ca_file),
                certfile=str(certificate) if certificate else None,
                keyfile=str(key) if key else None,
            )
        except OSError as error:
            raise CannotRunError(
                f"mqtt.ca_file, cert_file or key_file cannot be used ({error.strerror or error})"
            ) from error

    def _await_all(self, kind: str) -> None:
        deadline = time.monotonic() + _CONNECT_SECONDS
        waiting = set(range(len(self._names)))
        while waiting:
            try:
                report = self._reports.get(timeout=max(deadline - time.monotonic(), 1e-3))
            except queue.Empty as error:
                name = self._names[min(waiting)]
                raise CannotRunError(
                    f"the broker at {self.broker} does not answer {name} within {_CONNECT_SECONDS:g} s"
                ) from error
            # Answers to an earlier run are dropped.
            if isinstance(report, _State):
                if report.kind != kind:
                    raise CannotRunError(self._explain(report))
                waiting.discard(report.camera)

    def _explain(self, state: _State) -> str:
        name, broker = self._names[state.camera], self.broker
        if state.kind == "refused":
            return (
                f"the broker at {broker} rejects {name}: {state.reason}; without a user name each camera "
                "logs in under its own id"
            )
        if state.kind == "denied":
            return f"the broker at {broker} does not let {name} receive the tracker's answers: {state.reason}"
        if state.kind == "wrong":
            return f"the broker at {broker} sent {name} an invalid answer: {state.reason}"
        return f"the broker at {broker} ended the connection of {name}: {state.reason}"

    def _status(self, state: Any) -> DeviceStatus:
        return DeviceStatus(state=state, session=self._session, at=utc_now())

    def _publish(self, channel: Channel[Any], message: WireModel, camera: int) -> mqtt.MQTTMessageInfo:
        topic = channel.topic(device_id=self._names[camera])
        return self._clients[camera].publish(topic, message.to_json(), channel.qos, channel.retain)

    def _close(self) -> None:
        for client in self._clients:
            client.disconnect()
        for client in self._clients:
            client.loop_stop()

    # Called by paho's threads, which hold its locks: they only queue a report.

    def _on_connect(
        self, number: int, _c: object, _u: object, _f: object, reason: ReasonCode, _p: object
    ) -> None:
        kind, why = ("refused", str(of_reason(reason.value))) if reason.is_failure else ("connected", "")
        self._reports.put(_State(number, kind, why))

    def _on_disconnect(
        self, number: int, _c: object, _u: object, flags: mqtt.DisconnectFlags, reason: ReasonCode, _p: object
    ) -> None:
        # Without a packet of the broker paho makes a reason up.
        code = reason.value if flags.is_disconnect_packet_from_server else None
        self._reports.put(_State(number, "lost", str(of_reason(code))))

    def _on_subscribe(
        self, number: int, _c: object, _u: object, _mid: int, reasons: list[ReasonCode], _p: object
    ) -> None:
        refused = next((reason for reason in reasons if reason.is_failure), None)
        kind, why = ("denied", str(of_reason(refused.value))) if refused else ("subscribed", "")
        self._reports.put(_State(number, kind, why))

    def _on_message(self, number: int, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        try:
            self._reports.put(TrackerAnswer(number, channels.ASSIGNED.decode(bytes(message.payload))))
        except ContractError as error:
            self._reports.put(_State(number, "wrong", str(error)))


def _send_at_once(_c: object, _u: object, opened: Any) -> None:
    """Set TCP_NODELAY.

    Else a small message waits up to 40 ms for the acknowledgement of the one before.
    """
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
