"""Define the channel table: topic, message, direction, QoS and retain of each row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from . import messages as m
from .errors import DEVICE_MISMATCH, PAYLOAD_INVALID, PAYLOAD_TOO_LARGE, TOPIC_UNKNOWN, ContractError
from .ids import DeviceId, SiteId
from .wire import MAX_UP_BYTES, UpMessage, WireModel

ROOT = "wfm/v1"

M = TypeVar("M", bound=WireModel)

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LEVEL = r"[A-Za-z0-9_-]{1,64}"


@dataclass(frozen=True)
class Channel(Generic[M]):
    """One row of the table.

    `pattern` has placeholders like `{device_id}`. Bridge workers share the subscription of a `shared` row. No
    program sends on a `reserved` row yet.
    """

    name: str
    pattern: str
    message: type[M]
    direction: Literal["up", "down"]
    qos: Literal[0, 1]
    retain: bool = False
    shared: bool = False
    reserved: bool = False
    about: str = field(default="", compare=False)

    def topic(self, **ids: str) -> str:
        """Return the topic for `ids`.

        Raises ContractError(`topic-unknown`) for an id that is not one level of a topic.
        """
        for name, value in ids.items():
            if not re.fullmatch(_LEVEL, value):
                raise ContractError(TOPIC_UNKNOWN, f"{name} {value!r} is not one level of a topic")
        return self.pattern.format(**ids)

    @property
    def filter(self) -> str:
        """Return the subscription filter that matches every topic of this row."""
        return _PLACEHOLDER.sub("+", self.pattern)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of the placeholders, in the order of the topic's levels."""
        return tuple(_PLACEHOLDER.findall(self.pattern))

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(_PLACEHOLDER.sub(rf"(?P<\1>{_LEVEL})", self.pattern))

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the ids in `topic`, or None if it belongs to another row."""
        found = self._regex.fullmatch(topic)
        return found.groupdict() if found else None

    def decode(self, payload: bytes) -> M:
        """Return the message in `payload`.

        Raises ContractError: `payload-too-large` past 256 KiB upward, `payload-invalid` for a payload that is
        not this row's message. The detail names the first wrong field and never quotes its value.
        """
        if self.direction == "up" and len(payload) > MAX_UP_BYTES:
            raise ContractError(
                PAYLOAD_TOO_LARGE, f"the payload has {len(payload)} bytes, at most {MAX_UP_BYTES} are allowed"
            )
        try:
            return self.message.model_validate_json(payload)
        except ValidationError as error:
            raise ContractError(PAYLOAD_INVALID, describe(error)) from error


def describe(error: ValidationError) -> str:
    """Return one sentence for a validation error: field and fault, not the value.

    The value may be biometric.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # The sender chooses the keys of open documents: a line break in one could forge a log line.
    where = ".".join(str(part) if str(part).isprintable() else ascii(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where or 'the message'}: {first['msg']}{more}"[:1000]


_UP = f"{ROOT}/device/{{device_id}}/up"
_SENDER = re.compile(rf"{ROOT}/device/(?P<device_id>{_LEVEL})/up/")
_DOWN = f"{ROOT}/device/{{device_id}}/down"
_SITE = f"{ROOT}/site/{{site_id}}"

STATUS = Channel(
    "status", f"{_UP}/status", m.DeviceStatus, "up", 1, retain=True, about="Presence, and the last will"
)
INFO = Channel(
    "info", f"{_UP}/info", m.DeviceInfo, "up", 1, retain=True, about="A device's site and software"
)
HEARTBEAT = Channel("heartbeat", f"{_UP}/heartbeat", m.Heartbeat, "up", 0, about="Health, every 30 s")
EVENT = Channel(
    "event", f"{_UP}/event/{{event_type}}", m.Event, "up", 1, shared=True, about="A validated recognition"
)
OBSERVATION = Channel(
    "observation",
    f"{_UP}/observation",
    m.Observation,
    "up",
    0,
    about="A face seen on a track, for cross-camera tracking",
)
SYNC_REQUEST = Channel(
    "sync_request",
    f"{_UP}/enrollment/request",
    m.SyncRequest,
    "up",
    1,
    shared=True,
    about="A request for the changes since a version",
)
SYNC_APPLIED = Channel(
    "sync_applied",
    f"{_UP}/enrollment/applied",
    m.SyncApplied,
    "up",
    1,
    retain=True,
    about="The version that a device has applied",
)
REGISTER = Channel(
    "register",
    f"{_UP}/enrollment/register",
    m.RegisterIdentity,
    "up",
    1,
    shared=True,
    about="A face to register as an identity",
)
CONFIG_REPORTED = Channel(
    "config_reported",
    f"{_UP}/config/reported",
    m.ReportedConfig,
    "up",
    1,
    retain=True,
    reserved=True,
    about="The configuration in force",
)
COMMAND_RESULT = Channel(
    "command_result", f"{_UP}/command/result", m.CommandResult, "up", 1, about="The outcome of a command"
)
RECEIPT = Channel(
    "receipt", f"{_DOWN}/event/receipt", m.Receipts, "down", 1, about="Events stored or rejected"
)
ASSIGNED = Channel(
    "assigned",
    f"{_DOWN}/observation/assigned",
    m.Assignment,
    "down",
    0,
    about="The detected person of a track",
)
SYNC_PAGE = Channel("sync_page", f"{_DOWN}/enrollment/page", m.SyncPage, "down", 1, about="A page of changes")
REGISTERED = Channel(
    "registered",
    f"{_DOWN}/enrollment/registered",
    m.Registered,
    "down",
    1,
    about="The decision on a registration",
)
CONFIG_DESIRED = Channel(
    "config_desired",
    f"{_DOWN}/config/desired",
    m.DesiredConfig,
    "down",
    1,
    retain=True,
    reserved=True,
    about="The desired configuration",
)
COMMAND = Channel(
    "command", f"{_DOWN}/command/{{command}}", m.Command, "down", 1, about="A command with an expiry"
)
SYNC_HEAD = Channel(
    "sync_head",
    f"{_SITE}/enrollment/head",
    m.SyncHead,
    "down",
    1,
    retain=True,
    about="The site's newest version",
)
SYNC_DELTA = Channel("sync_delta", f"{_SITE}/enrollment/delta", m.SyncDelta, "down", 1, about="A live change")

CHANNELS: tuple[Channel[Any], ...] = (
    STATUS, INFO, HEARTBEAT, EVENT, OBSERVATION, SYNC_REQUEST, SYNC_APPLIED, REGISTER, CONFIG_REPORTED,
    COMMAND_RESULT, RECEIPT, ASSIGNED, SYNC_PAGE, REGISTERED, CONFIG_DESIRED, COMMAND, SYNC_HEAD, SYNC_DELTA,
)  # fmt: skip


@dataclass(slots=True)
class Decoded(Generic[M]):
    """A message with its row and the ids of its topic.

    `stored` marks a retained message that the broker kept from before the subscription.
    """

    channel: Channel[M]
    ids: Mapping[str, str]
    message: M
    stored: bool = False


def sender_of(topic: str) -> str | None:
    """Return the device that sent on `topic`, also on one that is no channel's."""
    found = _SENDER.match(topic)
    return found and found["device_id"]


_CHECKED_IDS: dict[str, TypeAdapter[str]] = {
    "device_id": TypeAdapter(DeviceId),
    "site_id": TypeAdapter(SiteId),
}


def find(topic: str) -> tuple[Channel[Any], dict[str, str]]:
    """Return the row and ids of `topic`; raises ContractError(`topic-unknown`)."""
    for channel in CHANNELS:
        ids = channel.match(topic)
        if ids is not None:
            return channel, ids
    raise ContractError(TOPIC_UNKNOWN, f"no channel of {ROOT} has the topic {topic[:200]!r}")


@lru_cache(maxsize=4096)
def _find_checked(topic: str) -> tuple[Channel[Any], Mapping[str, str]]:
    """Return the row and the checked ids of a topic.

    Raises ContractError(`topic-unknown`), also for an id of another form than its kind. A device sends on the
    same few topics again and again.
    """
    channel, ids = find(topic)
    for name, kind in _CHECKED_IDS.items():
        if name in ids:
            try:
                kind.validate_python(ids[name])
            except ValidationError as error:
                raise ContractError(TOPIC_UNKNOWN, f"{ids[name]!r} is not a {name}") from error
    return channel, MappingProxyType(ids)


def decode(topic: str, payload: bytes) -> Decoded[Any]:
    """Return the row, ids and message of a payload that arrived on `topic`.

    Raises ContractError: `topic-unknown`, `payload-too-large`, `payload-invalid`, or `device-mismatch` when
    the payload names another device than its topic.
    """
    channel, ids = _find_checked(topic)
    message = channel.decode(payload)
    if isinstance(message, UpMessage) and message.device_id not in (None, ids.get("device_id")):
        raise ContractError(
            DEVICE_MISMATCH, f"the payload's device_id is not the topic's, {ids.get('device_id')}"
        )
    if isinstance(message, m.Event) and message.event_type != ids["event_type"]:
        raise ContractError(PAYLOAD_INVALID, f"event_type {message.event_type} came on another type's topic")
    return Decoded(channel, ids, message)
